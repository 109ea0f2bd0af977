"""The processes that train one network together: what they add up, what one says to all, and how all end together.

Each process runs the user's program from the beginning to the end, and all come by the same calls. So whatever hangs on
the seed alone is worked out by each for itself; data are divided, sums are taken over all, and what only one can do
(write files, look at a clock) is done by the first and told to the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.train.checks import TrainError, said

__all__ = ["ALONE", "PATIENCE", "Group", "apart", "is_apart", "leads", "now", "started"]

PATIENCE = timedelta(minutes=30)
"""How long processes wait for one another."""

GRACE = 5.0
"""Seconds that a process which cannot go on waits for the others to say the same."""

BUCKET = 1 << 24
"""Numbers that are added up at a time."""

T = TypeVar("T")


class Parted(TrainError):
    """Another process is gone."""


class Group:
    """Some processes, as one of them sees them.

    Attributes:
        rank: Which one this is; the first is 0, and leads.
        size: How many there are.
        device: Where this one computes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        """Of processes that can reach one another already."""
        self.rank, self.size, self.device = rank, size, device or torch.device("cpu")
        self._blocks = 0
        self._words: Any = None  # what is said from host to host, where the device has its own way
        if size > 1:
            import torch.distributed as dist

            if dist.get_backend() != "gloo":
                self._words = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def add(self, tensors: list[Tensor]) -> None:
        """The sums over all processes, in place, of tensors that have the same shapes in each."""
        import torch.distributed as dist

        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        waiting = []
        for several in kinds.values():
            for bucket in _buckets(several):
                flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
                waiting.append((bucket, flat, self._asked(dist.all_reduce, flat, async_op=True)))
        for bucket, flat, handle in waiting:
            self._asked(handle.wait)
            start = 0
            for tensor in bucket:
                tensor.detach().copy_(flat[start : start + tensor.numel()].view(tensor.shape))
                start += tensor.numel()

    def average(self, parameters: list[Tensor]) -> None:
        """The means over processes of gradients; one that none has stays none, and split ones are means already."""
        gradients = self.add_gradients([p for p in parameters if not hasattr(p, "full_tensor")])
        if gradients:
            torch._foreach_div_(gradients, self.size)

    def add_gradients(self, parameters: list[Tensor]) -> list[Tensor]:
        """The sums over processes of gradients, which are returned; one that none has stays none."""
        known = self.total(torch.tensor([float(p.grad is not None) for p in parameters])).tolist()
        asked = [p for p, count in zip(parameters, known, strict=True) if count]
        for parameter in asked:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in asked if p.grad is not None]
        if self.size > 1 and gradients:
            self.add(gradients)
        return gradients

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the tensor itself where there is one."""
        if self.size == 1:
            return numbers
        import torch.distributed as dist

        found = numbers.detach().clone()
        self._asked(dist.all_reduce, found, group=self._words if found.device.type == "cpu" else None)
        return found

    def begin_alike(self, tensors: list[Tensor]) -> None:
        """Give all the values that the first process has, in place."""
        import torch.distributed as dist

        for tensor in tensors:
            there = tensor.detach().to(self.device).contiguous()
            self._asked(dist.broadcast, there, src=0)
            if not self.leads:
                tensor.detach().copy_(there)

    def rows(self, numbers: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, stacked by rank."""
        import torch.distributed as dist

        found = [torch.empty_like(numbers) for _ in range(self.size)]
        self._asked(dist.all_gather, found, numbers.detach().contiguous())
        return torch.stack(found)

    def gathered(self, value: T) -> list[T]:
        """What each process says, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        self._asked(dist.all_gather_object, found, value, group=self._words)
        return found

    def told(self, make: Callable[[], T]) -> T:
        """What the first process makes; or, in all, the error that it failed with."""
        if self.size == 1:
            return make()
        import torch.distributed as dist

        said_of_it: list[Any] = [None]
        if self.leads:
            try:
                with apart():
                    said_of_it = [(make(), None)]
            except MetapruneError as error:
                said_of_it = [(None, error)]
        self._asked(dist.broadcast_object_list, said_of_it, src=0, group=self._words)
        value, failed = said_of_it[0]
        if failed is not None:
            raise failed
        return value  # type: ignore[no-any-return]

    def same(self, value: object, what: str) -> None:
        """Refuse what differs between processes.

        Raises:
            TrainError: it does.
        """
        if self.size > 1 and any(other != value for other in self.gathered(value)):
            raise TrainError(
                f"{what} differ between the {self.size} processes; each must make the same: call torch.manual_seed "
                "before the network and the data are made"
            )

    @contextmanager
    def together(self, who: str) -> Iterator[None]:
        """What ends the block in one process ends it in all; `now()` is this group inside.

        Raises:
            Parted: another process failed, or was killed.
        """
        if self.size == 1 or now() is not ALONE:
            yield
            return
        token = _now.set(self)
        self._blocks += 1
        try:
            yield
        except BaseException as error:
            told = self._fault(error, who)
            if told is not None:
                raise told from error
            raise
        finally:
            _now.reset(token)

    def _asked(self, collective: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A call that all processes take part in."""
        try:
            return collective(*args, **kwargs)
        except RuntimeError as error:
            raise Parted(f"another of the {self.size} processes is gone ({said(error)})") from error

    def _fault(self, error: BaseException, who: str) -> Parted | None:
        """Tell the others why this process cannot go on; or learn from them why it cannot, which is returned."""
        import torch.distributed as dist

        if not dist.is_initialized():
            return None
        store = dist.distributed_c10d._get_default_store()
        place = f"metaprune/fault/{self._blocks}"
        lost = isinstance(error, Parted)
        found: str | None = None
        with suppress(Exception):  # the store is gone where the first process is
            if not lost:
                store.set(f"{place}/words", f"{self.rank}:{said(error)}")
                store.add(f"{place}/count", 1)
                if _until(lambda: store.add(f"{place}/count", 0) >= self.size, GRACE):
                    return None  # all say the same, so all are still there
            elif _until(lambda: store.check([f"{place}/words"]), GRACE):
                found = store.get(f"{place}/words").decode()
            store.add(f"{place}/heard", 1)
        if not lost or (found and int(found.partition(":")[0]) == self.rank):
            _leave()
            with suppress(Exception):
                _until(lambda: store.add(f"{place}/heard", 0) >= self.size, GRACE)
            return None
        _leave()
        if found is None:
            return Parted(
                f"{who}: another of the {self.size} processes ended without a word: was it killed, or out of memory? "
                "Its own output may say; the same command goes on from the last checkpoint"
            )
        rank, _, words = found.partition(":")
        return Parted(f"{who}: process {rank} of {self.size} (counted from 0) failed: {words}")


ALONE = Group()
"""One process."""

_now: ContextVar[Group] = ContextVar("now", default=ALONE)
_apart: ContextVar[bool] = ContextVar("apart", default=False)
_started: list[Group] = []  # as torch.distributed's own state: a process is one of several for good


def now() -> Group:
    """Those who are in the same block `together`."""
    return _now.get()


@contextmanager
def apart() -> Iterator[None]:
    """What this process does inside it does alone, whoever it trains with otherwise."""
    token, group = _apart.set(True), _now.set(ALONE)
    try:
        yield
    finally:
        _apart.reset(token)
        _now.reset(group)


def is_apart() -> bool:
    """Whether this process works alone for now."""
    return _apart.get()


def started(rank: int, size: int, device: torch.device) -> Group:
    """The group that this process is of, once all can reach one another."""
    if size == 1:
        return ALONE
    if not _started or (_started[0].rank, _started[0].size) != (rank, size):
        _started[:] = [Group(rank, size, device)]
    _started[0].device = device
    return _started[0]


def leads() -> bool:
    """Whether this process is the one that writes files: the first of those that train together."""
    return not _started or _started[0].leads


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        bucket.append(tensor)
        held += tensor.numel()
        if held >= BUCKET:
            yield bucket
            bucket, held = [], 0
    if bucket:
        yield bucket


def _until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _leave() -> None:
    """Close the connections, so that those who wait for this process learn that it is gone."""
    import torch.distributed as dist

    done = threading.Thread(target=lambda: dist.is_initialized() and dist.destroy_process_group(), daemon=True)
    done.start()  # which may wait for what never comes
    done.join(GRACE)
