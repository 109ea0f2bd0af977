"""What the laws compare with: counters, zeroed and renumbered networks, fingerprints. It cuts nothing."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import named_tensors, plain_tensors
from metaprune.graph.term import channels, leaves
from metaprune.surgery.attention import written_out

__all__ = [
    "call",
    "counted_macs",
    "counted_params",
    "distance",
    "doubled",
    "fingerprint",
    "half",
    "permute",
    "ragged",
    "random_plan",
    "zeroed",
]


_ADDRESS = re.compile("0x[0-9a-f]+")


def call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The outputs of the model, computed on copies of the inputs, without gradients."""
    args, kwargs = pytree.tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, (args, kwargs))
    with torch.no_grad():
        return model(*args, **kwargs)


def distance(first: Any, second: Any) -> float:
    """Largest difference of two pytrees of tensors, relative to the largest value of each tensor of `first`.

    Raises:
        AssertionError: The trees, shapes or dtypes differ, or a value is not finite.
    """
    leaves, tree = pytree.tree_flatten(first)
    others, other_tree = pytree.tree_flatten(second)
    assert tree == other_tree
    worst = 0.0
    for a, b in zip(leaves, others, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert a.isfinite().all()
        assert b.isfinite().all()
        worst = max(worst, ((a - b).abs().max() / a.abs().max().clamp(min=1e-30)).item())
    return worst


def random_plan(graph: ChannelGraph, generator: Generator, width: Callable[[int], int]) -> mp.Plan:
    """Random channels of every free axis, as many as `width` makes of its size."""
    return mp.Plan(
        {
            name: torch.randperm(axis.size, generator=generator)[: width(axis.size)].sort().values.tolist()
            for name, axis in graph.free.items()
        }
    )


def half(graph: ChannelGraph, seed: int = 0) -> mp.Plan:
    """A random half of every free axis, rounded up."""
    return random_plan(graph, torch.Generator().manual_seed(seed), lambda size: -(-size // 2))


def ragged(graph: ChannelGraph, seed: int = 0) -> mp.Plan:
    """Between one and all channels of every free axis."""
    generator = torch.Generator().manual_seed(seed)
    return random_plan(graph, generator, lambda size: int(torch.randint(1, size + 1, (), generator=generator)))


def counted_params(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def counted_macs(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], batch: int = 2) -> int:
    """Multiply-accumulates of one example, counted by PyTorch while the model runs."""

    def trilinear(one: Sequence[int], weight: Sequence[int], two: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * one[0] * weight[-3] * weight[-2] * weight[-1]

    model = copy.deepcopy(model).requires_grad_(False)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._trilinear: trilinear})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that the counter does not know
    try:
        with counter, sdpa_kernel(SDPBackend.MATH):
            call(model, args, kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    macs, rest = divmod(counter.get_total_flops(), 2 * batch)
    assert rest == 0
    return macs


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that a model holds, to be compared by value: tensors bit for bit, modes, attributes, hooks."""
    first: dict[int, str] = {}  # tensor -> the first name it is held under, so that ties count
    result: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            if name in {"_parameters", "_buffers"}:
                for key, tensor in value.items():
                    if tensor is not None:
                        tie = first.setdefault(id(tensor), f"{path}.{key}")
                        bits = tensor.detach().flatten().tolist()
                        result[f"{path}.{key}"] = (
                            tie,
                            tensor.dtype,
                            tensor.shape,
                            tensor.requires_grad,
                            bits,
                        )
            elif name == "_modules":
                result[f"{path}:{name}"] = [(key, type(child).__qualname__) for key, child in value.items()]
            elif name.endswith("_hooks"):  # keyed by a running number
                result[f"{path}:{name}"] = [_ADDRESS.sub("", repr(hook)) for hook in value.values()]
            else:
                value = sorted(value, key=repr) if isinstance(value, set) else value
                simple = isinstance(value, int | float | str | tuple | list | dict | None)
                result[f"{path}:{name}"] = _ADDRESS.sub("", repr(value)) if simple else type(value).__qualname__
    return result


def zeroed(model: nn.Module, graph: ChannelGraph, plan: mp.Plan) -> nn.Module:
    """A copy with zeros wherever a parameter or a running mean touches a channel that goes.

    Where no statistic runs over channels, this is the function of the sliced network.
    """
    model = copy.deepcopy(written_out(model, graph.written_out))
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.endswith("running_var"):
                continue
            for position, term in enumerate(graph.tensors[name]):
                gone = torch.ones(tensor.shape[position], dtype=torch.bool)
                gone[channels(term, plan.kept)] = False
                tensor.movedim(position, 0)[gone] = 0
    return model


def permute(model: nn.Module, graph: ChannelGraph, orders: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy whose channels are renumbered: channel i of an axis is what channel orders[axis][i] was."""
    model = copy.deepcopy(written_out(model, graph.written_out))
    tensors = dict(model.named_parameters()) | dict(model.named_buffers()) | plain_tensors(model, graph.tables)
    terms = {**graph.tensors, **graph.tables}
    with torch.no_grad():
        for name, tensor in tensors.items():
            for position, term in enumerate(terms[name]):
                tensor.copy_(tensor.index_select(position, channels(term, orders)))
    return model


def doubled(model: nn.Module, graph: ChannelGraph, originals: Mapping[str, Tensor]) -> nn.Module:
    """A copy in which channel c of an axis computes what channel originals[axis][c] does, though it is read otherwise.

    All that makes or carries the channel is copied; the columns that read it are its own.
    """
    model = copy.deepcopy(written_out(model, graph.written_out))
    tensors = plain_tensors(model, graph.tables) | named_tensors(model)
    terms = {**graph.tables, **graph.tensors}
    read = {(use.tensor, use.dim, use.axis) for use in graph.uses if use.role == "reads"}
    seen: set[int] = set()
    with torch.no_grad():
        for name, tensor in tensors.items():
            for dim, term in enumerate(terms[name] if id(tensor) not in seen else ()):
                for axis, original in originals.items():
                    for positions in leaves(term, axis) if (name, dim, axis) not in read else ():
                        copies = tensor.index_select(dim, positions[original].flatten())
                        tensor.index_copy_(dim, positions.flatten(), copies)
            seen.add(id(tensor))
    return model
