"""Parameters and buffers that no captured call reads: what may meet them is kept whole, so that it still fits them."""

from __future__ import annotations

from torch import nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import axes_of, size

__all__ = ["feeding_what_is_unread", "unread"]

_CHANNELS = 2  # the first dimensions of a parameter; those after them are a kernel's


def unread(model: nn.Module, graph: ChannelGraph) -> list[str]:
    """The parameters and buffers that none of the captured calls reads."""
    tensors = named_tensors(model)
    read = {
        id(tensors[name])
        for inference in graph.inferences
        for node, name in inference.owner.items()
        if node.users and name in tensors
    }
    return [name for name, tensor in tensors.items() if id(tensor) not in read]


def feeding_what_is_unread(model: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Axis -> why it is kept whole: it is part of a dimension of the size that a parameter expects which nobody read.

    Where no dimension has that size, those count that it is a multiple of: one may be flattened with others. A buffer
    that nobody read (means that training keeps, say) meets dimensions of its own size, of tensors or in weights.
    """
    found: dict[str, str] = {}
    sizes: dict[int, set[str]] = {}
    for operator in graph.every_operator:
        for term in (term for terms in operator.outputs for term in terms):
            names = {axis.name for axis in axes_of(term) if graph.is_free(axis)}
            if names:
                sizes.setdefault(size(term), set()).update(names)
    left, parameters, buffers = unread(model, graph), set(graph.parameters), dict(model.named_buffers())
    for name in (name for name in left if name in parameters):
        expected = {size(term) for term in graph.tensors[name][:_CHANNELS]} - {1}
        fed = expected & sizes.keys()
        if not fed and len(graph.tensors[name]) > 1:
            fed = {known for known in sizes for one in expected if one % known == 0}
        reason = f"it may feed {name!r}, which no captured call reads"
        for axis in (axis for one in sorted(fed) for axis in sizes[one]):
            found.setdefault(axis, reason)
    for terms in graph.tensors.values():
        for term in terms:
            sizes.setdefault(size(term), set()).update(axis.name for axis in axes_of(term) if graph.is_free(axis))
    for name in (name for name in left if name in buffers):
        met = {axis for one in buffers[name].shape if one > 1 for axis in sizes.get(one, ())}
        found = dict.fromkeys(sorted(met), f"it may meet {name!r}, which no captured call reads") | found
    return found
