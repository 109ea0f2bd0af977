"""A cut that is not traced again: cheap, for tests that themselves compare what the cut network computes."""

from torch import nn

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.surgery.attention import written_out
from metaprune.surgery.resized import cropped
from tests.zoo import ZOO

__all__ = ["is_cut_whole", "rough_cut"]


def is_cut_whole(name: str) -> bool:
    """Whether a network of the zoo can be cut to any plan."""
    return ZOO[name].undo is None and name != "lstm_projected"  # PyTorch wants a projection narrower than its state


def rough_cut(model: nn.Module, graph: ChannelGraph, plan: mp.Plan) -> nn.Module:
    """What `mp.slice` gives, unverified; sliced all the same where what is computed may hang on a size that is cut."""
    if any(one.scale is not None or one.computed or one.literal for one in graph.every_operator):
        return mp.slice(model, graph, plan)
    return cropped(written_out(model, graph.written_out), graph, plan.kept)
