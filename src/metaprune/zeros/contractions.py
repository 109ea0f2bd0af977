"""Which parameters multiply inputs, and along which of their dimensions the inputs lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from metaprune.graph.call import named_arguments
from metaprune.graph.graph import ChannelGraph

__all__ = ["Weight", "contractions"]


@dataclass(frozen=True)
class Weight:
    """A parameter that multiplies inputs.

    Attributes:
        tensor: The parameter.
        inputs: The dimension along which its inputs lie.
        groups: Groups of outputs, each with inputs of its own, that lie along that dimension one after the other.
    """

    tensor: Tensor
    inputs: int = 1
    groups: int = 1

    def along_inputs(self, values: Tensor) -> Tensor:
        """A view of values of the weight's shape whose last dimension is the inputs of a group."""
        if self.groups > 1:
            before, after = values.shape[: self.inputs], values.shape[self.inputs + 1 :]
            return values.view(*before, self.groups, -1, *after).movedim(self.inputs + 1, -1)
        return values.movedim(self.inputs, -1)


def contractions(model: nn.Module, graph: ChannelGraph | None = None) -> tuple[dict[str, Weight], dict[str, str]]:
    """The parameters of a network that multiply inputs, and the others of two dimensions or more with the reason.

    Args:
        model: Any network.
        graph: From `mp.trace`: says it of the parameters of any module. Without it, modules of PyTorch's are known.

    Raises:
        PlanError: The graph is of another network.
    """
    if graph is not None and not graph.written_out:  # attention that was written out has tensors of its own
        graph.check(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, Weight] = {}
    reasons: dict[str, str] = {}
    for module in model.modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = names[id(parameter)]
            if parameter.dim() < 2 or name in found:
                continue
            known = _of_module(module, own, parameter)
            if isinstance(known, Weight):
                found[name] = known
                reasons.pop(name, None)
            else:
                reasons.setdefault(name, known)
    read = _of_graph(model, graph, names) if graph is not None else {}
    found |= {name: weight for name, weight in read.items() if name in reasons}
    order = [name for name in names.values() if name in found]
    return {name: found[name] for name in order}, {n: reason for n, reason in reasons.items() if n not in found}


def _of_module(module: nn.Module, own: str, parameter: Tensor) -> Weight | str:
    """What the kind of a module says of one of its parameters, or why it says nothing."""
    if isinstance(module, nn.Linear) and own == "weight":
        return Weight(parameter)
    if isinstance(module, _ConvTransposeNd) and own == "weight":
        return Weight(parameter, 0, module.groups)
    if isinstance(module, _ConvNd) and own == "weight":
        return Weight(parameter)
    if isinstance(module, nn.MultiheadAttention) and own.endswith("proj_weight"):
        return Weight(parameter)
    if isinstance(module, nn.RNNBase) and own.startswith("weight_"):
        return Weight(parameter)
    if isinstance(module, nn.Bilinear) and own == "weight":
        return Weight(parameter, 2)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "rows of an embedding are looked up, not multiplied"
    return f"how a {type(module).__name__} uses it is not known without a graph; pass graph=mp.trace(model, ...)"


def _of_graph(model: nn.Module, graph: ChannelGraph, names: Mapping[int, str]) -> dict[str, Weight]:
    """The parameters that contractions are given as they are, in any call, by what is summed over."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, Weight] = {}
    for seen in graph.inferences:
        for operator, node in zip(seen.operators, seen.nodes, strict=True):
            if not operator.macs:
                continue
            given = named_arguments(node.target, node.args, node.kwargs)
            summed = {name: over[0] for name, over in seen.reads.get(node, {}).items() if len(over) == 1}
            if "weight" in given:
                summed["weight"] = 0 if "transpose" in operator.name else 1
            for argument, dim in summed.items():
                source = given.get(argument)
                name = seen.owner.get(source) if isinstance(source, fx.Node) else None
                if name is not None and name in tensors and tensors[name].dim() >= 2:
                    groups = given.get("groups", 1) if dim == 0 else 1
                    found[names[id(tensors[name])]] = Weight(tensors[name], dim, groups)
    return found
