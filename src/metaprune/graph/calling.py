"""A call of a network: one of the ways in which its users call it. Public as `mp.Call`.

Not to be confused with `metaprune.graph.call.Call`, which is one call of an *operator*, as the operator's rule sees it.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.errors import TraceError
from metaprune.graph.objects import open_to_trees

__all__ = ["Call", "answering", "apart", "made_by", "state_leaves", "takes"]


@dataclass(frozen=True)
class Call:
    """One way in which a network is called.

    Attributes:
        args: Example inputs, a tuple; the first dimension of the first tensor is the batch.
        kwargs: Example inputs by name.
        method: The method that is called.
        training: Whether the network is in training mode (`model.train()`); else in evaluation mode.
        states: Those inputs that the network itself made in an earlier call (a cache, encoder outputs, a recurrent
            state), by name or by position among `args`. They may change size with a cut, and the examples given here
            are cut along. Objects of classes of their own, such as caches, are states without being named.

    Raises:
        TraceError: It is not made of what it should be.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "forward"
    training: bool = False
    states: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.args, tuple):
            raise TraceError(f"trace: expected args as a tuple of inputs, got {type(self.args).__name__}; write (x,)")
        if not isinstance(self.kwargs, Mapping | None):
            kind = type(self.kwargs).__name__
            raise TraceError(f"trace: expected kwargs as a dictionary of inputs by name, got {kind}")
        object.__setattr__(self, "kwargs", dict(sorted((self.kwargs or {}).items())))  # one order, whoever calls
        for state in self.states:
            if not (state in self.kwargs if isinstance(state, str) else -1 < state < len(self.args)):
                raise TraceError(
                    f"trace: the call has no input {state!r} that could be a state; it has {len(self.args)} by "
                    f"position and {', '.join(self.kwargs) or 'none'} by name"
                )

    def __str__(self) -> str:
        """In words: "forward(2×3×8×8) in training"."""
        leaves = ((self.args, ""), *((value, f"{name}=") for name, value in self.kwargs.items()))
        given = [
            f"{name}{'×'.join(map(str, leaf.shape)) or 'number'}"
            for value, name in leaves
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, Tensor)
        ]
        shown = ", ".join(given if len(given) < 5 else [*given[:3], "…"])
        return f"{self.method}({shown}){' in training' if self.training else ''}"

    def of(self, model: nn.Module) -> Any:
        """Call a network like this, in the mode that it is in, on the inputs as they are."""
        answer = model if self.method == "forward" else getattr(model, self.method)
        return answer(*self.args, **self.kwargs)


@contextmanager
def answering(model: nn.Module, method: str) -> Iterator[nn.Module]:
    """The network itself, whose `forward` is another of its methods inside."""
    if method == "forward":
        yield model
        return
    own = vars(model).get("forward")
    model.forward = getattr(model, method)
    try:
        yield model
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own


def apart(
    spec: pytree.TreeSpec,
    inside: bool = False,
    is_state: Callable[[type, object], bool] = lambda kind, key: True,
    key: object = None,
) -> Iterator[bool]:
    """For each leaf of a tree, whether it lies inside an object of a class of its own, such as a cache.

    Tuples, lists, mappings and dataclasses are no such objects: they hand values to users.

    Args:
        spec: The tree.
        inside: Whether all of it does.
        is_state: Whether an object of this class, under this key, is a state of the network's and not a user's value.
        key: What it stands under.
    """
    if spec.is_leaf():
        yield inside
        return
    kind = spec.type
    state = inside or (not _is_plain(kind) and is_state(kind, key))
    keys = spec.context if isinstance(spec.context, list | tuple) else getattr(spec.context, "names", ())
    children = _branches(spec)
    for place, child in enumerate(children):
        yield from apart(child, state, is_state, keys[place] if len(keys) == len(children) else None)


def _branches(spec: pytree.TreeSpec) -> list[pytree.TreeSpec]:
    """What lies right below the root of a tree; an attribute before PyTorch made it a method."""
    return spec.children() if hasattr(spec, "children") else spec.children_specs


def _is_plain(kind: Any) -> bool:
    return not isinstance(kind, type) or issubclass(kind, tuple | list | deque | Mapping) or is_dataclass(kind)


def kinds(spec: pytree.TreeSpec) -> set[type]:
    """The classes of their own in a tree."""
    if spec.is_leaf():
        return set()
    return set().union(*map(kinds, _branches(spec))) | (set() if _is_plain(spec.type) else {spec.type})


def takes(model: nn.Module, method: str) -> Callable[[type, object], bool]:
    """Whether a network may be given back an object that it returns: under that name, or of that class, if at all.

    A network does without a state at first, so the argument has a default. Whatever else it returns in a class of its
    own is for its users.
    """
    optional = {name: str(p) for name, p in _parameters(model, method).items() if p.default is not p.empty}
    words = {word for name, shown in optional.items() for word in re.findall(r"\w+", shown.removeprefix(name))}

    def is_state(kind: type, key: object) -> bool:
        return key in optional or any(base.__name__ in words for base in kind.__mro__[:-1])

    return is_state


def _parameters(model: nn.Module, method: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(model, method)).parameters


def made_by(model: nn.Module, call: Call, returned: pytree.TreeSpec) -> Callable[[type, object], bool]:
    """Whether an input is an object that the network returned in another call: of such a class, and optional.

    Args:
        model: The network.
        call: The call.
        returned: What it returns in this call.
    """
    parameters, classes = _parameters(model, call.method), kinds(returned)
    names = list(parameters)

    def is_made(kind: type, key: object) -> bool:
        name = names[key] if isinstance(key, int) and key < len(names) else key
        known = parameters.get(str(name))
        return kind in classes and (known is None or known.default is not known.empty)

    return is_made


def state_leaves(call: Call, is_made: Callable[[type, object], bool] = lambda kind, key: True) -> list[bool]:
    """For each leaf of the inputs of a call, whether it is a state that the network made.

    Args:
        call: The call.
        is_made: Whether an object of this class, given at this place or under this name, is one; by default any is.
    """
    with open_to_trees(call.args, call.kwargs):
        _, spec = pytree.tree_flatten((call.args, dict(call.kwargs)))
    args, kwargs = _branches(spec)
    named = [*range(len(call.args)), *call.kwargs]
    result = []
    for name, child in zip(named, [*_branches(args), *_branches(kwargs)], strict=True):
        result += list(apart(child, name in call.states, lambda kind, _, name=name: is_made(kind, name)))  # type: ignore[misc]
    return result
