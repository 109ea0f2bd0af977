"""Carry the state of an optimizer over a cut, so that training goes on where it was.

Moments and momenta have one entry for each entry of their parameter, and are cut alike. Where the cut multiplied
weights by a factor f, to make up for a scale (`rescale`), the same function has gradients that are 1/f of what they
were, because dL/d(f w) = dL/dw / f. The state is brought to what it would hold had those gradients been seen: averages
of gradients times 1/f, averages of their squares times 1/f². So Adam's step, the ratio of one to the root of the other,
stays what it was, and that of plain momentum is 1/f of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from metaprune.graph.arguments import wanted, wanted_cut
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import in_double, named_tensors
from metaprune.graph.term import Term
from metaprune.surgery.attention import written_out
from metaprune.surgery.index import index

__all__ = ["OptimizerError", "carry"]

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)

_DEGREES = {
    **dict.fromkeys(("momentum_buffer", "exp_avg", "grad_avg", "exp_inf", "prev"), -1),
    **dict.fromkeys(("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "variance"), -2),
    **dict.fromkeys(("row_var", "col_var", "exp_avg_sq_row", "exp_avg_sq_col"), -2),
    "step_size": 0,
    "ax": 1,
    "acc_delta": 2,
}
"""Name of a state -> the power of the factor on the weights that it follows: gradients -1, weights 1."""

_CLOSE = 1e-2  # of half precision; a network that was trained or cut otherwise is further away


class OptimizerError(MetapruneError):
    """An optimizer whose state cannot be carried over a cut."""


def carry(optimizer: AnyOptimizer, model: nn.Module, small: nn.Module, graph: ChannelGraph, plan: Plan) -> AnyOptimizer:
    """A new optimizer over the parameters of `small`, with the state that `optimizer` has for those of `model`.

    It has the same class, groups, settings and counts of steps. What has an entry for each entry of a parameter is cut
    as that was, and what has one for each row or column (Adafactor's) likewise; in such an average over a dimension,
    the part of the channels that went stays. Hooks and learning rate schedulers are not carried.

    Args:
        optimizer: Over some or all parameters of `model`; left untouched.
        model: The network before the cut.
        small: What `mp.slice(model, graph, plan)` returned; trained no further.
        graph: From `mp.trace`.
        plan: The plan that was cut.

    Raises:
        PlanError: The plan does not fit the graph, or the graph the model.
        OptimizerError: The optimizer holds other parameters than the model's, or a state of which it cannot be told how
            it belongs to its parameter; or `small` is not the model cut to the plan.
    """
    wanted("carry", "optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", OptimizerError)
    wanted("carry", "cut network", small, nn.Module, "mp.slice(model, graph, plan) returns it", OptimizerError)
    wanted_cut("carry", model, graph, plan)
    plain = written_out(model, graph.written_out)
    graph.check(plain)
    plan.check(graph)
    names: dict[int, str] = {}
    for name, tensor in named_tensors(plain).items():
        names.setdefault(id(tensor), name)
    expected = {name: index(tensor.detach(), graph.tensors[name], plan.kept) for name, tensor in _once(plain).items()}
    found = _once(small)
    factors = _factors(expected, found, type(small).__name__)
    memo: dict[int, Any] = {}
    for place, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            if id(parameter) not in names:
                raise _stranger(optimizer, place, parameter, model)
            name = names[id(parameter)]
            memo[id(parameter)] = found[name]
            held = optimizer.state.get(parameter, {})
            for key, value in held.items():
                if isinstance(value, Tensor):
                    layout = _layout(key, tuple(value.shape), tuple(parameter.shape), graph.tensors[name])
                    if layout is None:
                        raise _refusal(optimizer, name, key, f"{tuple(value.shape)} for {tuple(parameter.shape)}")
                    cut = index(value, layout, plan.kept)
                    if value.numel() > 1 and name in factors:
                        if key not in _DEGREES:
                            raise _refusal(optimizer, name, key, "unknown, and the cut multiplied its parameter")
                        preconditioned = key == "momentum_buffer" and "square_avg" in held  # RMSprop's, of steps
                        dim, factor = factors[name]
                        cut = _scaled(cut, dim, factor ** (0 if preconditioned else _DEGREES[key]), layout)
                    memo[id(value)] = cut.clone() if cut is value else cut
                elif any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                    raise _refusal(optimizer, name, key, f"a {type(value).__name__} of tensors")
    carried = copy.deepcopy(optimizer, memo)
    for key, value in vars(optimizer).items():  # copying an optimizer leaves out what a subclass adds
        if key not in vars(carried) and not callable(value):
            setattr(carried, key, copy.deepcopy(value, memo))
    return carried


def _once(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def _factors(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], network: str
) -> dict[str, tuple[int, Tensor]]:
    """For each parameter that the cut multiplied a dimension, of rows mostly, and the factor of each of its entries.

    Factors are float64 of shape (rows,).

    A row of zeros says nothing: it has the factor of the same row of the other parameters of its module.

    Raises:
        OptimizerError: A parameter is not what was there before the cut, nor a multiple of it.
    """
    if wrong := [name for name, tensor in expected.items() if name not in found or found[name].shape != tensor.shape]:
        name = wrong[0]
        raise OptimizerError(
            f"carry: {name} is {tuple(found[name].shape) if name in found else 'missing'} in the cut {network} and "
            f"{tuple(expected[name].shape)} by the plan; give the plan that was cut, without the axes left whole"
        )
    factors: dict[str, tuple[int, Tensor]] = {}
    modules: dict[tuple[str, int], Tensor] = {}
    for name, tensor in expected.items():
        if torch.equal(tensor, found[name]):
            continue
        multiple = _multiple(in_double(tensor), in_double(found[name]))
        if multiple is None:
            raise OptimizerError(
                f"carry: {name} of the cut {network} is not what was cut out of the network; "
                "carry the optimizer before either of them is trained on"
            )
        factors[name] = multiple
        factor = multiple[1]
        module = (name.rpartition(".")[0], len(factor))
        modules[module] = torch.where(modules.get(module, factor).isnan(), factor, modules.get(module, factor))
    for name, tensor in expected.items():
        dim, known = factors.get(name, (0, None))
        module = (name.rpartition(".")[0], tensor.shape[dim] if tensor.ndim else 0)
        if module in modules and tensor.ndim:
            silent = in_double(tensor).movedim(dim, 0).reshape(tensor.shape[dim], -1).norm(dim=1) == 0
            plain = torch.ones_like(modules[module]) if known is None else known
            factors[name] = dim, torch.where(silent, modules[module], plain).nan_to_num(1)
    return factors


def _multiple(before: Tensor, after: Tensor) -> tuple[int, Tensor] | None:
    """The first dimension along whose entries a tensor was multiplied, and by what; None where there is none.

    Entries of zeros have the factor NaN.
    """
    for dim in range(max(before.ndim, 1)):
        rows, scaled = (
            (tensor.movedim(dim, 0) if tensor.ndim else tensor).reshape(before.shape[dim] if before.ndim else 1, -1)
            for tensor in (before, after)
        )
        one, other = rows.norm(dim=1), scaled.norm(dim=1)
        factor = torch.where(one > 0, other / one, torch.nan)
        if ((scaled - rows * factor.nan_to_num(1)[:, None]).norm(dim=1) <= _CLOSE * other).all():
            return dim, factor
    return None


def _layout(
    key: str, state: tuple[int, ...], parameter: tuple[int, ...], terms: Sequence[Term]
) -> tuple[Term | None, ...] | None:
    """What each dimension of a state is made of, given those of its parameter; None where that cannot be told."""
    if math.prod(state) == 1:
        return (None,) * len(state)
    if len(state) == len(parameter):
        fits = all(one in (1, other) for one, other in zip(state, parameter, strict=True))
        return tuple(t if s > 1 else None for s, t in zip(state, terms, strict=True)) if fits else None
    missing = [d for d in range(len(parameter)) if state == (*parameter[:d], *parameter[d + 1 :])]
    if len(missing) > 1:  # a square matrix: the names tell rows from columns
        wanted = len(parameter) - (1 if "row" in key else 2)
        missing = [d for d in missing if d == wanted] if "row" in key or "col" in key else []
    return (*terms[: missing[0]], *terms[missing[0] + 1 :]) if missing else None


def _scaled(state: Tensor, dim: int, factor: Tensor, layout: Sequence[Term | None]) -> Tensor:
    """A state whose entries along a dimension follow a factor each; an average over them follows the average factor."""
    each = state.ndim > dim and layout[dim] is not None and state.shape[dim] == len(factor)
    scale = factor.reshape([-1 if place == dim else 1 for place in range(state.ndim)]) if each else factor.mean()
    return state * scale.to(state)


def _stranger(optimizer: Optimizer, place: int, parameter: Tensor, model: nn.Module) -> OptimizerError:
    owned = [name for name, tensor in model.named_parameters() if tensor is parameter]
    what = (
        f"{owned[0]}, which the cut network holds as several parameters"
        if owned
        else f"a parameter of shape {tuple(parameter.shape)} that is not of this {type(model).__name__}"
    )
    todo = "start a new optimizer" if owned else "give the optimizer that trains the network that was cut"
    return OptimizerError(f"carry: group {place} of the {type(optimizer).__name__} holds {what}; {todo}")


def _refusal(optimizer: Optimizer, name: str, key: str, what: str) -> OptimizerError:
    return OptimizerError(
        f"carry: how the state {key!r} of {name} in {type(optimizer).__name__} follows a cut cannot be told ({what}); "
        "start a new optimizer"
    )
