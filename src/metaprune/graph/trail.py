"""What a network's code calls, in both modes: whether training runs the same operators, but for what a mode switches.

An export costs much more than to run the code. Most networks run the same operators in training: dropout, which lets
everything pass in evaluation, and batch norm, which takes other statistics. Where that is so, nothing new is to be
learned from an export of the training forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call
from metaprune.graph.objects import open_to_trees
from metaprune.graph.quiet import quiet
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.surroundings import drawn_so_far
from metaprune.graph.tensors import named_tensors
from metaprune.graph.valueless import is_small, valueless

__all__ = ["Step", "followed", "switches"]

_DROPPING = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
    *("dropout_", "alpha_dropout_", "feature_alpha_dropout_", "feature_dropout_"),
}
_NORMS = {"batch_norm", "instance_norm"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_SWITCHED = {*_DROPPING, *_NORMS, *_RECURRENT, "scaled_dot_product_attention", "multi_head_attention_forward"}
"""Functions with an argument that says in which mode the network is, or how much to drop."""
_MOST_HELD = 10_000  # entries of a tensor that are compared one by one
_FLAGS = {"training", "train", "use_input_stats", "inplace", "dropout_p", "dropout", "p", "momentum"}


@dataclass(frozen=True)
class Step:
    """One call of a function of PyTorch's.

    Attributes:
        name: The function.
        given: Its arguments, but for what a mode switches; tensors as where they come from.
        shapes: Of its results.
        norm: Of a batch or instance norm, whether it takes the statistics of its input.
    """

    name: str
    given: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    norm: bool | None = None


def switches(evaluation: list[Step], training: list[Step]) -> list[bool] | None:
    """For each batch or instance norm, whether it takes the statistics of its input in training.

    None where training runs other operators than evaluation.
    """
    if len(evaluation) != len(training):
        return None
    for one, other in zip(evaluation, training, strict=True):
        if (one.name, one.given, one.shapes) != (other.name, other.given, other.shapes):
            return None
    return [step.norm for step in training if step.norm is not None]


def followed(model: nn.Module, call: Call, seed: int = 0) -> tuple[list[Step], bool]:
    """What a network's code calls, and whether it drew random numbers of Python's or NumPy's; nothing of it stays.

    It runs without values where it can: what takes another way for a value that it reads, cannot. A small network does
    with values: PyTorch works out shapes in Python, which takes longer.

    Args:
        model: The network.
        call: How to call it.
        seed: Where the random numbers that its code draws start.
    """
    ways = (_with_values, _without_values) if is_small(model, call) else (_without_values, _with_values)
    try:
        return ways[0](model, call, seed)
    except Exception:  # it is run once more, and says then what is wrong
        return ways[1](model, call, seed)


def _without_values(model: nn.Module, call: Call, seed: int) -> tuple[list[Step], bool]:
    with valueless(model, call, seed) as (actor, empty), quiet():
        return _follow(actor, empty)


def _with_values(model: nn.Module, call: Call, seed: int) -> tuple[list[Step], bool]:
    with rehearsal(model, call.training, seed=seed) as actor, quiet():
        return _follow(actor, call)


@torch.no_grad()
def _follow(actor: nn.Module, call: Call) -> tuple[list[Step], bool]:
    """Run what may be run and written to, in the mode it is in, on copies of the inputs; see `followed`."""
    places: dict[int, Any] = {id(tensor): name for name, tensor in named_tensors(actor).items()}
    with open_to_trees(call.args, call.kwargs):
        given, structure = pytree.tree_flatten((call.args, dict(call.kwargs)))
        leaves = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in given]
        places |= {id(leaf): f"input {place}" for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        args, kwargs = pytree.tree_unflatten(leaves, structure)
    trail, before = _Trail(places), drawn_so_far()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with trail:
            Call(args, kwargs, call.method).of(actor)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return trail.steps, drawn_so_far() != before


class _Trail(TorchFunctionMode):
    def __init__(self, places: Mapping[int, Any]) -> None:
        super().__init__()
        self.known = places
        self.steps: list[Step] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self.seen_as(func, func(*args, **kwargs), args[0])
        given = tuple(self.said(name, args, kwargs))
        norm = _takes_statistics(name, args, kwargs) if name in _NORMS else None
        result = func(*args, **kwargs)
        made = [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
        if (made and not _counts(args, made)) or name == "__setitem__":
            for output, tensor in enumerate(made):
                tensor._made = (len(self.steps), output)  # type: ignore[attr-defined]
            self.steps.append(Step(name, given, tuple(tuple(tensor.shape) for tensor in made), norm))
        return result

    def source(self, tensor: Tensor) -> Any:
        """Where a tensor comes from; what it holds, where that is not known."""
        return getattr(tensor, "_made", None) or self.known.get(id(tensor)) or _held(tensor)

    def seen_as(self, attribute: Any, result: Any, owner: Tensor) -> Any:
        """What a tensor gives for an attribute; another tensor (`x.T`) comes from where the tensor does."""
        if isinstance(result, Tensor) and id(result) not in self.known and not hasattr(result, "_made"):
            result._made = (self.source(owner), attribute.__self__.__name__)  # type: ignore[attr-defined]
        return result

    def said(self, name: str, args: Any, kwargs: Any) -> Iterator[Any]:
        """The arguments, comparable: of functions that a mode switches, neither flags nor fractions."""
        named = [(None, arg) for arg in args] + sorted(kwargs.items())
        for key, value in named:
            if name in _SWITCHED and key in _FLAGS:
                continue
            for leaf in pytree.tree_leaves(value):
                if isinstance(leaf, Tensor):
                    yield self.source(leaf)
                elif not (name in _SWITCHED and key is None and isinstance(leaf, bool | float)):
                    yield leaf if isinstance(leaf, int | float | str | None) else str(leaf)


def _held(tensor: Tensor) -> tuple[str, ...]:
    """A tensor that the code made without a function of PyTorch's, or holds besides its parameters and buffers."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.numel() > _MOST_HELD:
        return ("held", str(tensor.shape))
    return ("held", str(tensor.shape), str(tensor.tolist()))


def _counts(args: Any, made: list[Tensor]) -> bool:
    """Whether a call only counts: how many batches there were, say."""
    operands = [value for value in pytree.tree_leaves(args) if isinstance(value, Tensor)]
    return bool(operands) and all(value.dim() == 0 and not value.is_floating_point() for value in [*operands, *made])


def _takes_statistics(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Of `torch.nn.functional`'s norms and PyTorch's own: the flag stands at the same place in both."""
    default = args[5] if len(args) > 5 else name == "instance_norm"
    return bool(kwargs.get("training", kwargs.get("use_input_stats", default)))
