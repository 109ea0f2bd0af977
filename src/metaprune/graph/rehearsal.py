"""A rehearsal: a network's code runs, and nobody notices.

What runs is a stand-in: a copy of the network that shares its weights' memory and nothing else. What its code writes
to itself goes with it. What it writes to the weights in place, to what lies around the network, and the random
numbers that it draws are put back. One rehearsal at a time: much of what an export and a function mode touch belongs
to the whole process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaprune.graph.copying import clone
from metaprune.graph.objects import open_to_trees
from metaprune.graph.surroundings import random_numbers_kept, seeded, surroundings_kept

__all__ = ["Unwritten", "as_the_caller", "fresh", "on_the_cpu", "ordinary", "rehearsal", "stand_in", "undisturbed"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ALONE = threading.RLock()
_caller = threading.local()


def undisturbed(function: Function) -> Function:
    """A function of ours in a world of its own, whatever its caller has set.

    Outside of PyTorch's inference mode, whose tensors cannot be trained; with the CPU as the default device, but for
    the network's code; with the classes of inputs and outputs that were met open to PyTorch's trees.
    """

    @functools.wraps(function)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), open_to_trees(), on_the_cpu():
            return function(*args, **kwargs)

    return outside  # type: ignore[return-value]


def _default_device() -> torch.device:
    """Where tensors are made; PyTorch 2.8 cannot say it after somebody has put it back to none."""
    try:
        return torch.get_default_device()
    except AttributeError:
        return torch.device("cpu")


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """What is made inside is made on the CPU, whatever default device the caller has set; but for a network's code."""
    device, before = _default_device(), getattr(_caller, "device", None)
    if device.type == "cpu":
        yield
        return
    _caller.device = device
    try:
        with torch.device("cpu"):
            yield
    finally:
        _caller.device = before


def as_the_caller() -> AbstractContextManager[object]:
    """What a network's code makes inside is made where it is outside of `on_the_cpu`."""
    device = getattr(_caller, "device", None)
    return nullcontext() if device is None else torch.device(device)


@contextmanager
def rehearsal(
    model: nn.Module, training: bool | None = False, writes: bool = True, seed: int = 0
) -> Iterator[nn.Module]:
    """A stand-in for `model` to run; nothing of what it does stays.

    Args:
        model: Any network; left untouched, also after an error.
        training: The mode to put it into, as `train(training)` does; None for the modes that its modules are in.
        writes: Whether its code runs on tensors that hold values, so that the weights must be kept from it. An export
            runs it on tensors that hold none.
        seed: Where its random numbers start, so that the same are drawn each time.
    """
    with _ALONE, torch.inference_mode(False), surroundings_kept(model), random_numbers_kept(), as_the_caller():
        seeded(seed)
        actor = stand_in(model)
        if training is not None and _set_mode(actor, training, model):
            actor = stand_in(model)  # its `train` folds weights into one another: a network of its own
            for module in actor.modules():
                module.training = training
        if not writes:
            yield actor
            return
        with Unwritten(model.parameters()):
            yield actor


def stand_in(model: nn.Module) -> nn.Module:
    """A copy whose parameters are other objects in the same memory; everything else, buffers too, is copied."""
    return clone(model, {id(parameter): _alias(parameter) for parameter in model.parameters()})


def _alias(parameter: nn.Parameter) -> Tensor:
    if type(parameter) is not nn.Parameter:
        return parameter
    data = parameter.detach()
    result = nn.Parameter(data.clone() if data.is_inference() else data, parameter.requires_grad)
    result.__dict__.update(parameter.__dict__)
    return result


def _set_mode(actor: nn.Module, training: bool, model: nn.Module) -> bool:
    """Put a stand-in into a mode; whether its code wrote to the weights when it was told."""
    places = [parameter.data_ptr() for parameter in actor.parameters()]
    with Unwritten(model.parameters()) as kept, torch.no_grad():
        actor.train(training)
    return bool(kept.before) or places != [parameter.data_ptr() for parameter in actor.parameters()]


def ordinary(value: Any) -> Any:
    """The same inputs, as an export reads them: made outside of PyTorch's inference mode, none in another's memory."""
    first: dict[int, Tensor] = {}

    def plain(x: Tensor) -> Tensor:
        memory = x.untyped_storage()._cdata if x.layout == torch.strided and not x.is_meta else id(x)
        return x.clone() if x.is_inference() or first.setdefault(memory, x) is not x else x

    with torch.inference_mode(False):
        return pytree.tree_map_only(Tensor, plain, value)


def fresh(value: Any) -> Any:
    """The same inputs in memory of their own, apart from what they were computed from."""
    return pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), value)


class Unwritten(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts back afterwards what operators inside have written into the memory of some tensors.

    Args:
        tensors: What must not change.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        strided = [tensor for tensor in tensors if tensor.layout == torch.strided]
        self.memory = {s._cdata: s for tensor in strided for s in [tensor.untyped_storage()]}
        self.before: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
            for argument in func._schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self.note(given.get(argument.name))
        return func(*args, **kwargs)

    def note(self, written: Any) -> None:
        """Remember what lies in the memory that is about to be written."""
        for tensor in pytree.tree_leaves(written):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta:
                place = tensor.untyped_storage()._cdata
                if place in self.memory and place not in self.before:
                    self.before[place] = self.memory[place].clone()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for place, before in self.before.items():
            self.memory[place].copy_(before)
