"""How data are divided between processes: the rows of each batch to learn from, and whole batches to measure on."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from metaprune.train import randomness
from metaprune.train.checks import TrainError, counted
from metaprune.train.processes import Group
from metaprune.train.task import Batch, First, Loader, Task

__all__ = ["Divided", "Part", "ahead", "divided", "examples_in", "near", "rows_of"]


class Part(NamedTuple):
    """What a process has of a batch."""

    batch: Batch
    weight: float  # of its mean loss in that of the whole batch, times the number of processes
    place: int  # of the batch in the pass


def near(loader: Loader, device: torch.device) -> Loader:
    """A loader whose batches are quickly on a device.

    One that can be `near(device)`, as those of `metaprune.data.load` with what is in memory, makes them there. A
    `DataLoader` gives pinned memory, where a device copies from that while it computes.
    """
    if device.type == "cpu":
        return loader
    if isinstance(loader, First):
        return First(near(loader.loader, device), loader.most)
    if callable(there := getattr(loader, "near", None)):
        found: Loader = there(device)
        return found
    if device.type == "cuda" and isinstance(loader, DataLoader) and not loader.pin_memory:
        pinned = copy.copy(loader)
        vars(pinned).update(pin_memory=True, _iterator=None)
        return pinned
    return loader


def ahead(parts: Iterator[Part], place: Callable[[Batch], Batch], device: torch.device) -> Iterator[Part]:
    """Parts on the device; on CUDA the next one is copied while this one computes."""
    if device.type != "cuda":
        for part in parts:
            yield part._replace(batch=place(part.batch))
        return
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begun() -> Part | None:
        part = next(parts, None)
        if part is None:
            return None
        with torch.cuda.stream(beside):
            return part._replace(batch=place(part.batch))

    coming = begun()
    while coming is not None:
        torch.cuda.current_stream(device).wait_stream(beside)
        for leaf in tree_leaves(coming.batch):
            if isinstance(leaf, Tensor) and leaf.is_cuda:
                leaf.record_stream(torch.cuda.current_stream(device))
        now, coming = coming, begun()
        yield now


class Divided(Protocol):
    """A loader as one process goes through it."""

    def __iter__(self) -> Iterator[Part]:
        """Begin another pass; all processes go through theirs side by side."""


@dataclass(frozen=True)
class Rows:
    """Of each batch, its share: rows one after another, as even as can be."""

    rank: int
    size: int

    def of(self, place: int, examples: int) -> tuple[int, int, float]:
        """The first row, the one behind the last, and the weight.

        Who has none is given the first row, with no weight, so that all take each step.
        """
        first, last = (examples * (self.rank + i) // self.size for i in (0, 1))
        if first == last:
            return 0, 1, 0.0
        return first, last, (last - first) * self.size / examples


@dataclass(frozen=True)
class Turns:
    """Every so many batches, one."""

    rank: int
    size: int

    def has(self, place: int) -> bool:
        """Whether a batch is this process's."""
        return place % self.size == self.rank


def divided(
    loader: Loader,
    task: Task,
    group: Group,
    what: str,
    how: Literal["rows", "turns", "side by side"] = "rows",
) -> Divided:
    """A loader as a process of the group goes through it; each batch counts once over all.

    A `DataLoader` reads the process's own examples only. Of other loaders every process makes all batches, from the
    same random numbers, and takes its part.

    Args:
        loader: Gives the batches that one process would take.
        task: Says where the examples of a batch are.
        group: The processes.
        what: The data, for errors.
        how: "rows" of each batch; whole batches in "turns"; or in turns "side by side", where all are given as many:
            one that is another's has no weight.

    Raises:
        TrainError: somebody divided them already.
    """
    if group.size == 1:
        return _Whole(loader, what)
    if how == "side by side":
        return _SideBySide(loader, group.rank, group.size, what)
    share = (Turns if how == "turns" else Rows)(group.rank, group.size)
    most = len(loader)
    inner = loader.loader if isinstance(loader, First) else loader
    if isinstance(getattr(inner, "sampler", None), DistributedSampler):
        raise TrainError(
            f"{what} are divided between processes by a DistributedSampler already, and would be again; give the "
            "loader that one process would have"
        )
    if isinstance(inner, DataLoader) and _reads_indices(inner):
        return _Indices(inner, most, share, what)
    return _Cut(loader, task, share, what)


@dataclass(frozen=True)
class _Whole:
    loader: Loader
    what: str

    def __iter__(self) -> Iterator[Part]:
        for place, batch in enumerate(counted(self.loader, len(self.loader), self.what)):
            yield Part(batch, 1.0, place)


@dataclass(frozen=True)
class _Cut:
    """Every batch is made, and cut."""

    loader: Loader
    task: Task
    how: Rows | Turns
    what: str

    def __iter__(self) -> Iterator[Part]:
        for place, batch in enumerate(counted(self.loader, len(self.loader), self.what)):
            if isinstance(self.how, Turns):
                if self.how.has(place):
                    yield Part(batch, 1.0, place)
                continue
            examples = examples_in(batch, self.task)
            first, last, weight = self.how.of(place, examples)
            yield Part(rows_of(batch, first, last, examples, self.task), weight, place)


@dataclass(frozen=True)
class _SideBySide:
    """Every batch is made; each process is given one of so many, and where those end, one that others count."""

    loader: Loader
    rank: int
    size: int
    what: str

    def __iter__(self) -> Iterator[Part]:
        some: list[Batch] = []
        for place, batch in enumerate(counted(self.loader, len(self.loader), self.what), start=1):
            some.append(batch)
            if len(some) == self.size or place == len(self.loader):
                ours = self.rank < len(some)
                at = place - len(some) + self.rank
                yield Part(some[self.rank] if ours else some[0], float(ours), at)
                some = []


@dataclass(frozen=True)
class _Indices:
    """A `DataLoader` whose indices are divided before anything is read."""

    loader: DataLoader[Any]
    most: int
    how: Rows | Turns
    what: str

    def __iter__(self) -> Iterator[Part]:
        ours = copy.copy(self.loader)
        chosen = _Chosen(self.loader.batch_sampler, self.most, self.how)
        vars(ours).update(batch_sampler=chosen, _iterator=None)
        if self.loader.num_workers:
            ours.worker_init_fn = _Seeded(self.how.rank * self.loader.num_workers, self.loader.worker_init_fn)
        for batch in counted(ours, len(chosen), self.what):
            place, weight = chosen.given.popleft()
            yield Part(batch, weight, place)


class _Chosen:
    """Of the indices of each batch, this process's; drawn from the random numbers that all share."""

    def __init__(self, sampler: Any, most: int, how: Rows | Turns) -> None:
        self.sampler, self.most, self.how = sampler, most, how
        self.given: deque[tuple[int, float]] = deque()  # of the batches that are under way

    def __len__(self) -> int:
        if isinstance(self.how, Turns):
            return len(range(self.how.rank, self.most, self.how.size))
        return self.most

    def __iter__(self) -> Iterator[list[Any]]:
        ours = randomness.capture(devices=False)
        shared = ours
        remaining = iter(self.sampler)
        for place in range(self.most):
            now = randomness.capture(devices=False)
            randomness.restore(shared)
            try:
                indices = next(remaining)
            except StopIteration:
                return
            finally:
                shared = randomness.capture(devices=False)
                randomness.restore(now)
            if isinstance(self.how, Turns):
                if self.how.has(place):
                    self.given.append((place, 1.0))
                    yield indices
                continue
            first, last, weight = self.how.of(place, len(indices))
            self.given.append((place, weight))
            yield indices[first:last]


@dataclass(frozen=True)
class _Seeded:
    """Seeds the workers of a process other than those of the next one."""

    offset: int
    inner: Any

    def __call__(self, worker: int) -> None:
        randomness.seed(torch.initial_seed() % 2**63, self.offset)
        if self.inner is not None:
            self.inner(worker)


def _reads_indices(loader: DataLoader[Any]) -> bool:
    """Whether a loader reads lists of indices, in the way of PyTorch's own."""
    return (
        type(loader).__iter__ is DataLoader.__iter__
        and loader.batch_sampler is not None
        and hasattr(loader.dataset, "__getitem__")
        and not hasattr(loader.batch_sampler, "set_epoch")
    )


def examples_in(batch: Batch, task: Task) -> int:
    """The examples of a batch: how long the first thing is that the network is given.

    Raises:
        TrainError: there is none.
    """
    args, kwargs = task.inputs(batch)
    given = next(iter((*args, *kwargs.values())), None)
    if isinstance(given, list | tuple):
        return len(given)
    found = next((leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.dim()), None)
    if found is None:
        raise TrainError(
            "several processes: expected examples in tensors, one a row, to divide between them, got "
            f"{type(given).__name__}; train in one process"
        )
    return len(found)


def rows_of(batch: Batch, first: int, last: int, examples: int, task: Task) -> Batch:
    """Some of the examples of a batch.

    Args:
        batch: Tensors and lists with a row for each example, and anything else, which stays whole.
        first: The first row.
        last: The one behind the last.
        examples: In the whole batch.
        task: Says what the network is given of it.

    Raises:
        TrainError: the network would be given other than those rows.
    """
    args, kwargs = task.inputs(batch)
    given = next(iter((*args, *kwargs.values())), None)
    listed = isinstance(given, list | tuple)
    inside = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}

    def is_one_each(node: Any) -> bool:
        """Whether a list has an entry for each example, and is not one of tensors that have rows for them."""
        if len(node) != examples or (node is not given and any(id(leaf) in inside for leaf in tree_leaves(node))):
            return False
        return listed or not all(isinstance(entry, Tensor) and entry.dim() and len(entry) == examples for entry in node)

    def cut(node: Any, top: bool = False) -> Any:
        if isinstance(node, Tensor):
            return node[first:last] if node.dim() and len(node) == examples and not listed else node
        if isinstance(node, Mapping):
            return _like(node, {key: cut(value) for key, value in node.items()})
        if isinstance(node, list | tuple):
            if is_one_each(node) and (not top or node is given):
                return node[first:last]
            parts = [cut(value) for value in node]
            return type(node)(*parts) if hasattr(node, "_fields") else type(node)(parts)
        return node

    found = cut(batch, True)
    if examples_in(found, task) != last - first:
        raise TrainError(
            f"several processes: of {examples} examples of a batch, {last - first} could not be taken; expected "
            "tensors or lists with a row for each, or train in one process"
        )
    return found


def _like(node: Any, values: dict[Any, Any]) -> Any:
    """A mapping of the same class with other values, such as what tokenizers give."""
    if type(node) is dict:
        return values
    twin = copy.copy(node)
    for key, value in values.items():
        twin[key] = value
    return twin
