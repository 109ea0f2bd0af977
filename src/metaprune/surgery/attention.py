"""PyTorch's own attention, written out: `nn.MultiheadAttention` ties heads × head size to the width of its input.

Its code refuses any other size, so neither its heads nor the network's width could be cut. Where a network has one, it
is replaced by an equivalent module of four linear layers, which is plain PyTorch (a `torch.fx.GraphModule`).
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from metaprune.graph.calling import Call
from metaprune.graph.refusal import refused
from metaprune.graph.rehearsal import ordinary, rehearsal
from metaprune.graph.tensors import clone, named_tensors

__all__ = ["Calls", "checked_calls", "observe", "written_out"]

Calls = Mapping[str, Mapping[str, Any]]
"""Path of an `nn.MultiheadAttention` -> how the network calls it."""

_MASKS = ("key_padding_mask", "attn_mask")
_FLAGS = ("need_weights", "average_attn_weights")
_KINDS = [[rank, kind] for rank in (1, 2, 3) for kind in ("bool", "float")]
_READ = {"num_heads", "embed_dim", "batch_first", "in_proj_bias", "_qkv_same_embed_dim"}
"""Attributes that the new module has, too: PyTorch's transformer layers ask for them."""


def observe(model: nn.Module, ways: Sequence[Call]) -> Calls:
    """How a network calls each of its attention modules that can be written out, found by running it in every way.

    A training forward that cannot be run says nothing. What the network's code reads more of than a module that is
    written out has stays as it is.
    """
    names: dict[int, int] = {}
    for tensor in named_tensors(model).values():
        names[id(tensor)] = names.get(id(tensor), 0) + 1
    found = {
        path: module
        for path, module in model.named_modules()
        if type(module) is nn.MultiheadAttention and path and _can_be(module, names)
    }
    if not found:
        return {}
    calls: dict[str, list[dict[str, Any]]] = {path: [] for path in found}
    ran: list[Call] = []
    path_of: dict[nn.Module, str] = {}
    signature = inspect.signature(next(iter(found.values())).forward)

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        calls[path_of[module]].append(_call(bound.arguments))

    for way in ways:
        with rehearsal(model, way.training) as actor, suppress(*[Exception] if way.training else []):
            for path in found:
                module = actor.get_submodule(path)
                path_of[module] = path
                module.register_forward_pre_hook(note, with_kwargs=True)
            if (error := _error_of(actor, way)) is not None:
                raise refused(model, error, error) from error
            ran.append(way)
    told = {path: seen[0] for path, seen in calls.items() if seen and all(call == seen[0] for call in seen) and seen[0]}
    return _that_run(model, told, ran)


def _error_of(actor: nn.Module, way: Call) -> Exception | None:
    """What a network raises in a call, without PyTorch's fast path; None where it runs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            replace(way, args=copy.deepcopy(way.args), kwargs=copy.deepcopy(dict(way.kwargs))).of(actor)
    except Exception as error:
        return error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return None


def _that_run(model: nn.Module, calls: Calls, ways: Sequence[Call]) -> Calls:
    """The calls of those modules without which the network's code runs on, written out as they are.

    Code around a module may read more of it than the new one has (`self.attention.in_proj_weight.dtype`): those that
    stand in modules of such a class stay as they are.
    """

    def runs(some: Calls) -> bool:
        for way in ways:
            with rehearsal(written_out(model, some), way.training) as actor:
                if _error_of(actor, way) is not None:
                    return False
        return True

    if not calls or runs(calls):
        return calls
    found: dict[str, Mapping[str, Any]] = {}
    for kind in dict.fromkeys(_around(model, path) for path in calls):
        more = {path: call for path, call in calls.items() if _around(model, path) is kind}
        if runs(found | more):
            found |= more
    return found


def _around(model: nn.Module, path: str) -> type:
    """The class of the module that a module stands in."""
    return type(model.get_submodule(path.rpartition(".")[0]))


def _can_be(module: nn.MultiheadAttention, names: Mapping[int, int]) -> bool:
    plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
    hooked = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    return plain and not hooked and all(names[id(parameter)] == 1 for parameter in module.parameters())


def _call(given: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how attention is written out; nothing where it is called as it cannot be."""
    if given["query"].dim() != 3:
        return {}
    kinds = {
        name: None if (mask := given[name]) is None else [mask.dim(), "bool" if mask.dtype == torch.bool else "float"]
        for name in _MASKS
    }
    return {**kinds, **{name: bool(given[name]) for name in _FLAGS}}


def checked_calls(tree: Any) -> dict[str, dict[str, Any]]:
    """How attention modules are called, read from a file that may come from elsewhere.

    Raises:
        ValueError: It says something else.
    """
    for path, call in tree.items():
        masks = [call[name] for name in _MASKS]
        if (
            call.keys() != {*_MASKS, *_FLAGS}
            or any(type(call[name]) is not bool for name in _FLAGS)
            or any(mask is not None and mask not in _KINDS for mask in masks)
        ):
            raise ValueError(f"attention {path[:80]!r} is called in a way that is not known")
    return dict(tree)


def written_out(model: nn.Module, calls: Calls) -> nn.Module:
    """The network with its attention modules written out: another module with the same tensors, or `model` itself."""
    modules = dict(model.named_modules())
    todo = [path for path in calls if type(modules.get(path)) is nn.MultiheadAttention]
    if not todo:
        return model
    result = clone(model, {id(tensor): tensor for tensor in named_tensors(model).values()})
    for path in todo:
        parent, _, name = path.rpartition(".")
        setattr(result.get_submodule(parent), name, _graph_module(modules[path], calls[path]))
    return result


class _Attention(nn.Module):
    """The computation of `nn.MultiheadAttention` as four linear layers; traced into a `GraphModule`."""

    def __init__(self, module: nn.MultiheadAttention, call: Mapping[str, Any], heads: Callable[[], Any]) -> None:
        super().__init__()
        self.call, self.heads = call, heads
        self.num_heads, self.embed_dim, self.batch_first = module.num_heads, module.embed_dim, module.batch_first
        self.in_proj_bias, self._qkv_same_embed_dim = None, False
        weights = (
            module.in_proj_weight.detach().chunk(3)
            if module._qkv_same_embed_dim
            else [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        )
        biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)
        trained = [
            (module.in_proj_weight if module._qkv_same_embed_dim else weight).requires_grad for weight in weights
        ]
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight, bias, train, module.in_proj_bias)
            for weight, bias, train in zip(weights, biases, trained, strict=True)
        )
        self.dropout = nn.Dropout(module.dropout) if module.dropout else None
        self.out_proj = nn.Linear(1, 1, bias=False, device="meta")
        self.out_proj.in_features, self.out_proj.out_features = (
            module.out_proj.in_features,
            module.out_proj.out_features,
        )
        self.out_proj.weight, self.out_proj.bias = module.out_proj.weight, module.out_proj.bias
        self.train(module.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        heads = self.heads()  # an attribute, not a literal in the code
        q, k, v = (
            layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = self.mask(q, key_padding_mask, attn_mask)
        weights = None
        if self.call["need_weights"] or self.dropout is not None:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = weights if self.dropout is None else self.dropout(weights)
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        if not self.batch_first:
            y = y.transpose(0, 1)
        if not self.call["need_weights"]:
            return y, None
        return y, weights.mean(1) if self.call["average_attn_weights"] else weights  # type: ignore[union-attr]

    def mask(self, q: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor | None:
        """Both masks as one that is added to the scores."""
        total = None
        for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
            if self.call[name] is None or mask is None:
                continue
            rank, kind = self.call[name]
            if kind == "bool":
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
            if name == "key_padding_mask":
                mask = mask[:, None, None]
            elif rank == 3:
                mask = mask.unflatten(0, (q.shape[0], -1))  # type: ignore[no-untyped-call]
            total = mask if total is None else total + mask
        return total


def _linear(weight: Tensor, bias: Tensor | None, trained: bool, whole_bias: Tensor | None) -> nn.Linear:
    """A linear layer around these tensors."""
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(ordinary(weight.detach()), trained)
    if bias is not None and whole_bias is not None:
        layer.bias = nn.Parameter(ordinary(bias), whole_bias.requires_grad)
    return layer


def _graph_module(module: nn.MultiheadAttention, call: Mapping[str, Any]) -> fx.GraphModule:
    tracer = fx.Tracer()
    plain = _Attention(module, call, heads=lambda: tracer.create_proxy("get_attr", "num_heads", (), {}))
    graph = tracer.trace(plain)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        for name in sorted(_READ - {"num_heads"}):
            graph.get_attr(name)  # a graph module keeps the attributes that its graph speaks of
        for node in inputs:
            told = call.get(node.name, "")
            if node.name in _MASKS and told is None:
                _insist(
                    graph, graph.call_function(operator.eq, (node, None)), f"{node.name} was None when it was traced"
                )
            elif node.name in _FLAGS and (node.name != "average_attn_weights" or call["need_weights"]):
                _insist(
                    graph, graph.call_function(operator.eq, (node, told)), f"{node.name} was {told} when it was traced"
                )
    for node in graph.nodes:
        node.type = None
    result = fx.GraphModule(plain, graph, class_name="MultiheadAttention")
    result.train(module.training)
    return result


def _insist(graph: fx.Graph, node: fx.Node, words: str) -> None:
    with graph.inserting_after(node):
        graph.call_function(torch._assert, (node, f"attention was written out for one way to call it: {words}"))
