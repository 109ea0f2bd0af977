"""Learning to learn from a few examples: episodes, Reptile as a step of training, adaptation as a prediction.

Source: Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms, 2018, arXiv 1803.02999. For each of some
tasks a few steps of Adam lead from theta to theta_b; theta then moves towards their mean, theta <- theta - e (theta -
mean theta_b). That is a step of SGD with the rate e on the loss sum theta * (theta - mean theta_b), the bracket held
fixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaprune.graph.arguments import brief, is_number, is_whole
from metaprune.graph.tensors import call_with
from metaprune.train.task import Batch, Task, TaskError

__all__ = ["Classes", "Episodes", "FewShot", "Inner", "interval", "reptile"]

Weights = dict[str, Tensor]


class Classes(Protocol):
    """Examples by class, apart for training, validation and test: `metaprune.data.load_characters` gives such."""

    @property
    def train(self) -> Sequence[Tensor]:
        """A tensor (examples, …) for each class to learn from."""

    @property
    def val(self) -> Sequence[Tensor]:
        """Other classes, to choose by."""

    @property
    def test(self) -> Sequence[Tensor]:
        """Yet others, to report."""


@dataclass(frozen=True, eq=False, repr=False)
class Episodes:
    """Iterates over batches of tasks: (examples, labels, queries, labels of queries), a row for each task.

    Shapes are (tasks, ways * shots, …), (tasks, ways * shots), (tasks, ways * queries, …) and (tasks, ways * queries).
    A task tells some classes apart that are drawn anew, and so are their examples; queries are none of the examples.

    Attributes:
        classes: A tensor (examples, …) for each class.
        ways: Classes of a task.
        shots: Examples of each class.
        queries: Further ones to be told apart.
        tasks: In a batch.
        count: Batches in a pass.
        seed: Of the draws, the same in each pass; None draws from PyTorch's global random numbers.
    """

    classes: Sequence[Tensor]
    ways: int
    shots: int
    queries: int
    tasks: int
    count: int
    seed: int | None = None

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """One pass."""
        numbers = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        labels = torch.arange(self.ways)
        for _ in range(self.count):
            drawn = [self._drawn(numbers) for _ in range(self.tasks)]
            shown, asked = (torch.stack(part) for part in zip(*drawn, strict=True))
            yield (
                shown,
                labels.repeat_interleave(self.shots).expand(self.tasks, -1).contiguous(),
                asked,
                labels.repeat_interleave(self.queries).expand(self.tasks, -1).contiguous(),
            )

    def _drawn(self, numbers: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The examples and queries of a task."""
        shown, asked = [], []
        for chosen in torch.randperm(len(self.classes), generator=numbers)[: self.ways].tolist():
            one = self.classes[chosen]
            order = torch.randperm(len(one), generator=numbers)[: self.shots + self.queries]
            shown.append(one[order[: self.shots]])
            asked.append(one[order[self.shots :]])
        return torch.cat(shown), torch.cat(asked)


@dataclass(frozen=True)
class Inner:
    """How a network adapts to a task: Adam without momentum, as in the paper.

    Attributes:
        steps: Of Adam.
        batch: Examples in a step.
        lr: Its rate.
    """

    steps: int
    batch: int
    lr: float

    def __post_init__(self) -> None:
        whole = all(is_whole(value) and value >= 1 for value in (self.steps, self.batch))
        if not (whole and is_number(self.lr) and 0 < self.lr < math.inf):
            raise TaskError(f"few-shot: expected steps and batch from 1 and a rate above 0, got {self!r}")

    def adapted(
        self,
        module: nn.Module,
        weights: Mapping[str, Tensor],
        examples: Float[Tensor, " n ..."],
        labels: Int[Tensor, " n"],
        project: Callable[[Weights], object] = lambda weights: None,
    ) -> tuple[Weights, Tensor]:
        """The weights after the steps, and the loss of the last one; `module` keeps its own.

        Args:
            module: In the mode in which it is to learn; what it writes to buffers is thrown away.
            weights: To begin with, by name.
            examples: Of the task.
            labels: Theirs.
            project: Called with the weights before each step, to change them in place.
        """
        now = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
        squares = {name: torch.zeros_like(weight) for name, weight in now.items()}
        loss = examples.new_zeros(())
        for step, chosen in enumerate(itertools.islice(_rounds(len(examples), self.batch), self.steps), 1):
            project(now)
            places = chosen.to(examples.device)
            with torch.enable_grad():
                answers = _called(module, now, examples[places]).float()
                loss = F.cross_entropy(answers, labels[places])
                slopes = torch.autograd.grad(loss, list(now.values()), allow_unused=True)
            with torch.no_grad():
                for (name, weight), slope in zip(now.items(), slopes, strict=True):
                    if slope is not None:
                        squares[name].mul_(BETA).addcmul_(slope, slope, value=1 - BETA)
                        root = (squares[name] / (1 - BETA**step)).sqrt_().add_(1e-8)
                        weight.addcdiv_(slope, root, value=-self.lr)
        return {name: weight.detach() for name, weight in now.items()}, loss.detach()


BETA = 0.999
"""The second beta of Adam; the first is 0."""


def reptile(
    training: Any, batch: Batch, *, inner: Inner, project: Callable[[Weights], object] = lambda weights: None
) -> Tensor:
    """A step of Reptile, as `mp.Task(step=…)` wants it: its gradient is theta - mean theta_b.

    The number that it has, for the report, is the mean loss of the tasks' last inner steps. Where only gradients are
    asked, as rankings do, it is the tasks' mean loss before they adapt.

    Args:
        training: What a step is given.
        batch: Of `Episodes`; queries are not used.
        inner: How the network adapts.
        project: See `Inner.adapted`.
    """
    if not isinstance(training.network, nn.Module):  # somebody asks for gradients at weights of his own
        tasks = zip(*batch[:2], strict=True)
        return torch.stack([F.cross_entropy(training.network(shown), labels) for shown, labels in tasks]).mean()
    module = training.module
    theta = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    totals = {name: torch.zeros_like(parameter) for name, parameter in theta.items()}
    losses = []
    for examples, labels in zip(*batch[:2], strict=True):
        ended, loss = inner.adapted(module, theta, examples, labels, project)
        losses.append(loss)
        for name, weight in ended.items():
            totals[name] += weight / len(batch[0])
    surrogate = torch.stack([(theta[name] * (theta[name] - totals[name]).detach()).sum() for name in theta]).sum()
    return surrogate - surrogate.detach() + torch.stack(losses).mean()


def predicted(
    network: Any,
    batch: Batch,
    *,
    inner: Inner,
    transductive: bool,
    project: Callable[[Weights], object] = lambda weights: None,
) -> Float[Tensor, " tasks queries ways"]:
    """What the network answers to the queries of each task, once it has adapted to the examples.

    Args:
        network: Left as it is.
        batch: Of `Episodes`.
        inner: How it adapts.
        transductive: Whether batch norms take their statistics from all queries together; else from the examples.
        project: See `Inner.adapted`.
    """
    module = _unwrapped(network)
    theta = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    modes = [(child, child.training) for child in module.modules()]
    answers = []
    try:
        for examples, labels, queries in zip(*batch[:3], strict=True):
            module.train()
            weights, _ = inner.adapted(module, theta, examples, labels, project)
            project(weights)
            with torch.no_grad():
                if transductive:
                    answers.append(_called(module, weights, queries, statistics=True))
                else:
                    answers.append(_called(module, weights, queries, statistics=_statistics(module, weights, examples)))
    finally:
        for child, mode in modes:
            child.training = mode
    return torch.stack(answers).float()


def _unwrapped(network: nn.Module) -> nn.Module:
    """The module itself: `evaluate` gives it in Fabric's wrapper, which only the engine imports."""
    inner = network.module if type(network).__name__ == "_FabricModule" else network
    assert isinstance(inner, nn.Module)
    return inner


def _called(
    module: nn.Module, weights: Weights, inputs: Tensor, statistics: bool | Mapping[str, Tensor] = True
) -> Tensor:
    """The module's answer with other weights; buffers are copies.

    With given statistics everything is in evaluation mode; with True, batch norms take those of the batch, and where
    gradients are off the rest is in evaluation mode.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    if isinstance(statistics, Mapping):
        module.eval()
        buffers |= statistics
    elif not torch.is_grad_enabled():
        _normalising(module)
    found: Tensor = call_with(module, {**weights, **buffers}, (inputs,))
    return found


def _normalising(module: nn.Module) -> list[_BatchNorm]:
    """Put batch norms into training mode and the rest, such as dropout, into evaluation mode."""
    module.eval()
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    for norm in norms:
        norm.train()
    return norms


def _statistics(module: nn.Module, weights: Weights, examples: Tensor) -> dict[str, Tensor]:
    """The buffers of batch norms that have seen the examples, and nothing else."""
    norms = _normalising(module)
    own = {id(buffer): name for name, buffer in module.named_buffers()}
    theirs = [own[id(buffer)] for norm in norms for buffer in norm.buffers(recurse=False)]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # of one batch, that batch
    try:
        call_with(module, {**weights, **buffers}, (examples,))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return {name: buffers[name] for name in theirs}


def _rounds(number: int, batch: int) -> Iterator[Tensor]:
    """Places of examples in batches, pass after pass, each in another order; from the global random numbers."""
    while True:
        order = torch.randperm(number, device="cpu")
        yield from (order[start : start + batch] for start in range(0, number, batch))


@dataclass
class _Interval:
    """Half of the 95 % interval of the mean over episodes, in the metric's unit; an object that computes in the end."""

    found: list[float] = field(default_factory=list)

    def reset(self) -> None:
        self.found = []

    def update(self, answers: Tensor, labels: Tensor) -> None:
        self.found += _right(answers, labels).tolist()

    def compute(self) -> float:
        return interval(self.found)


def interval(figures: Sequence[float]) -> float:
    """Half the width of a 95 % confidence interval of the mean: 1.96 sd / sqrt(n); 0 of one figure."""
    values = torch.tensor(figures, dtype=torch.float64)
    return 1.96 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _right(answers: Tensor, labels: Tensor) -> Float[Tensor, " tasks"]:
    """The accuracy of each task in percent."""
    return 100.0 * (answers.argmax(2) == labels).float().mean(1)


def _accuracy(answers: Tensor, batch: Batch) -> tuple[Tensor, int]:
    right = _right(answers, batch[3])
    return right.sum(), len(right)


def _all_examples(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """All tasks' examples as one batch, for who wants activations: statistics, gradients."""
    return (batch[0].flatten(0, 1),), {}


def _judged(answers: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return answers, batch[3]


def FewShot(
    classes: Classes,
    ways: int = 5,
    shots: int = 1,
    *,
    tasks: int = 5,
    steps: int = 200,
    train_shots: int | None = None,
    queries: int = 5,
    episodes: int = 600,
    val_episodes: int = 100,
    inner: Inner = Inner(steps=8, batch=10, lr=1e-3),
    testing: Inner = Inner(steps=50, batch=5, lr=1e-3),
    transductive: bool = False,
    project: Callable[[Weights], object] = lambda weights: None,
    seed: int = 0,
) -> Task:
    """The task of telling new classes apart after a few examples: Reptile trains, and what is measured has adapted.

    The metric is the mean accuracy over episodes, in percent; half of its 95 % interval stands beside it. Train with
    plain SGD, whose rate is Reptile's step, in float32:
    `mp.Recipe(epochs, lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="linear", precision="32-true")`.
    The network takes a batch of examples and gives `ways` logits for each.

    Args:
        classes: Examples by class, apart for training, validation and test.
        ways: Classes of a task.
        shots: Examples of each that a network adapts to when it is measured.
        tasks: In a step.
        steps: Batches of tasks in an epoch.
        train_shots: Examples of each class in training; by default `shots`, where the paper takes 15.
        queries: Of each class, which the network is asked once it has adapted.
        episodes: Of the test part: 600 or more for an interval that says something.
        val_episodes: Of the validation part.
        inner: How the network adapts in training.
        testing: How it does when it is measured.
        transductive: Whether batch norms take their statistics from all queries together, as many published figures do;
            by default from the examples alone.
        project: What changes weights in place before each inner step, such as `Zeros.project` of `mp.Sparsity`.
        seed: Of validation and test episodes, the same for every network.

    Raises:
        TaskError: Too few classes, or too few examples of one.
    """
    whole = {"ways": ways, "shots": shots, "tasks": tasks, "steps": steps, "queries": queries, "episodes": episodes}
    whole |= {"val_episodes": val_episodes, "train_shots": shots if train_shots is None else train_shots}
    for name, value in whole.items():
        if not (is_whole(value) and value >= 1 + (name == "ways")):
            raise TaskError(f"few-shot: expected {name} as a whole number from {1 + (name == 'ways')}, got {value!r}")
    shown = whole["train_shots"]
    for part, needed in (("train", shown + 1), ("val", shots + queries), ("test", shots + queries)):
        there: Any = getattr(classes, part, None)
        if not (hasattr(there, "__len__") and hasattr(there, "__getitem__")):
            raise TaskError(
                f"few-shot: expected classes in three parts (train, val, test), as load_characters gives them, got "
                f"{brief(classes)}"
            )
        if len(there) < ways or min(map(len, there)) < needed:
            least = min(map(len, there), default=0)
            raise TaskError(
                f"few-shot: expected {ways} classes of {needed} examples or more to {part}, got {len(there)} with "
                f"{least} at least; ask for fewer ways, shots or queries, or give other classes"
            )
    return Task(
        Episodes(classes.train, ways, shown, 1, tasks, steps),
        Episodes(classes.val, ways, shots, queries, 1, val_episodes, seed=seed),
        Episodes(classes.test, ways, shots, queries, 1, episodes, seed=seed + 1),
        loss=lambda answers, batch: F.cross_entropy(answers, batch[1].flatten(0, 1)),
        metric=_accuracy,
        metric_name="accuracy (%)",
        inputs=_all_examples,
        further={"± (95 %)": _Interval()},
        judged=_judged,
        step=partial(reptile, inner=inner, project=project),
        alone="each of its tasks is learned by steps of its own",
        predict=partial(predicted, inner=testing, transductive=transductive, project=project),
        settings={
            "few_shot": f"{ways}-way {shots}-shot, {'transductive' if transductive else 'not transductive'}",
            "few_shot.training": f"{shown} shots, {tasks} tasks, {inner!r}",
            "few_shot.testing": f"{queries} queries, {testing!r}",
        },
    )
