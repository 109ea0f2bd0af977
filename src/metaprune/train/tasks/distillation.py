"""Learning from a teacher: from its answers, and from what it makes on the way to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from metaprune.graph.arguments import brief, is_number
from metaprune.graph.tensors import digest
from metaprune.train.checks import answer, loss_of
from metaprune.train.stepping import Training
from metaprune.train.task import Batch, Task, TaskError

__all__ = ["distil", "likeness"]

Compare = Callable[[Any, Any], Tensor]
"""(of the network, of the teacher) -> a scalar."""


def likeness(ours: Float[Tensor, " n ..."], theirs: Float[Tensor, " n ..."]) -> Tensor:
    """How differently two networks tell the examples of a batch apart; their channels need not be as many.

    Tung & Mori 2019, https://arxiv.org/abs/1907.09682, equations 1 to 4: the products of the examples' features with
    one another, each row at norm 1, and the mean square of the difference.
    """
    one, other = (F.normalize(each.flatten(1) @ each.flatten(1).T) for each in (ours.float(), theirs.float()))
    return (one - other).square().mean()


def distil(
    task: Task,
    teacher: nn.Module,
    *,
    share: float = 0.5,
    features: Mapping[str, str] | Sequence[str] = (),
    compare: Compare = likeness,
) -> Task:
    """The same task, where the network also learns from a `teacher`.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531: the loss becomes
    (1 - share) · loss + share · distance between the outputs of the network and of the teacher. The task knows the
    distance, of outputs of any structure: for `Classification` it is T² · KL(softmax(teacher / T) ‖ softmax(network /
    T)), for `SuperResolution` and `Denoising` the mean absolute difference. With `features`, what modules on the way
    give counts too: distance + the mean of `compare` over them; the task then needs no distance.

    Args:
        task: The task; both networks take its batches.
        teacher: The network to learn from; a copy is used, in evaluation mode.
        share: How much the teacher counts, from 0 to 1.
        features: Names of modules whose outputs are compared, as `model.named_modules()` gives them; where the teacher
            calls them otherwise, {"of the network": "of the teacher"}.
        compare: (output of the network's module, of the teacher's) -> a scalar; by default `likeness`, which does not
            mind that the network has fewer channels.

    Raises:
        TaskError: The task has no distance, the share is none, or the teacher has no such module.
    """
    if not isinstance(task, Task):
        raise TaskError(f"distil: expected a task, such as mp.Classification(train, val), got {brief(task)}")
    if not isinstance(teacher, nn.Module):
        raise TaskError(f"distil: expected the teacher as a network, an nn.Module, got {brief(teacher)}")
    if not (is_number(share) and 0 <= share <= 1):
        raise TaskError(f"distil: expected a share from 0 to 1, got {share!r}")
    pairs = dict(features) if isinstance(features, Mapping) else {name: name for name in _names(features)}
    if task.distance is None and not pairs:
        raise TaskError("distil: the task cannot compare two outputs; give its field `distance`, as F.l1_loss")
    if task.step is not None and (not pairs or task.distance is not None):
        raise TaskError(
            "distil: a task with a step of its own is compared by features alone: give features=, and no distance"
        )
    wise = copy.deepcopy(teacher).eval().requires_grad_(False)
    for name in pairs.values():
        _module(wise, name, "the teacher")
    known = {"teacher.weights": digest(wise.state_dict())[:12], "teacher.share": f"{share:g}"}
    if pairs:
        known["teacher.features"] = ", ".join(
            ours if ours == theirs else f"{ours}: {theirs}" for ours, theirs in pairs.items()
        )
    settings = {**task.settings, **known}
    if not pairs:
        return replace(task, loss=_of_answers(task, wise, share), settings=settings)
    return replace(task, step=_of_features(task, wise, share, pairs, compare), settings=settings)


def _of_answers(task: Task, wise: nn.Module, share: float) -> Callable[[Any, Batch], Tensor]:
    """The loss that compares outputs."""
    distance = task.distance
    assert distance is not None

    def loss(output: Any, batch: Batch) -> Tensor:
        return (1 - share) * task.loss(output, batch) + share * distance(output, _answers(wise, task, batch))

    return loss


def _of_features(
    task: Task, wise: nn.Module, share: float, pairs: Mapping[str, str], compare: Compare
) -> Callable[[Training, Batch], Tensor]:
    """The step that hears what modules give."""

    def step(training: Training, batch: Batch) -> Tensor:
        ours = {name: _module(training.module, name, "the network") for name in pairs}
        theirs = {name: _module(wise, name, "the teacher") for name in pairs.values()}
        with _heard(ours) as seen:
            if task.step is None:
                output = answer(training.network, batch, task, "distil")
                own = loss_of(output, batch, task, "distil")
            else:
                own = task.step(training, batch)
        with _heard(theirs) as known:
            answers = _answers(wise, task, batch)
        missing = [name for name in ours if name not in seen] + [name for name in theirs if name not in known]
        if missing:
            raise TaskError(f"distil: {', '.join(missing)} was not called in the forward; name modules that are")
        apart = torch.stack([_compared(compare, seen[a], known[b], a) for a, b in pairs.items()]).mean()
        if task.distance is not None:
            apart = apart + task.distance(output, answers)
        return (1 - share) * own + share * apart

    return step


def _compared(compare: Compare, ours: Any, theirs: Any, name: str) -> Tensor:
    try:
        return compare(ours, theirs)
    except Exception as error:
        raise TaskError(
            f"distil: the outputs of {name!r} cannot be compared ({type(error).__name__}: {str(error)[:100]}); give "
            "compare=lambda ours, theirs: … (a cut network has fewer channels)"
        ) from error


def _answers(wise: nn.Module, task: Task, batch: Batch) -> Any:
    """What the teacher says, in float32, on the device of the batch."""
    args, kwargs = task.inputs(batch)
    device = next((leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)
    with torch.no_grad():
        found = wise.to(device)(*args, **kwargs)
    return tree_map_only(Tensor, lambda each: each.float() if each.is_floating_point() else each, found)


def _names(features: Sequence[str]) -> Sequence[str]:
    if isinstance(features, str):
        return [features]
    if not all(isinstance(name, str) for name in features):
        raise TaskError(f"distil: expected features as names of modules, got {brief(features)}")
    return features


def _module(model: nn.Module, name: str, whose: str) -> nn.Module:
    """A module by its name; while a method searches, the network lies inside another."""
    known = [(path, module) for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
    if not known:
        some = ", ".join([path for path, _ in model.named_modules() if path][:8])
        raise TaskError(f"distil: {whose} has no module {name!r}; it has {some} …")
    found: nn.Module
    _, found = min(known, key=lambda pair: len(pair[0]))
    return found


@contextmanager
def _heard(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """The outputs of modules, as they are called inside."""
    outputs: dict[str, Any] = {}

    def listener(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.__setitem__(name, output)

    handles = [module.register_forward_hook(listener(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
