"""Fold a changed scale into the weights that produce what it multiplies.

Attention divides by the root of the head size; where the head size is cut, the default divisor changes, and with it the
function. The producer of the queries is rescaled, so that the cut network computes what the masked one does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from metaprune.graph.infer import Inference

__all__ = ["rescale"]

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
    ),
}
"""Operators that scale with their first operand."""

_ALL = {"aten.add", "aten.sub", "aten.cat", "aten.stack"}
"""Operators that scale where all their operands do."""


def rescale(
    model: nn.Module, inference: Inference, node: fx.Node, argument: int, factor: float
) -> str | None:
    """Multiply what reaches `node` as its argument by `factor`, in the weights of `model`, in place.

    Returns:
        Why it cannot be done, in words, or None where it was.
    """
    source = node.args[argument]
    if not isinstance(source, fx.Node):
        return "a scale that depends on a size multiplies no tensor"
    region: list[fx.Node] = []
    producers: list[fx.Node] = []
    if (problem := _collect(source, region, producers, inference)) is not None:
        return problem
    if [*node.args].count(source) != 1 or _leaks([*region, *producers], region, node):
        return "the weights that must make up for a scale are read elsewhere too"
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for producer, rows in _rows_that_reach(source, region, producers).items():
        named = [inference.owner[arg] for arg in _affine(producer, inference)]
        for name in named:
            tensor = tensors[name]
            with torch.no_grad():
                scale = torch.ones(len(rows), dtype=torch.float64).masked_fill(rows, factor).to(tensor)
                tensor.mul_(scale.reshape(-1, *[1] * (tensor.ndim - 1)))
    return None


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).rstrip("_")


def _affine(producer: fx.Node, inference: Inference) -> list[fx.Node]:
    """The weight and bias of a producer (of a norm with statistics, those come after)."""
    rest = producer.args[2:4] if _name(producer) in {"aten.layer_norm"} else producer.args[1:3]
    if _name(producer) == "aten.rms_norm":
        rest = producer.args[2:3]
    return [arg for arg in rest if isinstance(arg, fx.Node) and arg in inference.owner]


def _collect(
    node: fx.Node, region: list[fx.Node], producers: list[fx.Node], inference: Inference
) -> str | None:
    """Walk back over operators that scale with their operand, down to weights."""
    if node in region or node in producers:
        return None
    name = _name(node)
    if node.op != "call_function":
        return f"the scale at {name} reaches an input"
    if name in _PRODUCERS:
        affine = _affine(node, inference)
        if not affine or any(len(tensor.users) > 1 for tensor in affine):
            return f"the weights of {node.name}, which must make up for a scale, are shared or missing"
        producers.append(node)
        return None
    region.append(node)
    if name in _ALL:
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


def _leaks(path: list[fx.Node], region: list[fx.Node], node: fx.Node) -> bool:
    """Whether anything on the path is read by others than the path itself; pieces taken from it are not the path."""
    pieces = {"aten.select", "aten.slice", "aten.unbind", "aten.chunk", "aten.split", "aten.split_with_sizes"}
    return any(
        user not in region and user is not node and _name(user) not in pieces and "getitem" not in _name(user)
        for step in path
        for user in step.users
    )


def _rows_that_reach(
    source: fx.Node, region: list[fx.Node], producers: list[fx.Node]
) -> dict[fx.Node, Tensor]:
    """For each producer, which of its channels reach `source`: those with a gradient on random data."""
    generator = torch.Generator().manual_seed(0)
    values: dict[fx.Node, Any] = {}

    def value(node: fx.Node) -> Any:
        if node not in values:
            if node in region:
                arguments, keywords = fx.node.map_arg((node.args, node.kwargs), value)
                values[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
            else:
                random = torch.rand(node.meta["val"].shape, generator=generator, dtype=torch.float64) + 0.5
                values[node] = random.requires_grad_(node in producers)
        return values[node]

    value(source).sum().backward()
    rows = {}
    for producer in producers:
        gradient = values[producer].grad
        channel = _PRODUCERS[_name(producer)] % gradient.ndim
        rows[producer] = gradient.movedim(channel, 0).flatten(1).abs().sum(1) > 0
    return rows
