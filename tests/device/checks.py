"""What must run on any device, and give there what it gives on the CPU.

`python -m tests.device.checks` runs those whose names it reads, line by line, on the CPU and on the second device, and
answers each with a line of JSON: what went wrong, or nothing. Both compute with the kernels of the CPU, so results are
the same but for rounding (optimizers go about their sums in another order there).
"""

from __future__ import annotations

import copy
import json
import math
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.cost import clock
from metaprune.data import Batches, Characters
from metaprune.methods.graph_metanetwork import Direct, Imitate, Metanetwork, meta_train, teach
from metaprune.methods.graph_metanetwork.learning.area import metrics
from metaprune.methods.graph_metanetwork.learning.zoo import Variant, grow, networks
from metaprune.methods.method import Method, Problem
from metaprune.models import BothWays, PatchDiscriminator, ResidualGenerator
from metaprune.session import measuring
from metaprune.train import Recipe, Task, Training, engine
from metaprune.train.several.dividing import near
from metaprune.train.task import First
from metaprune.train.tasks.few_shot import Inner
from tests.breaking import Breaks
from tests.device import second
from tests.methods import small
from tests.remembered import remembered

EXAMPLE = small.EXAMPLE
BUDGET = mp.Budget(macs=0.5, multiple_of=4)

Check = Callable[[torch.device], Any]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


class Attentive(nn.Module):
    """Attention, dropout, tied weights, a buffer, and a norm over channels, for which DHP traces as it searches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.register_buffer("places", torch.linspace(-1, 1, 8)[:, None])
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up = nn.Linear(16, 24)
        self.again = nn.Linear(24, 24)
        self.once_more = nn.Linear(24, 24)
        self.once_more.weight = self.again.weight
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1)) + self.places
        seen = self.norm(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        x = self.drop(self.up(x)).relu()
        x = self.once_more(self.again(x).relu()) * torch.arange(8, device=x.device)[:, None].to(x.dtype)
        return self.head(x.mean(1))


@cache
def _convolutional() -> small.Small:
    return small.network()


def convolutional() -> nn.Module:
    return copy.deepcopy(_convolutional())


def attentive() -> nn.Module:
    torch.manual_seed(0)
    return Attentive()


def task() -> Task:
    """Short: four steps an epoch."""
    whole = small.task()
    return replace(whole, train=First(whole.train, 4), val=First(whole.val, 1))


def recipe(device: torch.device, epochs: int = 2, **fields: Any) -> Recipe:
    return Recipe(epochs, lr=0.05, precision="32-true", device=device.type, channels_last=True, **fields)


def on(device: torch.device, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network that lives on the device, with example inputs there."""
    torch.manual_seed(1)
    return model.to(device), (torch.randn(2, 1, 8, 8).to(device),)


def pruned(device: torch.device, method: Method, model: nn.Module, **fields: Any) -> Any:
    result = mp.prune(
        model,
        fields.pop("args", EXAMPLE),
        method=method,
        budget=fields.pop("budget", BUDGET),
        task=fields.pop("task", task()),
        recipe=fields.pop("recipe", recipe(device)),
        progress=False,
        **fields,
    )
    rows = [(row.loss, row.metric) for row in result.report.history]
    return result.plan.kept, result.model.state_dict(), rows, result.report.pruned.metric, result.report.after_cut


# Methods.


@check
def dhp(device: torch.device) -> Any:
    return pruned(device, mp.DHP(), convolutional())


@check
def dhp_as_a_hypernetwork(device: torch.device) -> Any:
    return pruned(device, mp.DHP(form="hypernetwork"), convolutional())


@check
def dhp_as_in_the_paper(device: torch.device) -> Any:
    return pruned(device, mp.DHP.paper(search=0.5), convolutional())


@check
def dhp_where_a_norm_counts_channels(device: torch.device) -> Any:
    """The network and its example inputs are on the device before anybody trains."""
    model, args = on(device, attentive())
    budget = mp.Budget(params=0.6, multiple_of=1)
    return pruned(device, mp.DHP(), model, args=args, budget=budget, recipe=recipe(device, optimizer="adamw"))


@check
def transportation(device: torch.device) -> Any:
    return pruned(device, mp.Transportation(), convolutional())


@check
def transportation_by_sweeps(device: torch.device) -> Any:
    return pruned(device, mp.Transportation(solver="sinkhorn"), convolutional())


@check
def transportation_where_a_norm_counts_channels(device: torch.device) -> Any:
    """The network and its example inputs are on the device before anybody trains."""
    model, args = on(device, attentive())
    budget = mp.Budget(params=0.6, multiple_of=1)
    return pruned(device, mp.Transportation(), model, args=args, budget=budget)


@check
def decisions(device: torch.device) -> Any:
    """Of a network that lives on the device."""
    model, args = on(device, convolutional())
    problem = Problem(model, mp.trace(model, args), BUDGET, task(), recipe(device, 1), None, False)
    found = [method.find(problem) for method in (mp.Magnitude(), mp.Uniform(), mp.Random(seed=3), mp.Taylor(batches=2))]
    return [(one.plan.kept, one.scores) for one in found]


@check
def taylor(device: torch.device) -> Any:
    return pruned(device, mp.Taylor(), attentive(), recipe=recipe(device, 1))


@check
def intra_fusion(device: torch.device) -> Any:
    """Of networks that live on the device, with batch norms behind rows and without."""
    found = []
    for model in (convolutional(), attentive()):
        model, args = on(device, model)
        found.append(pruned(device, mp.IntraFusion(producer="mean"), model, args=args, recipe=recipe(device, 1)))
    return found


@check
def two_networks_in_one(device: torch.device) -> Any:
    """Both on the device."""
    model, args = on(device, convolutional())
    other, _ = on(device, convolutional())
    return mp.fuse(model, other, args, share=0.3).state_dict()


@check
def graph_metanetwork(device: torch.device) -> Any:
    """Of a network that lives on the device, with a trial."""
    model, args = on(device, convolutional())
    return pruned(device, mp.GraphMetanetwork(trial=2), model, args=args, recipe=recipe(device, 1))


@check
def graph_metanetwork_with_tuning(device: torch.device) -> Any:
    return pruned(device, mp.GraphMetanetwork(tuning=0.5, criterion="importance"), convolutional())


@check
def metapruning(device: torch.device) -> Any:
    """Of a network that lives on the device, from its own weights; and from fresh ones."""
    model, args = on(device, convolutional())
    quick: dict[str, Any] = {"search": 0.5, "population": 3, "generations": 2, "parents": 2, "calibration": 2}
    kept = pruned(device, mp.MetaPruning(generator="film", fresh=False, **quick), model, args=args)
    return kept, pruned(device, mp.MetaPruning(generator="mlp", **quick), convolutional())[0]


@check
def few_shot_with_zeros(device: torch.device) -> Any:
    """Reptile, with channels that are zero in its inner steps too, and episodes after it."""
    model, args = on(device, convolutional())
    generator = torch.Generator().manual_seed(0)
    classes = [torch.randn(6, 1, 8, 8, generator=generator) for _ in range(4)]
    zeros = mp.Sparsity(0.5, "dsd", mp.trace(model, args), begin=0.0).on(model)
    inner = Inner(2, 4, 0.01)
    whose = Characters(classes, classes, classes)
    fields: dict[str, Any] = {"tasks": 2, "steps": 2, "queries": 2, "episodes": 2, "val_episodes": 2}
    few = mp.FewShot(whose, 3, 2, inner=inner, testing=inner, project=zeros.project, **fields)
    plain = recipe(device, momentum=0.0, nesterov=False, weight_decay=0.0)
    rows = mp.fit(model, few, plain, during=[zeros], progress=False).rows
    return model.state_dict(), [row.metric for row in rows], zeros.plan.kept, zeros.masks


@check
def a_network_that_comes_back(device: torch.device) -> Any:
    """It lives on the device and is trained on the CPU."""
    model, args = on(device, convolutional())
    found = pruned(device, mp.DHP(), model, args=args, recipe=recipe(torch.device("cpu")))
    assert {tensor.device for tensor in [*found[1].values(), *model.state_dict().values()]} == {device}
    return found


@check
def pictures(device: torch.device) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    noisy = [(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)) for _ in range(2)]
    return pruned(device, mp.Magnitude(), model, args=(noisy[0][0],), task=mp.Denoising(noisy, noisy, sigma=25.0))


@check
def milliseconds(device: torch.device) -> Any:
    """The clock says what it wants, so only that it runs is compared."""
    pruned(device, mp.Magnitude(), convolutional(), budget=mp.Budget(latency=1e3), recipe=recipe(device, 1))
    return None


# Training.


@check
def training(device: torch.device) -> Any:
    model = attentive()
    rows = mp.fit(model, task(), recipe(device, clip_norm=1.0, warmup=0.5), progress=False).rows
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    return model.state_dict(), [(row.loss, row.metric) for row in rows]


@check
def training_on_pictures_in_memory(device: torch.device) -> Any:
    """They are moved there once, and augmented there; also the first batches of them, and in evaluation."""
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    middle = torch.full((1,), 127.5)
    held = Batches(images, torch.arange(40) % 3, 12, middle, middle / 2, shuffle=True, pad=2, flip=True)
    assert near(held, device).images.device.type == device.type
    model = convolutional()
    rows = mp.fit(model, mp.Classification(First(held, 3), held), recipe(device), progress=False).rows
    assert held.images.device.type == "cpu"
    return model.state_dict(), [(row.loss, row.metric) for row in rows]


@check
def training_on_labels_that_are_no_classes(device: torch.device) -> Any:
    """On a device nobody waits to look at them: the loss is no number then."""
    x, said = [(torch.zeros(4, 1, 8, 8), torch.full((4,), 7))], ""
    try:
        mp.fit(convolutional(), mp.Classification(x, x), recipe(device, 1), progress=False)
    except mp.MetapruneError as error:
        said = str(error)
    assert "no class" in said or "labels must be inside" in said, said
    return None


@check
def the_loss_of_tokens_that_are_none(device: torch.device) -> Any:
    """As of labels: no number on a device, and refused on the CPU."""
    task, tokens, said = mp.LanguageModelling([], []), torch.arange(10).view(2, 5) % 7, ""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        said = str(float(task.loss(logits, (tokens + 3).to(device))))
    except mp.MetapruneError as error:
        said = str(error)
    assert said == "nan" or "tokens must be inside" in said, said
    return task.loss(logits, tokens.to(device))


@check
def training_in_place(device: torch.device) -> Any:
    model, _ = on(device, convolutional())
    mp.fit(model, task(), recipe(device, 1), progress=False)
    return model.state_dict()


@check
def training_groups(device: torch.device) -> Any:
    """Groups of parameters made before the network moves."""
    model = convolutional()
    groups = [{"params": [parameter], "lr": 0.01 * (1 + i)} for i, parameter in enumerate(model.parameters())]
    mp.fit(model, task(), recipe(device, 1), parameters=groups, progress=False)
    return model.state_dict()


@check
def training_with_a_teacher(device: torch.device) -> Any:
    model = convolutional()
    mp.fit(model, mp.distil(task(), attentive()), recipe(device, 1), progress=False)
    return model.state_dict()


@check
def evaluation(device: torch.device) -> Any:
    model, _ = on(device, attentive())
    return mp.evaluate(attentive(), task().val, task(), recipe(device)), mp.evaluate(
        model, task().val, task(), recipe(device)
    )


class Stop(KeyboardInterrupt):
    pass


@check
def checkpoints(device: torch.device) -> Any:
    """A search and a training that stop in their second epoch and go on end as if they had not."""

    def trained(where: Path | None, on_what: Task) -> Any:
        model = attentive()
        mp.fit(model, on_what, recipe(device, optimizer="adamw"), checkpoint=where, progress=False)
        return model.state_dict()

    def searched(where: Path | None, on_what: Task) -> Any:
        return pruned(device, mp.DHP(search=1.0), convolutional(), task=on_what, out=where)

    found = []
    for go in (trained, searched):
        with tempfile.TemporaryDirectory() as folder:
            try:
                go(Path(folder) / "run", replace(task(), train=Breaks(task().train, 6, Stop)))
            except Stop:
                found.append(go(Path(folder) / "run", task()))
    assert len(found) == 2
    assert same(found[0], trained(None, task()))
    return found


@check
def partners(device: torch.device) -> Any:
    """A head in the network's optimizer and a critic with one of its own, gradients of three batches in a step."""
    from torchmetrics.classification import MulticlassF1Score  # as long as all else that is imported here

    def step(training: Training, batch: Any) -> Tensor:
        logits = training.network(batch[0])
        training.update("critic", training.partners["critic"](logits.detach()).square().mean())
        return F.cross_entropy(training.partners["head"](logits), batch[1]) + training.partners["critic"](logits).mean()

    torch.manual_seed(3)
    beside = {"head": mp.Partner(nn.Linear(3, 3)), "critic": mp.Partner(nn.Linear(3, 1), lr=0.02)}
    adversarial = replace(task(), step=step, partners=beside)
    found = []
    for method in (mp.DHP(), mp.Taylor()):
        model, given = convolutional(), recipe(device, accumulate=3, schedule="linear")
        result = mp.prune(model, EXAMPLE, method=method, budget=BUDGET, task=adversarial, recipe=given, progress=False)
        found += [result.model.state_dict(), *(module.state_dict() for module in result.partners.values())]
    assert {tensor.device.type for state in found for tensor in state.values()} == {"cpu"}
    whole = mp.Classification(task().train, task().val, weight=[1.0, 2.0, 3.0], metric=MulticlassF1Score(3))
    taught = mp.distil(whole, convolutional(), features=["wide"])
    model = convolutional()
    mp.fit(model, taught, recipe(device, 1), progress=False)
    return [*found, model.state_dict(), mp.evaluate(model, whole.val, whole, recipe(device))]


@check
def translation(device: torch.device) -> Any:
    """Two generators in one, discriminators that remember pictures, and a distance of features."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(6, 2, 1, 16, 16, generator=generator)
    batches = DataLoader(TensorDataset(pictures[:, 0], pictures[:, 1]), batch_size=2)
    torch.manual_seed(3)
    forth, back = (ResidualGenerator(1, 1, width=4, blocks=1) for _ in range(2))
    judge, features = PatchDiscriminator(1, width=4, layers=1), nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    goal = mp.Adversarial(batches, batches, discriminator=judge, back="both", features=features, pool=3)
    model, args = BothWays(forth, back), (pictures[:2, 0], pictures[:2, 1])
    result = mp.prune(
        model,
        args,
        method=mp.DHP.generator(),
        budget=mp.Budget(macs=0.6, multiple_of=1),
        task=goal,
        recipe=recipe(device),
        progress=False,
    )
    return result.plan.kept, result.model.state_dict(), *(one.state_dict() for one in result.partners.values())


@check
def random_numbers(device: torch.device) -> Any:
    """Those of the device, which PyTorch seeds along with the CPU's, go on where they were."""
    second.MODULE.seed = 7
    model = convolutional().to(device)
    mp.recalibrate(model, task().train)
    mp.DHP.paper().generate(model, mp.trace(model, (EXAMPLE[0].to(device),)))
    mp.evaluate(model, task().val, task(), recipe(device))
    assert second.MODULE.seed == 7
    return model.state_dict()


@check
def what_a_gpu_refuses(device: torch.device) -> Any:
    """The second device is no better than one: what lies elsewhere, and what has to be copied, is refused."""
    if device.type == "cpu":
        return None
    here = torch.ones(3, device=device)
    wrong: list[Callable[[], Any]] = [
        lambda: here + torch.ones(3),
        lambda: here.index_select(0, torch.tensor([0])),
        lambda: here.double(),
        lambda: here.numpy(),
        lambda: np.asarray(here),
        lambda: torch.empty(3, device=device).uniform_(generator=torch.Generator()),
    ]
    for place, attempt in enumerate(wrong):
        try:
            attempt()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(f"attempt {place} was not refused")
    assert torch.equal(((here + 1)[torch.tensor([0])] * torch.tensor(2.0)).cpu(), torch.tensor([4.0]))
    return None


# Surgery.


def surgery_of(device: torch.device, model: nn.Module) -> Any:
    model, args = on(device, model.train())
    graph = mp.trace(model, args)
    plan = mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})
    small_one, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    assert {tensor.device for tensor in small_one.state_dict().values()} == {device}
    outputs = [network.eval()(*args) for network in (model, small_one, masked)]
    torch.testing.assert_close(outputs[1].detach().cpu(), outputs[2].detach().cpu())
    outputs[2].sum().backward()
    return str(graph), plan.kept, small_one.state_dict(), outputs


@check
def surgery(device: torch.device) -> Any:
    return surgery_of(device, convolutional())


@check
def surgery_of_attention(device: torch.device) -> Any:
    return surgery_of(device, attentive())


@check
def surgery_after_a_move(device: torch.device) -> Any:
    """Traced on the CPU, cut and masked on the device."""
    model = attentive()
    graph = mp.trace(model, EXAMPLE)
    plan = mp.Plan({name: range(axis.size // 2) for name, axis in graph.free.items()})
    model, args = on(device, model)
    return mp.slice(model, graph, plan).state_dict(), mp.mask(model, graph, plan).eval()(*args)


@check
def carrying_an_optimizer(device: torch.device) -> Any:
    found = []
    model, args = on(device, convolutional())
    graph = mp.trace(model, args)
    plan = mp.Plan({name: range(1, axis.size) for name, axis in graph.free.items() if axis.size > 2})
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        model, _ = on(device, convolutional())
        optimizer = kind(model.parameters(), 1e-2)
        model(*args).square().sum().backward()
        optimizer.step()
        cut = mp.slice(model, graph, plan)
        carried = mp.carry(optimizer, model, cut, graph, plan)
        carried.zero_grad()
        cut(*args).square().sum().backward()
        carried.step()
        found.append((cut.state_dict(), carried.state_dict()["state"]))
    return found


@check
def recalibration(device: torch.device) -> Any:
    model, _ = on(device, convolutional())
    mp.recalibrate(model, task().train)
    return model.state_dict()


@check
def zeros(device: torch.device) -> Any:
    model, _ = on(device, convolutional())
    found = []
    for sparse in (mp.sparsify(model, 0.7), mp.sparsify(model, n=2, m=4)):
        mp.fit(sparse.model, task(), recipe(device, 1), during=[sparse], progress=False)
        found.append((sparse.model.state_dict(), dict(sparse.masks), sparse.sparsity))
    return found


# Files.


@check
def magnitude_saved_and_loaded(device: torch.device) -> Any:
    model, args = on(device, convolutional())
    settings = {"method": mp.Magnitude(), "budget": BUDGET, "task": task(), "recipe": recipe(device, 1)}
    result = mp.prune(model, args, **settings, progress=False)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        loaded = mp.load(folder, model)
        mp.export(result.model, args, Path(folder) / "network.pt2")
    assert {tensor.device for tensor in loaded.state_dict().values()} == {device}
    assert same(loaded.state_dict(), result.model.state_dict())
    return result.plan.kept, loaded.state_dict(), result.report.pruned.metric


# Meta-training.


def metanetwork() -> Metanetwork:
    torch.manual_seed(0)
    return Metanetwork(hidden=4, layers=1, step=0.3)


@check
def meta_training(device: torch.device) -> Any:
    """Lessons from a search, then a metanetwork that learns from them, stops, and goes on."""
    models = {"one": convolutional()}
    settings = recipe(device, 1, optimizer="adamw")
    with tempfile.TemporaryDirectory() as folder:
        lessons = teach(
            models,
            EXAMPLE,
            task(),
            mp.DHP(),
            out=Path(folder) / "lessons",
            shares=(0.5,),
            recipe=recipe(device, 1),
            progress=False,
        )

        def learn(where: str, training: Task) -> Any:
            learner = metanetwork()
            curve = meta_train(
                learner,
                models,
                EXAMPLE,
                training,
                held_out={"other": _convolutional()},
                goal=Imitate(Direct()),
                recipe=settings,
                batches=2,
                lessons=lessons,
                out=Path(folder) / where,
                progress=False,
            )
            assert {parameter.device.type for parameter in learner.parameters()} == {"cpu"}
            return learner.state_dict(), [step.parts for step in curve.steps], [c.area for c in curve.checks]

        return learn("meta", task())


@check
def a_zoo(device: torch.device) -> Any:
    builders = {"small": small.Small}
    with tempfile.TemporaryDirectory() as folder:
        entries = grow(folder, builders, [Variant("small", cut=0.6)], EXAMPLE, task(), recipe(device), progress=False)
        return [entry.metric for entry in entries], [
            model.state_dict() for model in networks(folder, builders, EXAMPLE).values()
        ]


# Running them.


def plain(found: Any) -> Any:
    """The same with all tensors on the CPU."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), found)


def same(one: Any, other: Any, exactly: bool = True) -> bool:
    """Bit for bit, or but for rounding, wherever the tensors lie."""
    (ours, form), (theirs, their_form) = (pytree.tree_flatten(plain(found)) for found in (one, other))
    return form == their_form and all(alike(a, b, exactly) for a, b in zip(ours, theirs, strict=True))


def alike(one: Any, other: Any, exactly: bool) -> bool:
    if isinstance(one, Tensor):
        floats = one.is_floating_point() and not exactly
        return torch.allclose(one, other, 1e-4, 1e-6) if floats else torch.equal(one, other)
    return math.isclose(one, other, rel_tol=1e-4) if isinstance(one, float) and not exactly else one == other


def differences(one: Any, other: Any) -> str:
    ours, theirs = (pytree.tree_leaves_with_path(plain(found)) for found in (one, other))
    pairs = zip(ours, theirs, strict=False)
    wrong = [pytree.keystr(path) for (path, a), (_, b) in pairs if not alike(a, b, exactly=False)]
    return f"{len(wrong)} of {len(ours)} results differ from those on the CPU, such as {', '.join(wrong[:4])}"


@dataclass
class Places:
    """Where `engine` gets its Fabric: Lightning knows no strategy for a device that is not its own."""

    usual: Any

    def fabric(self, settings: Recipe) -> Any:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import SingleDeviceStrategy

        if settings.device != second.DEVICE.type:
            return self.usual(settings)
        return Fabric(strategy=SingleDeviceStrategy(second.DEVICE, second.OnSecond()), precision="32-true")


def answer(names: Iterable[str]) -> Iterator[str]:
    """What went wrong in each check; empty where nothing did."""
    device = second.install()
    engine._fabric = Places(engine._fabric).fabric
    assert metrics.__kwdefaults__
    metrics.__kwdefaults__["steps"] = 1  # between a cut and a measurement
    for room in (clock, measuring):
        room.latencies = partial(room.latencies, seconds=1e-3)  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too: attention by the same kernels on both
    with remembered():
        for name in names:
            try:
                expected = CHECKS[name](torch.device("cpu"))
                got = CHECKS[name](device)
                yield "" if same(expected, got, exactly=False) else differences(expected, got)
            except Exception:
                yield traceback.format_exc()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # what a check prints is no answer
    for said in answer(line.strip() for line in sys.stdin):
        answers.write(f"{json.dumps(said)}\n")
        answers.flush()
