"""What several processes do together, and one alone the same: `python -m tests.train.together FILE CHECK…`.

Each process runs the checks in turn; the first writes what each gave, or the error that it ended with, to the file.
All is in float64, so that nothing but the order of sums differs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.breaking import Breaks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassF1Score

import metaprune as mp
from metaprune.methods.graph_metanetwork import Direct, Imitate, Metanetwork, Paper, meta_train, teach
from metaprune.session import measuring
from metaprune.train import Task, processes

SIZE = int(os.environ.get("WORLD_SIZE", os.environ.get("DEVICES", "1")))
RANK = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
DEVICES = int(os.environ.get("DEVICES", "1"))
"""What recipes say: where somebody else started the processes, nothing."""

Check = Callable[[Path], Any]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


class Few(nn.Module):
    """Batch norms, a residual line, weights large enough to be split, and one that no call uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 32)
        self.norm = nn.BatchNorm1d(32)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(32, 40), nn.BatchNorm1d(40), nn.ReLU()) for _ in range(2))
        self.back = nn.ModuleList(nn.Linear(40, 32) for _ in range(2))
        self.head = nn.Linear(32, 3)
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        for block, back in zip(self.blocks, self.back, strict=True):
            x = x + back(block(x))
        return self.head(x)


def few() -> Few:
    torch.manual_seed(0)
    return Few().double()


def examples(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long())


@dataclass(frozen=True)
class Plain:
    """A loader that PyTorch did not write: batches by order of a permutation, and noise on them."""

    data: TensorDataset
    batch: int

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for chosen in torch.randperm(len(self.data)).split(self.batch):
            x, labels = self.data[chosen]
            yield {"x": x + 0.01 * torch.randn(x.shape, dtype=x.dtype), "labels": labels}


def task(train: Any = None, **fields: Any) -> Task:
    """The last batch to learn from has two examples: fewer than there are of four processes."""
    learned = DataLoader(examples(50, 1), batch_size=12, shuffle=True) if train is None else train
    return replace(mp.Classification(learned, DataLoader(examples(31, 2), batch_size=7)), **fields)


def recipe(epochs: int = 2, **fields: Any) -> mp.Recipe:
    settings: dict[str, Any] = {"lr": 0.05, "precision": "64-true", "device": "cpu", "devices": DEVICES}
    return mp.Recipe(epochs, **(settings | fields))


def weights(model: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.double().flatten().tolist() for name, tensor in model.state_dict().items()}


def trained(how: mp.Recipe, on: Task | None = None, model: nn.Module | None = None, **fields: Any) -> Any:
    model = model or few()
    rows = mp.fit(model, on or task(), how, progress=False, **fields).rows
    return weights(model), [(row.loss, row.metric) for row in rows]


@check
def fit(folder: Path) -> Any:
    return trained(recipe(clip_norm=1.0, accumulate=3))


@check
def fit_from_a_loader_of_ones_own(folder: Path) -> Any:
    """Its last batch has one example, less than one for each; so there are no norms."""
    own = task(
        Plain(examples(49, 1), 12),
        val=Plain(examples(31, 2), 7),
        inputs=lambda batch: ((batch["x"],), {}),
        loss=lambda output, batch: nn.functional.cross_entropy(output, batch["labels"]),
        metric=lambda output, batch: (output.double().sum(), len(output)),
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    return trained(recipe(optimizer="adamw", lr=0.01), own, model)


@dataclass
class Latest:
    """A metric that depends on the order of what it is given."""

    found: float = 0.0
    higher_is_better: bool = field(default=True, init=False)

    def update(self, answers: Tensor, labels: Tensor) -> None:
        self.found = 0.5 * self.found + float((answers.argmax(1) == labels).double().mean())

    def compute(self) -> float:
        return self.found


@check
def evaluate(folder: Path) -> Any:
    metrics = (MulticlassF1Score(3), Latest(), task().metric)
    return [mp.evaluate(few(), task().val, task(metric=metric), recipe()) for metric in metrics]


def pruned(method: Any, how: mp.Recipe, **fields: Any) -> Any:
    x = examples(2, 3).tensors[0]
    budget = mp.Budget(macs=0.5, multiple_of=1)
    result = mp.prune(few(), (x,), method=method, budget=budget, task=task(), recipe=how, progress=False, **fields)
    rows = [(row.loss, row.metric) for row in result.report.history]
    plan = {name: list(kept) for name, kept in result.plan.kept.items()}
    return plan, result.report.pruned.metric, rows, result.report.after_cut


@check
def dhp(folder: Path) -> Any:
    return pruned(mp.DHP(), recipe(4))


@check
def taylor(folder: Path) -> Any:
    return pruned(mp.Taylor(batches=3), recipe(1))


@check
def magnitude(folder: Path) -> Any:
    return pruned(mp.Magnitude(), recipe(1))


@check
def metanetwork(folder: Path) -> Any:
    return pruned(mp.GraphMetanetwork(trial=3), recipe(1))


@check
def transportation(folder: Path) -> Any:
    return pruned(mp.Transportation(), recipe(2))


def narrow(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def simple() -> Task:
    """In float32, as metanetworks compute."""
    x, labels = examples(48, 1).tensors
    batches = DataLoader(TensorDataset(x.float(), labels), batch_size=12, shuffle=True)
    return mp.Classification(batches, DataLoader(TensorDataset(x.float()[:9], labels[:9]), batch_size=9))


def meta_trained(goal: Any, folder: Path, **fields: Any) -> Any:
    torch.manual_seed(0)
    metanetwork = Metanetwork(hidden=4, layers=1, step=0.3)
    curve = meta_train(
        metanetwork,
        {"a": narrow(1), "b": narrow(2)},
        (examples(2, 3).tensors[0].float(),),
        simple(),
        held_out={"c": narrow(3), "d": narrow(4), "e": narrow(5)},
        goal=goal,
        recipe=recipe(2, precision="32-true", lr=0.01, optimizer="adamw"),
        batches=3,
        every=2,
        progress=False,
        out=folder,
        **fields,
    )
    assert (folder / "metanetwork.safetensors").is_file()
    checks = [[check.step, check.area, dict(check.metrics)] for check in curve.checks]
    return weights(metanetwork), curve.chosen, [dict(step.parts) for step in curve.steps], checks


@check
def meta_training(folder: Path) -> Any:
    """Batches of a step and held-out networks are taken in turns; there are more of these than processes."""
    return meta_trained(Paper(), folder / "paper")


@check
def meta_training_on_the_way(folder: Path) -> Any:
    """Each batch goes on from the one before it, so all take all."""
    return meta_trained(Direct(), folder / "direct")


@check
def lessons(folder: Path) -> Any:
    """Each process searches for lessons of its own; all learn from all."""
    found = teach(
        {name: narrow(seed) for seed, name in enumerate("abcde", 1)},
        (examples(2, 3).tensors[0].float(),),
        simple(),
        mp.Magnitude(),
        out=folder / "lessons",
        shares=(0.4, 0.6),
        recipe=recipe(1),
        progress=False,
    )
    plans = {name: [json.loads(lesson.plan.to_json()) for lesson in told] for name, told in found.items()}
    return plans, meta_trained(Imitate(), folder / "imitating", lessons=found, choose_by="lessons")


@check
def metapruning(folder: Path) -> Any:
    """Twice: the second time candidates are read that the first process wrote."""
    method = mp.MetaPruning(generator="film", fresh=False, population=4, generations=2)
    first = pruned(method, recipe(2), out=folder / "metapruning")
    assert pruned(method, recipe(2), out=folder / "metapruning") == first
    return first


@check
def split_metapruning(folder: Path) -> Any:
    """Refused: weights that are generated have to be whole."""
    try:
        return pruned(mp.MetaPruning(), recipe(2, strategy="fsdp"))
    except mp.MetapruneError as error:
        return str(error)


@check
def milliseconds(folder: Path) -> Any:
    """The clock is the first process's; the others are told."""
    x = examples(2, 3).tensors[0]
    clock = mp.Clock(measure=lambda network: 1.0 + RANK + sum(p.numel() for p in network.parameters()) / 4000)
    given: dict[str, Any] = {"budget": mp.Budget(speedup=1.2, multiple_of=1), "clock": clock, "task": task()}
    result = mp.prune(few(), (x,), method=mp.Magnitude(), recipe=recipe(1), progress=False, **given)
    return {name: list(kept) for name, kept in result.plan.kept.items()}, result.report.pruned.metric


@check
def split(folder: Path) -> Any:
    """The same with pieces of weights; their norm is clipped, and their state kept."""
    how = recipe(2, strategy="fsdp", clip_norm=1.0, optimizer="adamw", lr=0.01, keep="best")
    first = trained(how, checkpoint=folder / "split")
    again = trained(how, checkpoint=folder / "split")  # from its end
    assert first == again
    return first


@check
def split_dhp(folder: Path) -> Any:
    return pruned(mp.DHP(), recipe(4, strategy="fsdp"))


@check
def split_taylor(folder: Path) -> Any:
    return pruned(mp.Taylor(batches=3), recipe(1, strategy="fsdp"))


class Stop(mp.MetapruneError):
    pass


@check
def stopped(folder: Path) -> Any:
    """All stop in the second epoch; who goes on later ends as if none had."""
    try:
        trained(recipe(3, momentum=0.9), task(Breaks(task().train, 7, Stop)), checkpoint=folder / "stopped")
    except Stop:
        return sorted(path.name for path in (folder / "stopped").iterdir())


@check
def gone_on(folder: Path) -> Any:
    return trained(recipe(3, momentum=0.9), checkpoint=folder / "stopped")


@check
def uninterrupted(folder: Path) -> Any:
    return trained(recipe(3, momentum=0.9))


@check
def other_weights(folder: Path) -> Any:
    """A network that each made without a seed is refused, and all are told."""
    model = few()
    with torch.no_grad():
        model.head.weight += RANK
    x = examples(2, 3).tensors[0]
    given: dict[str, Any] = {"budget": mp.Budget(macs=0.5), "task": task(), "recipe": recipe(1), "progress": False}
    try:
        mp.prune(model, (x,), method=mp.Magnitude(), **given)
    except mp.MetapruneError as error:
        return str(error)


@check
def not_divisible(folder: Path) -> Any:
    try:
        trained(recipe(), task(alone="it is one"))
    except mp.MetapruneError as error:
        return str(error)


@check
def a_folder_of_others(folder: Path) -> Any:
    """Only the first process looks, and all are told."""
    (folder / "others").mkdir(exist_ok=True)
    (folder / "others" / "run.json").write_text("{}")
    try:
        pruned(mp.Magnitude(), recipe(1), out=folder / "others")
    except mp.MetapruneError as error:
        return str(error)


@check
def saved(folder: Path) -> Any:
    """One process writes: with two, the folder would be another's for one of them."""
    x = examples(2, 3).tensors[0]
    given: dict[str, Any] = {"budget": mp.Budget(macs=0.5), "task": task(), "recipe": recipe(1), "progress": False}
    result = mp.prune(few(), (x,), method=mp.Magnitude(), out=folder / "saved", **given)
    result.save(folder / "saved")
    return sorted(path.name for path in (folder / "saved").iterdir())


@dataclass(frozen=True)
class Faulty:
    """Data that the last process cannot read, or that kill it, at the fourth batch."""

    inner: Any
    how: str

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        for place, batch in enumerate(self.inner):
            if place == 3 and RANK == SIZE - 1:
                if self.how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError("the disk is gone")
            yield batch


@check
def fault(folder: Path) -> Any:
    """In one process, with the others waiting for it."""
    processes.GRACE = 0.5  # that the others do not fail, too, is soon clear here
    try:
        trained(recipe(2), task(Faulty(task().train, "raised")))
    except mp.MetapruneError as error:
        return str(error)


@check
def killed(folder: Path) -> Any:
    try:
        trained(recipe(2), task(Faulty(task().train, "killed")))
    except mp.MetapruneError as error:
        return str(error)


def main(file: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    measuring.latencies = partial(measuring.latencies, seconds=0.001)  # type: ignore[attr-defined]
    found: dict[str, Any] = {}
    for name in names:
        begun = time.process_time()
        found[name] = CHECKS[name](file.parent)
        assert processes.now() is processes.ALONE
        if os.environ.get("SAY"):
            sys.stderr.write(f"{RANK} {name}: {time.process_time() - begun:.1f} s\n")
        found["processes"] = processes._started[0].size if processes._started else 1
        if RANK == 0:
            file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
