"""Meta-training: a metanetwork learns to edit networks such that they can be pruned better.

Source: Liu, Wang, Zhang, 2025, arXiv 2506.12041, the meta-training section. A step takes one data model: its edited
weights are leaves on which the gradients of several batches and of the regulariser add up, and then there is one pass
back through the metanetwork (`objective.add_gradients`). Which of the metanetworks on the way is taken is decided by
how well held-out networks can be pruned with it (`area`), not by eye.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import digest
from metaprune.methods.graph_metanetwork.criterion import Criterion, check
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited, Metanetwork
from metaprune.methods.graph_metanetwork.editor.saving import is_metanetwork, save
from metaprune.methods.graph_metanetwork.learning.area import RATE, SHARES, STEPS, area, metrics
from metaprune.methods.graph_metanetwork.learning.curve import SURPRISE, Check, Curve, Step, written_in
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
from metaprune.methods.graph_metanetwork.learning.goals.imitate import Imitate
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective, add_gradients
from metaprune.methods.graph_metanetwork.learning.goals.paper import Paper
from metaprune.methods.graph_metanetwork.learning.goals.worth import Worth
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson, shares
from metaprune.methods.graph_metanetwork.learning.subject import Subject, subjects
from metaprune.surgery.trace import trace
from metaprune.train import randomness
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.engine import device_of, in_processes
from metaprune.train.folder import one_at_a_time
from metaprune.train.processes import ALONE, apart, now
from metaprune.train.progress import Bar
from metaprune.train.recipe import Recipe
from metaprune.train.run import TrainError
from metaprune.train.task import Batch, Loader, Task, on

__all__ = ["meta_train"]


@in_processes
@one_at_a_time
def meta_train(
    metanetwork: Metanetwork,
    models: Mapping[str, nn.Module | Subject],
    args: tuple[Any, ...] | None = None,
    task: Task | None = None,
    *,
    held_out: Mapping[str, nn.Module | Subject],
    kwargs: Mapping[str, Any] | None = None,
    goal: Goal | None = None,
    recipe: Recipe | None = None,
    batches: int = 4,
    every: int = 1,
    criterion: Criterion = "blend",
    lessons: Mapping[str, Sequence[Lesson]] | None = None,
    choose_by: Literal["area", "lessons"] = "area",
    out: Path | str | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Curve:
    """Train a metanetwork in place; in the end it has the parameters with the largest area on held-out networks.

    Memory is that of one training step of a data model and of one pass through the metanetwork, whatever the number of
    batches. Computation is in float32.

    Several processes (`Recipe.devices`) take turns with the batches of a step, where none hangs on the one before it
    (`Goal.apart`), and with the held-out networks; all have the same metanetwork, but for rounding that of one process.

    Args:
        metanetwork: What is trained.
        models: Name -> data model; left untouched. Those that take other inputs than the others, or are for another
            task, are a `Subject`.
        args: Example inputs of those that are none.
        task: Its training data give the gradients, its validation data choose.
        held_out: Name -> network that gives no gradients, on which the parameters are chosen; may not be empty.
        kwargs: Example keyword inputs.
        goal: What for; by default `Paper()`.
        recipe: An epoch is one step for each data model, in random order. By default 20 epochs of AdamW at 1e-3.
        batches: How many a step adds up.
        every: Epochs between two choices.
        criterion: By what channels are ranked; whoever prunes with the metanetwork should name the same.
        lessons: Name of a data model -> what a search found for it, from `teach` or `search`; for `Imitate` and
            `Worth`.
        choose_by: What chooses the parameters: the "area" under the metric of the held-out networks, cut to several
            budgets and tuned for some steps, of which each look takes minutes; or how little their own "lessons"
            surprise, at once.
        out: A folder for checkpoints, metanetwork.safetensors, curve.json and curve.html: a training that was killed
            goes on from it, on the CPU bit for bit.
        checkpoint: Where checkpoints are kept instead, and how often.
        progress: Whether to show progress.

    Returns:
        What was seen at each step and each choice, and which was taken (step 0: no edits at all were best).

    Raises:
        MetapruneError: A network that does not trace, nothing of which trains or nothing of which can be cut; an
            objective that is not finite; a folder that holds another training.
    """
    recipe = recipe or Recipe(epochs=20, lr=1e-3, optimizer="adamw")
    check(criterion, "meta_train")
    for name, value in (("batches", batches), ("every", every)):
        if value < 1:
            raise TrainError(f"meta_train: expected {name} from 1, got {value!r}")
    for what, given in (("models", models), ("held_out", held_out)):
        if not given:
            raise TrainError(f"meta_train: expected one network or more in {what}, got none")
    if shared := sorted(models.keys() & held_out.keys()):
        raise TrainError(f"meta_train: expected held_out to share no network with models, got {shared[0]!r} in both")
    if recipe.precision not in ("auto", "32-true"):
        raise TrainError(f"meta_train: expected precision 'auto' or '32-true', got {recipe.precision!r}")
    if recipe.strategy == "fsdp":
        raise TrainError("meta_train: expected strategy 'auto' or 'ddp', got 'fsdp'; it splits no weights")
    if isinstance(goal, Worth | Imitate) and (metanetwork.scored == "widths") != isinstance(goal, Worth):
        wanted = "'widths'" if isinstance(goal, Worth) else "'channels', 'axes' or 'both'"
        raise TrainError(
            f"meta_train: {type(goal).__name__} teaches a metanetwork with scored={wanted}, got {metanetwork.scored!r}"
        )
    folder = Path(out) if out is not None else None
    if folder is not None and checkpoint is None:
        checkpoint = Checkpoint(folder / "checkpoints")
    group = now()
    if folder is not None:
        group.told(lambda: _see_that_it_is_ours(folder))
    if checkpoint is not None:
        group.told(checkpoint.prepare)
    given = subjects({**models, **held_out}, args, task, kwargs)
    alike = [("the metanetwork", metanetwork), *((f"network {name!r}", one.model) for name, one in given.items())]
    for what, module in alike if group.size > 1 else ():
        group.same(_digest(module), f"meta_train: the weights of {what}")
    training = _Training(metanetwork, goal or Paper(), recipe, batches, every, criterion, choose_by, folder)
    home = next(metanetwork.parameters()).device
    with randomness.isolated():
        for name, one in given.items():
            taught = (lessons or {}).get(name, ())
            graph = trace(one.model, one.args, one.kwargs)
            data = DataModel.of(
                name,
                one.model,
                graph,
                one.task,
                training.device,
                taught,
                criterion,
                metanetwork.surveys,
                metanetwork.held,
            )
            training.points[name] = one.points
            if choose_by == "lessons" and name in held_out:
                training.lessons.share(data, torch.Generator())  # refuses what cannot choose
            if name in models:
                training.goal.share(data, torch.Generator())  # refuses what it cannot learn from
                training.models.append(data)
            else:
                training.held_out.append(data)
        try:
            metanetwork.to(training.device)
            training.run(checkpoint, progress)
        finally:
            metanetwork.to(home)
    return training.curve


def _see_that_it_is_ours(folder: Path) -> None:
    """Refuse a folder that has files of others under the names that are written.

    Raises:
        MetapruneError: It has.
    """
    for path, ours in ((folder / "metanetwork.safetensors", is_metanetwork), *written_in(folder)):
        if path.exists() and not (path.is_file() and ours(path)):
            raise MetapruneError(f"meta_train: {path} was not written by metaprune; move it, or name another folder")


class _Training:
    """All that changes while a metanetwork is trained."""

    def __init__(
        self,
        metanetwork: Metanetwork,
        goal: Goal,
        recipe: Recipe,
        batches: int,
        every: int,
        criterion: Criterion,
        choose_by: Literal["area", "lessons"],
        folder: Path | None,
    ) -> None:
        self.metanetwork, self.goal, self.recipe, self.choose_by = metanetwork, goal, recipe, choose_by
        self.lessons: Goal = goal if isinstance(goal, Worth) else Imitate()  # where they choose: what they say
        self.batches, self.every, self.criterion, self.folder = batches, every, criterion, folder
        self.group = now()
        self.device = self.group.device if self.group.size > 1 else _device(recipe)
        self.models, self.held_out = list[DataModel](), list[DataModel]()
        self.points: dict[str, float] = {}
        self.streams: list[tuple[Task, _Stream]] = []
        self.step = 0
        self.curve = Curve(f"{goal!r}", "")
        self.best: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer

    def run(self, checkpoint: Checkpoint | None, progress: bool) -> None:
        """Step after step, from the checkpoint on; then take the best."""
        tasks = {id(data.task): data.task for data in (*self.models, *self.held_out)}
        self.streams = [(task, _Stream(task.train, self.recipe.seed)) for task in tasks.values()]
        names = dict.fromkeys(data.task.metric_name for data in self.held_out)
        self.curve.metric_name = " and ".join(names) if self.choose_by == "area" else SURPRISE
        self.optimizer = self.new_optimizer()
        epoch = len(self.models)
        steps, saved = self.recipe.epochs * epoch, time.monotonic()
        if checkpoint is not None:
            self.resume(checkpoint)
        with Bar("meta-training", steps, shown=progress and self.group.leads) as bar:
            if not self.curve.checks:
                self.choose(bar)
            while self.step < steps:
                bar.at(self.step, self.curve.note)
                self.take_step()
                if self.step == steps or self.step % (self.every * epoch) == 0:
                    self.choose(bar)
                ended = self.step == steps or self.step % epoch == 0
                due = ended or (checkpoint is not None and time.monotonic() - saved >= checkpoint.seconds)
                if checkpoint is not None and due and self.group.leads:
                    self.save(checkpoint)
                    saved = time.monotonic()
        self.metanetwork.load_state_dict(self.best)
        self.metanetwork.zero_grad()
        self.group.told(self.write)

    def write(self) -> None:
        """What was found, where a folder was named."""
        if self.folder is not None:
            save(self.metanetwork, self.folder / "metanetwork.safetensors")
            self.curve.write(self.folder)

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Over the parameters as they are on the device: moved, they may be other tensors than before."""
        common: dict[str, Any] = {"lr": self.recipe.lr, "weight_decay": self.recipe.weight_decay}
        parameters = self.metanetwork.parameters()
        if self.recipe.optimizer == "adamw":
            return torch.optim.AdamW(parameters, betas=(self.recipe.momentum, 0.999), **common)
        return torch.optim.SGD(parameters, momentum=self.recipe.momentum, **common)

    def take_step(self) -> None:
        """One data model, several batches, one pass back through the metanetwork, one step of the optimizer."""
        epoch, place = divmod(self.step, len(self.models))
        order = torch.randperm(len(self.models), generator=_generator(self.recipe.seed, 0, epoch))
        data = self.models[int(order[place])]
        lr = self.recipe.lr_at((self.step + 0.5) / len(self.models))
        for options in self.optimizer.param_groups:
            options["lr"] = lr
        [stream] = [stream for task, stream in self.streams if task is data.task]
        batches = [on(self.device, batch) for batch in stream.take(self.batches)]
        parts: dict[str, float] = defaultdict(float)
        drawn = _generator(self.recipe.seed, 1, self.step)
        self.optimizer.zero_grad()
        share = self.goal.share(data, drawn)
        with _statistics(data.model, self.goal.batch_statistics):
            objectives = self.goal.objectives(data, data.task, batches, share)
            group = self.group if self.goal.apart else ALONE
            ours = itertools.islice(objectives, group.rank, None, group.size)
            total = add_gradients(self.metanetwork, data.aimed(share), _noted(ours, parts), group)
        if not math.isfinite(total):
            raise TrainError(
                f"meta_train: the objective of {data.name!r} is {total} at step {self.step + 1}, lr {lr:.3g}; "
                "lower the learning rate, clip the gradient (clip_norm), or make the metanetwork's step smaller"
            )
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.metanetwork.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.step += 1
        self.curve.steps.append(Step(self.step, data.name, lr, _added(group.gathered(dict(parts)))))

    def choose(self, bar: Bar) -> None:
        """Look at the held-out networks; keep the parameters if they are the best so far."""
        if self.choose_by == "area":
            found = self.measured()
            signs = {1 if data.task.higher_is_better else -1 for data in self.held_out}
            sign = signs.pop() if len(signs) == 1 else 1  # as they are where all go one way, else more is better
            worths = [
                self.points[data.name] * (sign * (1 if data.task.higher_is_better else -1)) * area(found[data.name])
                for data in self.held_out
            ]
        else:
            sign, found = -1, {data.name: _surprises(self.lessons, self.metanetwork, data) for data in self.held_out}
            worths = [sum(values) / len(values) for values in found.values()]
        mean = sum(worths) / len(worths)
        if not self.best or sign * mean > sign * self.curve.best.area:
            self.best = {n: tensor.detach().clone() for n, tensor in self.metanetwork.state_dict().items()}
            self.curve.chosen = self.step
        self.curve.checks.append(Check(self.step, mean, {name: tuple(values) for name, values in found.items()}))
        bar.line(f"meta-training: step {self.step}, {self.curve.note}")
        if self.folder is not None and self.group.leads:
            self.curve.write(self.folder)

    def measured(self) -> dict[str, list[float]]:
        """For each held-out network its metrics at the shares; several processes take turns with them."""
        ours = self.held_out[self.group.rank :: self.group.size]
        with apart():  # each process asks networks of its own
            found = {data.name: metrics(self.metanetwork, data, data.task, self.recipe) for data in ours}
        every = {name: values for one in self.group.gathered(found) for name, values in one.items()}
        return {data.name: every[data.name] for data in self.held_out}

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this training and no other."""
        return {
            "metanetwork": self.metanetwork.config,
            "goal": f"{self.goal!r}",
            "recipe": self.recipe.what | {"device": None, "milestones": list(self.recipe.milestones)},
            "batches": [self.batches, *(len(task.train) for task, _ in self.streams)],
            "choose_by": self.choose_by,
            "every": self.every,
            "criterion": self.criterion,
            "shares": [*SHARES, STEPS, RATE],
            "models": {data.name: _digest(data.model) for data in self.models},
            "held_out": {data.name: _digest(data.model) for data in self.held_out},
            "lessons": {
                data.name: [str(told) for told in data.lessons]
                for data in (*self.models, *self.held_out)
                if data.lessons
            },
        }

    def save(self, checkpoint: Checkpoint) -> None:
        """Write everything."""
        checkpoint.save(
            {
                "identity": self.identity,
                "metanetwork": dict(self.metanetwork.state_dict()),
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "curve": self.curve.tree(),
                "streams": [[stream.passes, stream.given] for _, stream in self.streams],
            }
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was written, if there is one."""
        tree = self.group.told(checkpoint.load)
        if tree is None:
            return
        if not isinstance(tree, dict) or not isinstance(tree.get("identity"), dict) or "curve" not in tree:
            raise CheckpointError(f"meta_train: {checkpoint.folder} holds something else; give another folder")
        was, now = tree["identity"], self.identity
        if changes := [key for key in now if was.get(key) != now[key]]:
            raise CheckpointError(
                f"meta_train: {checkpoint.folder} holds another training (its {', '.join(changes)} differ); "
                "give another folder, or delete it"
            )
        self.metanetwork.load_state_dict(tree["metanetwork"])
        self.optimizer.load_state_dict(tree["optimizer"])
        self.best = {name: tensor.to(self.device) for name, tensor in tree["best"].items()}
        self.step = tree["step"]
        self.curve = Curve.of(tree["curve"])
        for (_, stream), (passes, done) in zip(self.streams, tree["streams"], strict=True):
            stream.go_to(passes, done)


@torch.no_grad()
def _surprises(goal: Goal, metanetwork: Metanetwork, data: DataModel) -> list[float]:
    """How far what it says of a network is from the network's own lessons, at each of their budgets."""
    found = []
    for share in shares(data.lessons):
        edited = metanetwork(data.aimed(share))
        [(_, surprise)] = goal.objectives(data, data.task, [], share)
        found.append(float(surprise(edited)))
    return found


class _Stream:
    """The batches of one pass after another; those of a pass are always the same."""

    def __init__(self, loader: Loader, seed: int) -> None:
        if not len(loader):
            raise TrainError("meta_train: expected training data, got a loader without batches")
        self.loader, self.seed = loader, seed
        self.passes = self.given = 0
        self._batches: Iterator[Batch] | None = None
        self._random: dict[str, Any] = {}

    def take(self, count: int) -> list[Batch]:
        """The next batches."""
        with randomness.isolated():
            if self._batches is None:
                self._begin()
            randomness.restore(self._random)
            found = list[Batch]()
            while len(found) < count:
                assert self._batches is not None
                batch = next(self._batches, None)
                if batch is None:
                    if not self.given:
                        raise TrainError("meta_train: the training data promised batches and gave none")
                    self.passes += 1
                    self._begin()
                else:
                    self.given += 1
                    found.append(batch)
            self._random = randomness.capture()
        return found

    def go_to(self, passes: int, given: int) -> None:
        """Where so many passes are done, and so many batches of the next."""
        self.passes = passes
        with randomness.isolated():
            self._begin()
        if given:
            self.take(given)

    def _begin(self) -> None:
        randomness.seed(self.seed, self.passes)
        self._batches, self.given = iter(self.loader), 0
        self._random = randomness.capture()


def _added(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sums of what processes saw, by name."""
    names = dict.fromkeys(name for parts in every for name in parts)
    return {name: sum(parts.get(name, 0.0) for parts in every) for name in names}


def _noted(objectives: Iterator[tuple[str, Objective]], parts: dict[str, float]) -> Iterator[Objective]:
    """The objectives, whose values are added up by name."""

    def noted(name: str, objective: Objective) -> Objective:
        def valued(edited: Edited) -> Tensor:
            value = objective(edited)
            parts[name] += value.item()
            return value

        return valued

    for name, objective in objectives:
        yield noted(name, objective)


@contextmanager
def _statistics(model: nn.Module, of_batches: bool) -> Iterator[None]:
    """Batch norms that take the statistics of batches for a while, and leave the running ones alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats] if of_batches else []
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def _device(recipe: Recipe) -> torch.device:
    try:
        return device_of(recipe) if recipe.device == "auto" else torch.device(recipe.device)
    except RuntimeError as error:
        raise MetapruneError(f"meta_train: expected a device such as 'cpu' or 'cuda', got {recipe.device!r}") from error


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers that belong to some whole numbers."""
    state = np.random.SeedSequence([len(numbers), *numbers]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _digest(model: nn.Module) -> str:
    """Of all tensors but the counters of batch norms."""
    return digest({n: tensor for n, tensor in model.state_dict().items() if not n.endswith("num_batches_tracked")})
