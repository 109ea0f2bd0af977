"""Networks whose forward pass writes: to themselves, to what lies around them, to what was given to them."""

from __future__ import annotations

import functools
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ODD", "OUTSIDE", "RenormsItsWeight", "Two", "WritesToItsClass", "state_of"]


class Two(nn.Module):
    """Two layers around whatever a network does beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def between(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x).relu()))


class CountingBuffer(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def between(self, h: Tensor) -> Tensor:
        self.n += 1
        return h


class MovingAverage(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def between(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * h.mean(0))
        return h - self.mean


class ReplacedBuffer(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(8))

    def between(self, h: Tensor) -> Tensor:
        self.last = h.detach().mean(0)
        return h


class PlainTensorInPlace(Two):
    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(3)

    def between(self, h: Tensor) -> Tensor:
        self.seen += 1
        return h


class CountingAttribute(Two):
    calls = 0

    def between(self, h: Tensor) -> Tensor:
        self.calls += 1
        return h


class LazyCache(Two):
    def __init__(self) -> None:
        super().__init__()
        self.positions: Tensor | None = None

    def between(self, h: Tensor) -> Tensor:
        if self.positions is None or self.positions.shape[0] != h.shape[-1]:
            self.positions = torch.ones(h.shape[-1], dtype=h.dtype)
        return h + self.positions


class KeepsActivations(Two):
    def __init__(self) -> None:
        super().__init__()
        self.features: list[Tensor] = []
        self.by_name: dict[str, Any] = {"sizes": (1, 2)}
        self.recent: deque[Tensor] = deque(maxlen=3)

    def between(self, h: Tensor) -> Tensor:
        self.features.append(h)
        self.by_name["h"], self.by_name["width"] = h, h.shape[-1]
        self.recent.append(h)
        return h


class HookStoresInSelf(Two):
    def __init__(self) -> None:
        super().__init__()
        self.features: dict[str, Tensor] = {}
        self.a.register_forward_hook(lambda module, inputs, output: self.features.__setitem__("a", output))

    def between(self, h: Tensor) -> Tensor:
        return h + self.features["a"].mean(1, keepdim=True)


class HookIsAMethod(Two):
    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None
        self.a.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.kept = args[0]

    def between(self, h: Tensor) -> Tensor:
        assert self.kept is not None
        return h + self.kept.mean(1, keepdim=True)


class ForwardIsAClosure(Two):
    """As adapters do that replace `forward` of an instance."""

    def __init__(self) -> None:
        super().__init__()
        before = self.a.forward
        layer = self.a

        def forward(x: Tensor) -> Tensor:
            return before(x) * layer.weight.abs().mean(1)

        self.a.forward = forward


class Holder:
    """A plain object that a network shares its state with."""

    def __init__(self) -> None:
        self.steps = 0
        self.last: Tensor | None = None


class WritesToAnObject(Two):
    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()

    def between(self, h: Tensor) -> Tensor:
        self.holder.steps += 1
        self.holder.last = h
        return h


OUTSIDE: dict[str, Any] = {"calls": 0}
STEPS = 0


class WritesToGlobals(Two):
    def between(self, h: Tensor) -> Tensor:
        global STEPS
        STEPS += 1
        OUTSIDE["calls"] += 1
        OUTSIDE["h"] = h
        return h


class WritesToItsClass(Two):
    cache: ClassVar[dict[int, Tensor]] = {}
    total = 0

    def between(self, h: Tensor) -> Tensor:
        type(self).total += 1
        if h.shape[-1] not in self.cache:
            self.cache[h.shape[-1]] = torch.ones(h.shape[-1], dtype=h.dtype)
        return h + self.cache[h.shape[-1]]


@functools.cache
def ramp(size: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(size, dtype=dtype)


class CachedFunction(Two):
    def between(self, h: Tensor) -> Tensor:
        return h + ramp(h.shape[-1], h.dtype)


class DefaultArgument(Two):
    def between(self, h: Tensor, memory: list[Tensor] = []) -> Tensor:  # noqa: B006
        memory.append(h)
        return h


class DrawsInPython(Two):
    def between(self, h: Tensor) -> Tensor:
        skip = random.random() < -1 or np.random.rand() < -1  # drawn, and never taken
        return h if not skip else h * 2


class DrawsInPyTorch(Two):
    def between(self, h: Tensor) -> Tensor:
        return h + 0.0 * torch.rand(h.shape[0], 1, dtype=h.dtype)


class ClampsItsWeight(Two):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.a.weight.clamp_(-0.2, 0.2)
        return super().forward(x)


class RenormsItsWeight(Two):
    """A weight whose data are replaced in each forward pass, which an export cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        self.a.weight.data = torch.renorm(self.a.weight.data, 2, 0, 0.5)
        return super().forward(x)


class MergesOnEval(Two):
    """Low-rank adapters that `eval` folds into the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.merged = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(8, 2)), False

    def train(self, mode: bool = True) -> MergesOnEval:
        super().train(mode)
        if mode == self.merged:
            self.a.weight.data += (-1 if mode else 1) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h if self.merged else h + x @ self.down.T @ self.up.T)


class HoldsALock(Two):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.numbers = (n for n in range(3))

    def between(self, h: Tensor) -> Tensor:
        with self.lock:
            return h


class HoldsAComputedTensor(Two):
    def __init__(self) -> None:
        super().__init__()
        self.cached = [self.a(torch.zeros(2, 4))]


class HookedByKwargs(Two):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []
        self.a.register_forward_hook(lambda m, args, kwargs, out: self.outputs.append(out), with_kwargs=True)
        self.a.register_full_backward_hook(lambda m, into, out: self.outputs.append(out))


class Training(Two):
    """Batch statistics, in a network that was left in training mode with one part frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.norm.eval()

    def between(self, h: Tensor) -> Tensor:
        return self.drop(self.norm(h))


ODD: dict[str, Callable[[], nn.Module]] = {
    cls.__name__: cls
    for cls in (
        CountingBuffer,
        MovingAverage,
        ReplacedBuffer,
        PlainTensorInPlace,
        CountingAttribute,
        LazyCache,
        KeepsActivations,
        HookStoresInSelf,
        HookIsAMethod,
        ForwardIsAClosure,
        WritesToAnObject,
        WritesToGlobals,
        WritesToItsClass,
        CachedFunction,
        DefaultArgument,
        DrawsInPython,
        DrawsInPyTorch,
        ClampsItsWeight,
        MergesOnEval,
        HoldsALock,
        HoldsAComputedTensor,
        HookedByKwargs,
        Training,
    )
}


def state_of(model: nn.Module) -> list[Any]:
    """All that a trace might change: tensors bit for bit, attributes, hooks, modes, gradients, random numbers."""
    found: list[Any] = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    found += [STEPS, _shown(OUTSIDE), WritesToItsClass.total, _shown(DefaultArgument.between.__defaults__)]
    found += [sorted(WritesToItsClass.cache), vars(CountingAttribute).get("calls")]
    for name, module in model.named_modules():
        found += [(name, key, _shown(value)) for key, value in sorted(vars(module).items())]
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, Tensor):
        grad = None if not value.is_leaf or value.grad is None else value.grad.tolist()
        bits = value.detach().contiguous().tolist()
        return type(value), id(value), bits, value.requires_grad, value.grad_fn is None, grad, value.data_ptr()
    if isinstance(value, dict):
        return id(value), [(key, _shown(entry)) for key, entry in value.items()]
    if isinstance(value, list | tuple | set | deque):
        return type(value), [_shown(entry) for entry in value]
    if isinstance(value, Holder):
        return _shown(vars(value))
    return type(value), value
