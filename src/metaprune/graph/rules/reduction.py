"""Reductions drop a dimension, or normalise over it: over the living channels, in the mask and in the cut alike."""

from __future__ import annotations

import operator

from torch import fx

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.rules.elementwise import broadcast
from metaprune.graph.unify import UNIT, measure

__all__ = []


def _dims(call: Call, rank: int) -> tuple[int, ...]:
    given = call.get("dim")
    if given is None or given == []:
        return tuple(range(rank))
    return tuple(int(dim) % rank for dim in (given if isinstance(given, list | tuple) else [given]))


@rule(
    *(
        "aten.mean",
        "aten.sum",
        "aten.amax",
        "aten.amin",
        "aten.var",
        "aten.std",
        "aten.logsumexp",
        "aten.prod",
    ),
    *("aten.linalg_vector_norm", "aten.norm", "aten.all", "aten.any", "aten.nansum", "aten.nanmean"),
    *("aten.var_mean", "aten.std_mean", "aten.aminmax", "aten.count_nonzero", "aten.frobenius_norm"),
)
def reduce(call: Call) -> object:
    """Tensors without the reduced dimensions (or with 1 in their place): one, or two as of `var_mean`."""
    argument = "self" if "self" in call.arguments else "x"
    dims = call.tensor(argument)
    over = _dims(call, len(dims))
    call.reads[argument] = over
    return _each(call, _left(call, dims, over))


def _left(call: Call, dims: Dims, over: tuple[int, ...]) -> Dims:
    if call.get("keepdim", False):
        return tuple(UNIT if i in over else dim for i, dim in enumerate(dims))
    return tuple(dim for i, dim in enumerate(dims) if i not in over)


def _each(call: Call, result: Dims) -> object:
    """The dimensions of every output, which are alike."""
    values = call.node.meta["val"]
    return [result] * len(values) if isinstance(values, list | tuple) else result


@rule("aten.linalg_norm", "aten.linalg_matrix_norm")
def matrix_norm(call: Call) -> object:
    """Of a vector, or of entries one by one, as other norms; of a matrix as such, it is not understood."""
    given = call.get("ord")
    if call.name == "aten.linalg_norm" and (given is None or len(call.get("dim") or ()) == 1):
        return reduce(call)
    return reduce(call) if given == "fro" else call.unknown(f"{call.name} of order {given} is not understood")


@rule(
    *("aten.mse_loss", "aten.l1_loss", "aten.huber_loss", "aten.smooth_l1_loss", "aten.kl_div"),
    *("aten.binary_cross_entropy", "aten.binary_cross_entropy_with_logits"),
)
def loss(call: Call) -> Dims:
    """Entry by entry, then (unless reduction is 0) a mean or sum over all."""
    names = [name for name in ("self", "target", "weight", "pos_weight") if isinstance(call.get(name), fx.Node)]
    operands = [call.tensor(name) for name in names]
    dims = broadcast(operands)
    if not call.get("reduction", 1):
        return dims
    call.reads |= {name: tuple(range(len(given))) for name, given in zip(names, operands, strict=True)}
    return ()


@rule("aten.dist")
def distance(call: Call) -> Dims:
    """|self - other|, over all entries."""
    operands = call.tensor("self"), call.tensor("other")
    broadcast(operands)
    call.reads |= {name: tuple(range(len(given))) for name, given in zip(("self", "other"), operands, strict=True)}
    return ()


@rule("aten.pairwise_distance")
def pairwise_distance(call: Call) -> Dims:
    """|x1 - x2| over the last dimension."""
    operands = call.tensor("x1"), call.tensor("x2")
    dims = broadcast(operands)
    call.reads |= {name: (len(given) - 1,) for name, given in zip(("x1", "x2"), operands, strict=True)}
    return (*dims[:-1], UNIT) if call.get("keepdim", False) else dims[:-1]


@rule("aten.cosine_similarity")
def cosine_similarity(call: Call) -> Dims:
    """x1 · x2 / (|x1| |x2|) over a dimension."""
    dims = list(broadcast([call.tensor("x1"), call.tensor("x2")]))
    dim = call.dim("dim", len(dims), 1)
    for argument in ("x1", "x2"):
        call.reads[argument] = (dim - len(dims) + len(call.tensor(argument)),)
    return (*dims[:dim], *dims[dim + 1 :])


@rule("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax", "aten.softmin")
def softmax(call: Call) -> Dims:
    """Normalised over a dimension that stays."""
    dims = call.tensor("self")
    call.reads["self"] = (call.dim("dim", len(dims)),)
    return dims


@rule("aten.max", "aten.min", "aten.argmax", "aten.argmin", "aten.median", "aten.kthvalue", "aten.mode")
def extreme(call: Call) -> object:
    """Reductions whose result may be positions: then what they run over is fixed. Of two tensors: elementwise."""
    if call.get("other") is not None:
        return broadcast(call.operands())
    dims = call.tensor("self")
    over = _dims(call, len(dims)) if "dim" in call.arguments else tuple(range(len(dims)))
    if call.name in {"aten.max", "aten.min"} and not _positions_are_used(call):
        call.reads["self"] = over
    else:
        for dim in over:
            call.fix(dims[dim], f"{call.name} runs over it")
    return _each(call, _left(call, dims, over))


def _positions_are_used(call: Call) -> bool:
    """Whether anybody takes the second of its two outputs."""
    if not isinstance(call.node.meta["val"], list | tuple):
        return False
    return any(user.target is not operator.getitem or (user.args[1] and user.users) for user in call.node.users)


_ORDERED = {"aten.triu": [-2, -1], "aten.tril": [-2, -1], "aten.fliplr": [1], "aten.flipud": [0]}
"""Operators whose dimensions are not an argument."""


@rule(
    "aten.cumsum",
    "aten.cumprod",
    "aten.cummax",
    "aten.cummin",
    "aten.logcumsumexp",
    "aten.fliplr",
    "aten.flipud",
    "aten.sort",
    "aten.argsort",
    "aten.flip",
    "aten.roll",
    "aten.triu",
    "aten.tril",
)
def ordered(call: Call) -> object:
    """Operators to which the order of a dimension matters: it is fixed, the others pass on."""
    dims = call.operands()[0]
    given = call.get("dims", call.get("dim", _ORDERED.get(call.name, -1)))
    over = (
        given
        if isinstance(given, list | tuple) and given
        else ([given] if isinstance(given, int) else range(len(dims)))
    )
    for dim in over:
        call.fix(dims[dim], f"{call.name} depends on the order of its entries")
    return _each(call, dims)


_FOURIER = [
    f"aten.fft_{kind}{rank}" for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for rank in ("", "2", "n")
]


@rule(*_FOURIER)
def fourier(call: Call) -> Dims:
    """A Fourier transform mixes the entries of its dimensions by their order; the others pass on."""
    dims = call.tensor("self")
    default = list(range(len(dims))) if call.name.endswith("n") else [-2, -1] if call.name.endswith("2") else [-1]
    given = call.get("dim", default)
    over = {int(dim) % len(dims) for dim in (given if isinstance(given, list | tuple) else [given])}
    for dim in over:
        call.fix(dims[dim], "a Fourier transform mixes its entries")
    reason = f"{call.where}: it counts frequencies"
    return tuple(constants([size], reason)[0] if i in over else dims[i] for i, size in enumerate(call.shape))


@rule("aten.cross", "aten.linalg_cross")
def cross(call: Call) -> Dims:
    """Vectors of three entries, each of which has its place."""
    dims = broadcast([call.tensor("self"), call.tensor("other")])
    for dim in dims:
        if measure(dim) == 3:
            call.fix(dim, "its three entries are coordinates")
    return dims


@rule("aten.topk")
def topk(call: Call) -> list[Dims]:
    """The largest entries and their positions: what they are chosen from is fixed."""
    dims = call.tensor("self")
    dim = call.dim("dim", max(len(dims), 1), -1)
    if not dims:
        return [dims] * 2
    call.fix(dims[dim], "aten.topk chooses from it")
    [chosen] = constants([call["k"]], f"{call.where}: it counts the entries chosen")
    return [(*dims[:dim], chosen, *dims[dim + 1 :])] * 2


@rule("aten._weight_norm")
def weight_norm(call: Call) -> Dims:
    """g v / |v|, the norm over all dimensions of v but one (over all for dim = -1)."""
    dims = call.tensor("v")
    kept = int(call.get("dim", 0))
    call.reads["v"] = tuple(place for place in range(len(dims)) if place != kept)
    call.normalised.extend(dims)
    return broadcast([dims, call.tensor("g")])
