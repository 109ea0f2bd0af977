"""Values: what a cut network computes, against what the mask does, on the example inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from metaprune.graph.call import named_arguments
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, infer
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.tensors import named_tensors
from metaprune.surgery.mask import HidingInterpreter

__all__ = ["Judge", "example_inputs"]


def example_inputs(model: nn.Module, graph: ChannelGraph) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copies of the example inputs, on the device of the network, which may have moved since it was traced."""
    devices = {tensor.device for tensor in named_tensors(model).values()}
    device = devices.pop() if len(devices) == 1 else None
    moved: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
        Tensor,
        lambda tensor: tensor.clone() if device is None else tensor.to(device, copy=True),
        (graph.args, dict(graph.kwargs)),
    )
    return moved


class Judge:
    """Compares cut networks with the masked one, in evaluation mode, on the example inputs.

    It does not judge where there are no values (meta tensors) or where the network draws random numbers.

    Args:
        model: The network that `graph` was traced from; it is not moved or changed.
        graph: From `mp.trace`.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.model = model
        self.graph = graph
        self._seen: Inference | None = None

    @property
    def silent(self) -> str | None:
        """Why it does not judge; None where it does."""
        if any(tensor.is_meta for tensor in named_tensors(self.model).values()):
            return "there are no values on the meta device"
        if any(map(_draws, self.seen.nodes)):
            return "the network draws random numbers"
        return None

    @property
    def seen(self) -> Inference:
        """What the graph was read from; read anew where the network has moved since."""
        if self._seen is None:
            known = self.graph.inference
            args, kwargs = example_inputs(self.model, self.graph)
            if not isinstance(known, Inference) or _places((args, kwargs)) != _places(
                (self.graph.args, self.graph.kwargs)
            ):
                known = infer(self.model, args, kwargs, self.graph.ties, training=False)
            self._seen = known
        return self._seen

    @torch.no_grad()
    def objection(self, small: nn.Module, kept: Mapping[str, tuple[int, ...]]) -> str | None:
        """How the outputs of a cut network differ from those of the masked one, in words; None where they do not."""
        if self.silent is not None:
            return None
        args, kwargs = example_inputs(self.model, self.graph)
        masked = HidingInterpreter(self.seen, kept)
        with rehearsal(self.model) as whole:
            expected = pytree.tree_leaves(masked.call(named_tensors(whole), args, kwargs))
        args, kwargs = example_inputs(self.model, self.graph)
        with rehearsal(small) as actor:
            got = pytree.tree_leaves(actor(*args, **kwargs))
        if len(expected) != len(got):
            return f"it has {len(got)} outputs instead of {len(expected)}"
        for one, other in zip(expected, got, strict=True):
            if isinstance(one, Tensor) and (problem := _difference(one, other)) is not None:
                return problem
        return None


def _places(inputs: Any) -> list[torch.device]:
    return [leaf.device for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _draws(node: fx.Node) -> bool:
    """Whether an operator draws random numbers: dropout does not where it is switched off, or drops nothing."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = named_arguments(node.target, node.args, node.kwargs)
    idle = any(given.get(name, True) is False for name in ("train", "training")) or given.get("dropout_p", 1.0) == 0.0
    return not idle


def _difference(expected: Tensor, got: Any) -> str | None:
    if not isinstance(got, Tensor) or got.shape != expected.shape:
        return f"an output is {getattr(got, 'shape', type(got).__name__)} instead of {expected.shape}"
    if not expected.is_floating_point():
        return None  # positions and counts hang on comparisons, which rounding may turn
    finite = expected.isfinite() & got.isfinite()
    if (expected.isfinite() != got.isfinite()).any():
        return "an output is not finite where the masked network's is"
    if not finite.any():
        return None
    precision = torch.finfo(got.dtype)
    distance = (expected - got)[finite].abs().max() / expected[finite].abs().max().clamp(min=precision.tiny)
    if distance > precision.eps**0.5:
        return f"its outputs differ from the masked network's by {distance.item():.1e} of the largest"
    return None
