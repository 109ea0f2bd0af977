"""What comes out of a task's loaders and functions, checked where it comes out: each misfit is one clear error."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

from metaprune.graph.arguments import is_number
from metaprune.graph.errors import MetapruneError
from metaprune.train.task import Batch, Loader, Task, TaskError

__all__ = [
    "TrainError",
    "answer",
    "blaming",
    "counted",
    "examples_of",
    "holds_tensors",
    "length",
    "loss_of",
    "mean",
    "metric_of",
    "one_of",
    "predicted",
    "said",
    "scalar_loss",
    "smallest",
]


class TrainError(MetapruneError):
    """A training that cannot start or go on."""


def length(batches: Loader, what: str) -> int:
    """The number of batches, which must be known and not 0.

    Raises:
        TrainError: it is neither.
    """
    try:
        count = len(batches)
    except TypeError:
        raise TrainError(f"{what} must have a length (a DataLoader over a map-style dataset has)") from None
    if not count:
        raise TrainError(f"{what} is empty: it has no batches; check the dataset, batch_size and drop_last")
    return count


def counted(batches: Loader, promised: int, what: str) -> Iterator[Batch]:
    """One pass over the batches, which must be as many as they say, so that no loader without an end is waited for.

    Raises:
        TrainError: they are fewer, or more, or one cannot be read.
    """
    given, remaining = 0, _begun(batches, what)
    while True:
        try:
            batch = next(remaining)
        except StopIteration:
            break
        except MetapruneError:
            raise
        except Exception as error:
            raise TrainError(f"{what} failed at batch {given + 1} of {promised}: {said(error)}") from error
        if given == promised:
            raise TrainError(
                f"{what} promised {promised} batches an epoch and gave more; make its length true, or end it there"
            )
        given += 1
        yield batch
    if given != promised:
        again = "; can it be gone through again?" if not given else "; make its length true"
        raise TrainError(f"{what} promised {promised} batches an epoch and gave {given}{again}")


def _begun(batches: Loader, what: str) -> Iterator[Batch]:
    try:
        return iter(batches)
    except MetapruneError:
        raise
    except Exception as error:
        raise TrainError(f"{what} cannot be gone through: {said(error)}") from error


def answer(network: Callable[..., Any], batch: Batch, task: Task, what: str) -> Any:
    """The output of a network for a batch.

    Raises:
        TaskError: the batch has no examples, or the network cannot take it.
    """
    with blaming(f"{what}: the task's inputs"):
        args, kwargs = task.inputs(batch)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if tensors and tensors[0].dim() and not len(tensors[0]):
        raise TaskError(f"{what} has a batch without examples, of shape {tuple(tensors[0].shape)}; leave it out")
    try:
        return network(*args, **kwargs)
    except (MetapruneError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TaskError(
            f"{what}: the network cannot take the batch: {said(error)}{_why(error, network, args, kwargs, tensors)}"
        ) from error


def predicted(network: Any, batch: Batch, task: Task, what: str) -> Any:
    """What is measured for a batch: the network's output, or what the task makes of network and batch.

    Raises:
        TaskError: the network cannot take the batch.
    """
    if task.predict is None:
        return answer(network, batch, task, what)
    with blaming(f"{what}: the task's predict"):
        return task.predict(network, batch)


def loss_of(output: Any, batch: Batch, task: Task, what: str) -> Tensor:
    """The loss, once it is known to be one.

    Raises:
        TaskError: it is no scalar, or nothing can be learned from it.
    """
    with blaming(f"{what}: the loss"):
        loss = task.loss(output, batch)
    return scalar_loss(loss, what, "the loss")


def scalar_loss(loss: Any, what: str, name: str) -> Tensor:
    """A loss, once it is known to be one.

    Raises:
        TaskError: it is no scalar, or nothing can be learned from it.
    """
    if not isinstance(loss, Tensor):
        raise TaskError(
            f"{what}: expected {name} as a scalar tensor, got {_shown(loss)}; return the tensor itself, "
            "without .item() or float()"
        )
    if loss.dim() or not loss.is_floating_point():
        raise TaskError(
            f"{what}: expected {name} as one number with a point, got {loss.dtype} of shape {tuple(loss.shape)}; "
            "take its mean: loss.mean()"
        )
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise TaskError(
            f"{what}: {name} does not depend on the network, so nothing can be learned from it; compute it from the "
            "output, without detach() or no_grad()"
        )
    return loss


def metric_of(output: Any, batch: Batch, metric: Callable[[Any, Batch], Any], what: str) -> tuple[float | Tensor, int]:
    """The metric of a batch: its sum over the examples, and their number.

    Raises:
        TaskError: it is something else.
    """
    with blaming(f"{what}: the metric"):
        found: Any = metric(output, batch)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise TaskError(
            f"{what}: expected the metric as (sum over the examples, their number), got {_shown(found)}; "
            "return for example (correct.sum(), len(correct))"
        )
    value, count = found
    if not _scalar(value) or not _scalar(count) or count < 0:
        raise TaskError(
            f"{what}: expected the metric as two numbers, a sum and how many examples it is over, "
            f"got {_shown(value)} and {_shown(count)}"
        )
    return value, int(count)


def mean(total: float | Tensor, examples: int, name: str, what: str) -> float:
    """The mean of a metric over all examples.

    Raises:
        TrainError: there were none, or it is not finite.
    """
    if not examples:
        raise TrainError(f"{what} gave no examples")
    value = float(total) / examples
    if not math.isfinite(value):
        raise TrainError(
            f"{what}: {name} is {value}; a metric must be finite: look for a division by 0 in it, and for numbers in "
            "the data or the weights that are not finite"
        )
    return value


def smallest(batches: Loader) -> int | None:
    """The examples of the last batch, where the loader can tell; None where it cannot."""
    size, examples = getattr(batches, "batch_size", None), getattr(batches, "examples", None)
    if isinstance(batches, DataLoader):
        if size is None or batches.drop_last or type(batches.batch_sampler) is not torch.utils.data.BatchSampler:
            return None
        try:
            examples = len(batches.sampler)  # type: ignore[arg-type]
        except TypeError:
            return None
    if not isinstance(size, int) or not isinstance(examples, int) or size < 1:
        return None
    return examples % size or size


def examples_of(batch: Batch, task: Task) -> int:
    """The examples of a batch: the first size of the first tensor that the network is given."""
    leaves = tree_leaves(task.inputs(batch))
    return next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), 1)


def holds_tensors(batch: Batch, task: Task) -> bool:
    """Whether the examples of a batch lie in tensors, not in a list of them, as the images of a detector do."""
    args, kwargs = task.inputs(batch)
    return isinstance(next(iter((*args, *kwargs.values())), None), Tensor)


def one_of(batch: Batch, examples: int) -> Batch:
    """Only the first example of a batch of so many."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:1] if tensor.dim() and len(tensor) == examples else tensor

    return tree_map_only(Tensor, cut, batch)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Says whose function failed."""
    try:
        yield
    except (MetapruneError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TaskError(f"{what} failed: {said(error)}") from error


def said(error: BaseException) -> str:
    """An error in a few words: its type and its first line; of an error in a worker, the last."""
    lines = str(error).strip().splitlines() or [""]
    told = lines[-1] if lines[0].startswith("Caught ") else f"{type(error).__name__}: {lines[0]}"
    return told if len(told) <= 200 else f"{told[:200]} …"


def _why(error: Exception, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> str:
    """What is likely wrong with a batch."""
    if not isinstance(network, nn.Module):
        return ""
    kinds = {leaf.dtype for leaf in network.parameters() if leaf.is_floating_point()}
    if any(isinstance(leaf, np.ndarray) for leaf in tree_leaves((args, kwargs))):
        return "; it holds NumPy arrays: give tensors, as torch.from_numpy makes them"
    if network.training and tensors and tensors[0].dim() and len(tensors[0]) == 1 and _has_batch_norm(network):
        return "; batch norm cannot learn from one example: drop_last=True, or another batch_size"
    odd = [t.dtype for t in tensors if t.is_floating_point() and kinds and t.dtype not in kinds]
    odd += [t.dtype for t in tensors if t.dtype is torch.uint8]
    if odd and kinds:
        way = "double" if kinds == {torch.float64} else "float"
        return f"; it is {odd[0]} where the weights are {min(map(str, kinds))}: convert it, as images.{way}()"
    if any(bits in str(error) for bits in ("BFloat16", "Half", "same dtype")):
        return "; where it runs in mixed precision, that may be why: Recipe(precision='32-true') does without"
    return ""


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def _scalar(value: Any) -> bool:
    """Whether it is one number: Python's, NumPy's or a tensor of one."""
    return is_number(value) or (isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1)


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    words = repr(value)
    return words if len(words) <= 60 else f"{type(value).__name__} {words[:60]} …"
