"""A network of the zoo with its channel graph, traced once for the tests that run together."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from tests.laws import oracle
from tests.zoo import ZOO, Entry, few

__all__ = ["Case", "case"]


@dataclass(frozen=True)
class Case:
    """A network of the zoo, its inputs and its graph."""

    entry: Entry
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    graph: ChannelGraph

    def run(self, model: nn.Module) -> Any:
        """The outputs of a relative of the network on its inputs."""
        return oracle.call(model, self.args, self.kwargs)


def case(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """A network of the zoo in a precision, with the same weights and inputs but for rounding."""
    return _traced(name, dtype)


@few
def _traced(name: str, dtype: torch.dtype) -> Case:
    model, *inputs = ZOO[name].example()
    model = model.to(dtype)
    args, kwargs = tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs)
    return Case(ZOO[name], model, args, kwargs, mp.trace(model, args, kwargs))
