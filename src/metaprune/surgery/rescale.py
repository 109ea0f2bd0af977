"""Fold a changed scale into the weights that produce what it multiplies.

Attention divides by the root of the head size; where the head size is cut, the default divisor changes, and with it the
function. The producer of the queries is rescaled, so that the cut network computes what the masked one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from metaprune.graph.infer import Inference
from metaprune.graph.tensors import named_tensors

__all__ = ["Way", "factors", "rescale", "way_to_weights"]

_PRODUCERS = {
    "aten.linear": -1,
    "aten.conv1d": 1,
    "aten.conv2d": 1,
    "aten.conv3d": 1,
    "aten.layer_norm": -1,
    "aten.rms_norm": -1,
    "aten.batch_norm": 1,
}
"""Operators with a weight (and bias) per channel -> the channel dimension of their output."""

_FIRST = {
    *(
        "aten.view",
        "aten.reshape",
        "aten.permute",
        "aten.transpose",
        "aten.unflatten",
        "aten.flatten",
        "aten.t",
    ),
    *(
        "aten.contiguous",
        "aten.clone",
        "aten.to",
        "aten.type_as",
        "aten.dropout",
        "aten.neg",
        "aten.unbind",
        "aten.chunk",
        "aten.split",
    ),
    *(
        "aten.split_with_sizes",
        "aten.select",
        "aten.slice",
        "aten.expand",
        "aten.repeat_interleave",
        "aten.squeeze",
    ),
    *(
        "aten.unsqueeze",
        "aten.mul",
        "aten.div",
        "aten.matmul",
        "aten.bmm",
        "aten._unsafe_view",
        "aten.swapaxes",
        "aten.einsum",
    ),
    *("aten.alias", "aten.detach", "aten.repeat", "aten.movedim", "aten.mT", "aten.narrow", "aten.roll", "aten.flip"),
    *("aten.view_as", "aten.reshape_as", "aten.broadcast_to", "aten.view_as_complex", "aten.view_as_real"),
}
"""Operators that scale with their first operand."""

_ALL = {"aten.add", "aten.sub", "aten.cat", "aten.stack"}
"""Operators that scale where all their operands do."""


@dataclass(frozen=True)
class Way:
    """How a tensor comes from weights that could make up for a scale of it.

    Attributes:
        path: All nodes on the way, producers included.
        producers: The nodes that have the weights, or are one, where weights are computed from parameters.
        beside: Nodes that take pieces from the way and lead elsewhere.
    """

    path: set[fx.Node]
    producers: list[fx.Node]
    beside: list[fx.Node]


def way_to_weights(inference: Inference, node: fx.Node, argument: int) -> Way | str:
    """The way back from an argument of `node` to weights, or in words why there is none."""
    source = node.args[argument]
    if not isinstance(source, fx.Node):
        return "a scale that depends on a size multiplies no tensor"
    region: list[fx.Node] = []
    producers: list[fx.Node] = []
    if (problem := _collect(source, region, producers, inference)) is not None:
        return problem
    path = {*region, *producers}
    if [*node.args].count(source) != 1 or any(not _once(step, path) for step in region):
        return "what must make up for a scale enters the product more than once"
    beside = [user for step in path for user in step.users if user not in path and user is not node]
    if any(not _is_piece(user) for user in beside):
        return "the weights that must make up for a scale are read elsewhere too"
    return Way(path, producers, beside)


def factors(inference: Inference, node: fx.Node, argument: int, factor: float) -> dict[str, Tensor] | str:
    """What the weights must be multiplied by so that what reaches `node` as its argument is multiplied by `factor`.

    Where that argument is the scale itself, a tensor of one entry, the other is meant.

    Returns:
        Name of a tensor -> factors for its entries, which broadcast to it, float64; or why it cannot be done, in words.
    """
    entries = [arg.meta["val"].numel() if isinstance(arg, fx.Node) else 0 for arg in node.args]
    if entries[argument] == 1 and max(entries) > 1:
        argument = entries.index(max(entries))
    way = way_to_weights(inference, node, argument)
    if isinstance(way, str):
        return way
    rows = _Rows(way.path, way.producers, inference.owner)
    scaled = rows.reaching(node.args[argument])  # type: ignore[arg-type]
    if any((scaled[p] & other).any() for user in way.beside for p, other in rows.reaching(user).items()):
        return "the weights that must make up for a scale are read elsewhere too"
    found: dict[str, Tensor] = {}
    for producer, channels in scaled.items():
        for arg in _affine(producer, inference):
            shape = channels.shape if arg is producer else (-1, *[1] * (arg.meta["val"].ndim - 1))
            scale = torch.ones(channels.shape, dtype=torch.float64).masked_fill(channels, factor)
            found[inference.owner[arg]] = scale.reshape(shape)
    return found


@torch.no_grad()
def rescale(model: nn.Module, inferences: Sequence[Inference], wanted: Sequence[Mapping[str, Tensor]]) -> str | None:
    """Multiply weights of `model`, in place, by what each of its calls wants; all that read them must want the same.

    Args:
        model: The cut network.
        inferences: Its passes.
        wanted: For each of them, name of a tensor -> factors for its entries, which broadcast to it.

    Returns:
        Why it cannot be done, in words, or None where it was.
    """
    tensors = named_tensors(model)
    agreed: dict[int, tuple[str, Tensor]] = {}
    for one in wanted:
        agreed |= {id(tensors[name]): (name, scale) for name, scale in one.items()}
    for inference, one in zip(inferences, wanted, strict=True):
        here = {id(tensors[name]): scale for name, scale in one.items()}
        read = {id(tensors[name]) for node, name in inference.owner.items() if node.users}
        for key in read & agreed.keys():
            if key not in here or not torch.equal(here[key], agreed[key][1]):
                return f"{agreed[key][0]}, which must make up for a scale, is read otherwise in another call"
    for name, scale in agreed.values():
        tensor = tensors[name]
        tensor.mul_(scale.to(tensor))
    return None


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).rstrip("_")


def _affine(producer: fx.Node, inference: Inference) -> list[fx.Node]:
    """The weight and bias of a producer (of a norm with statistics, those come after), or itself."""
    if producer in inference.owner:
        return [producer]
    return [arg for arg in _weights(producer) if arg in inference.owner]


def _weights(producer: fx.Node) -> list[fx.Node]:
    rest = producer.args[2:4] if _name(producer) in {"aten.layer_norm"} else producer.args[1:3]
    if _name(producer) == "aten.rms_norm":
        rest = producer.args[2:3]
    return [arg for arg in rest if isinstance(arg, fx.Node)]


def _collect(node: fx.Node, region: list[fx.Node], producers: list[fx.Node], inference: Inference) -> str | None:
    """Walk back over operators that scale with their operand, down to weights."""
    if node in region or node in producers:
        return None
    name = _name(node)
    if node in inference.owner:
        producers.append(node)
        return None
    if node.op != "call_function":
        return f"the scale at {name} reaches an input"
    if name in _PRODUCERS:
        weights = _weights(node)
        if not weights or any(len(tensor.users) > 1 for tensor in weights if tensor in inference.owner):
            return f"the weights of {node.name}, which must make up for a scale, are shared or missing"
        if all(tensor in inference.owner for tensor in weights):
            producers.append(node)
            return None
    region.append(node)
    if name in _PRODUCERS:
        operands = weights
    elif name in {"aten.addmm", "aten.baddbmm"}:
        operands = [arg for arg in (node.args[0], node.args[2]) if isinstance(arg, fx.Node)]
    elif name in {"aten.matmul", "aten.mm", "aten.bmm"} and node.args[1] in inference.owner:
        operands = [node.args[1]]  # type: ignore[list-item]
    elif name in _ALL:
        operands = node.all_input_nodes if len(node.all_input_nodes) > 1 else []
        if not operands:
            return f"a constant is added at {node.name} before the scale"
    elif name in _FIRST or "getitem" in name:
        operands = node.all_input_nodes[:1]
    else:
        return f"{name} stands between a scale and the weights that could make up for it"
    for operand in operands:
        if (problem := _collect(operand, region, producers, inference)) is not None:
            return problem
    return None


def _once(step: fx.Node, path: set[fx.Node]) -> bool:
    """Whether what comes along the path enters a product on one side only."""
    given = step.all_input_nodes if _name(step) == "aten.einsum" else step.args
    operands = [arg for arg in given if isinstance(arg, fx.Node) and arg in path]
    if _name(step) == "aten.einsum" and list(step.args[1]).count(operands[0] if operands else None) > 1:  # type: ignore[arg-type]
        return False
    between = 1 if _name(step) in {"aten.addmm", "aten.baddbmm"} else 0
    both = _name(step) in {*_PRODUCERS, "aten.addmm", "aten.baddbmm"} and step.args[between] not in path
    return _name(step) in _ALL or both or len(operands) <= 1


def _is_piece(node: fx.Node) -> bool:
    """Whether the node only takes entries out of what it is given."""
    taking = {"aten.select", "aten.slice", "aten.unbind", "aten.chunk", "aten.split", "aten.split_with_sizes"}
    return _name(node) in taking or "getitem" in _name(node)


class _Rows:
    """Which channels of the producers reach a node: those with a gradient on random data."""

    def __init__(self, path: set[fx.Node], producers: list[fx.Node], owner: Mapping[fx.Node, str]) -> None:
        self.path = path
        self.producers = producers
        self.owner = owner
        self.generator = torch.Generator().manual_seed(0)
        self.values: dict[fx.Node, Any] = {}

    @torch.inference_mode(False)
    @torch.enable_grad()
    def reaching(self, node: fx.Node) -> dict[fx.Node, Tensor]:
        """For each producer a mask over its channels, shape (channels,); for a parameter over all its entries."""
        value = self.value(node, run=True)
        total = sum((part.sum() for part in value), torch.zeros(())) if isinstance(value, list | tuple) else value.sum()
        starts = [self.values.get(producer) for producer in self.producers]
        known = [start for start in starts if start is not None]
        gradients = iter(torch.autograd.grad(total, known, retain_graph=True, allow_unused=True))
        rows = {}
        for producer, start in zip(self.producers, starts, strict=True):
            gradient = next(gradients) if start is not None else None
            shape = producer.meta["val"].shape
            if producer not in self.owner:
                channel = _PRODUCERS[_name(producer)] % len(shape)
                gradient = None if gradient is None else gradient.movedim(channel, 0).flatten(1).abs().sum(1)
                shape = shape[channel : channel + 1]
            rows[producer] = torch.zeros(shape, dtype=torch.bool) if gradient is None else gradient.abs() > 0
        return rows

    def value(self, node: fx.Node, run: bool = False) -> Any:
        """Along the path operators are run; what comes from elsewhere is random."""
        if node not in self.values:
            if (run or node in self.path) and node not in self.producers:
                arguments, keywords = fx.node.map_arg((node.args, node.kwargs), self.value)
                self.values[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
            else:
                shape = node.meta["val"].shape
                random = torch.rand(shape, generator=self.generator, dtype=torch.float64) + 0.5
                self.values[node] = random.requires_grad_(node in self.producers)
        return self.values[node]
