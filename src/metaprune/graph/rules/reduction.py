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
    *("aten.binary_cross_entropy", "aten.binary_cross_entropy_with_logits", "aten.soft_margin_loss"),
    *("aten.hinge_embedding_loss", "aten.poisson_nll_loss"),
)
def loss(call: Call) -> Dims:
    """Entry by entry, then (unless reduction is 0) a mean or sum over all."""
    known = ("self", "input", "target", "weight", "pos_weight")
    names = [name for name in known if isinstance(call.get(name), fx.Node)]
    operands = [call.tensor(name) for name in names]
    dims = broadcast(operands)
    if not call.get("reduction", 1):
        return dims
    call.reads |= {name: tuple(range(len(given))) for name, given in zip(names, operands, strict=True)}
    return ()


@rule("aten.cross_entropy_loss", "aten.nll_loss", "aten.nll_loss_nd", "aten.nll_loss2d")
def loss_of_classes(call: Call) -> Dims:
    """Targets name classes by their position (dimension 1, or the only one); then a mean or sum over all."""
    dims, target = call.tensor("self"), call.tensor("target")
    place = min(1, len(dims) - 1)
    call.fix(dims[place], "targets name its entries by position")
    others = (*dims[:place], *dims[place + 1 :])
    broadcast([dims if len(target) == len(dims) else others, target])
    if not call.get("reduction", 1):
        return others
    call.reads["self"] = tuple(range(len(dims)))
    call.reads["target"] = tuple(range(len(target)))
    return ()


@rule("aten.triplet_margin_loss", "aten.cosine_embedding_loss", "aten.margin_ranking_loss")
def loss_of_several(call: Call) -> object:
    """Distances over the last dimension (of rankings: entry by entry), then a mean or sum over all."""
    names = [name for name in call.arguments if isinstance(call.get(name), fx.Node) and name != "target"]
    operands = [call.tensor(name) for name in names]
    dims = broadcast(operands)
    over = call.name != "aten.margin_ranking_loss"
    left = dims[:-1] if over else dims
    target = call.optional("target")
    if target is not None:
        broadcast([left, target])
    if not call.get("reduction", 1):
        if over:
            call.reads |= {name: (len(given) - 1,) for name, given in zip(names, operands, strict=True)}
        return left
    call.reads |= {name: tuple(range(len(given))) for name, given in zip(names, operands, strict=True)}
    if target is not None:
        call.reads["target"] = tuple(range(len(target)))
    return ()


@rule("aten.quantile", "aten.nanquantile")
def quantile(call: Call) -> Dims:
    """As `reduce`; for several quantiles, a dimension that counts them comes first."""
    dims = call.tensor("self")
    over = _dims(call, len(dims))
    call.reads["self"] = over
    left = _left(call, dims, over)
    several = call.optional("q") if isinstance(call.get("q"), fx.Node) else None
    return (*several, *left) if several else left


@rule("aten.renorm")
def renorm(call: Call) -> Dims:
    """Each slice along a dimension is scaled down to a largest norm, which runs over the others."""
    dims = call.tensor("self")
    kept = call.dim("dim", len(dims))
    call.reads["self"] = tuple(place for place in range(len(dims)) if place != kept)
    return dims


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


@rule(
    *("aten.max", "aten.min", "aten.argmax", "aten.argmin", "aten.median", "aten.nanmedian", "aten.kthvalue"),
    "aten.mode",
)
def extreme(call: Call) -> object:
    """Reductions whose result may be positions: then what they run over is fixed. Of two tensors: elementwise."""
    if call.get("other") is not None:
        return broadcast(call.operands())
    dims = call.tensor("self")
    over = _dims(call, len(dims)) if "dim" in call.arguments else tuple(range(len(dims)))
    alike = {"aten.max", "aten.min", "aten.median", "aten.nanmedian", "aten.mode"}
    if call.name in alike and not _positions_are_used(call):
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


@rule("aten.diff", "aten.rot90", "aten.fft_fftshift", "aten.fft_ifftshift", "aten.trapezoid", "aten.trapz")
@rule("aten.cumulative_trapezoid", "aten.gradient")
def neighbours(call: Call) -> object:
    """Operators that compare or move neighbours: the order of their dimensions counts, and they may change size."""
    node = call.get("self", call.get("y"))
    dims = call.of(node)
    given = call.get("dims", call.get("dim", _EDGES.get(call.name)))
    over = {
        int(dim) % len(dims)
        for dim in (range(len(dims)) if given is None else given if isinstance(given, list | tuple) else [given])
    }
    for other in call.operands():  # what it is measured by, or put before and behind
        for place, dim in enumerate(reversed(other)):
            if other is not dims or len(dims) - 1 - place in over:
                call.fix(dim, f"{call.name} depends on the order of its entries")
    if call.name == "aten.trapezoid" or call.name == "aten.trapz":
        return tuple(dim for place, dim in enumerate(dims) if place not in over)
    reason = f"{call.where}: {call.name} depends on the order of its entries"
    values = call.node.meta["val"]
    several = values if isinstance(values, list | tuple) else [values]
    laid = [
        tuple(constants([value.shape[i]], reason)[0] if i in over else dims[i] for i in range(len(dims)))
        for value in several
    ]
    return laid if several is values else laid[0]


_EDGES = {
    "aten.rot90": [0, 1],
    "aten.diff": -1,
    "aten.trapezoid": -1,
    "aten.trapz": -1,
    "aten.cumulative_trapezoid": -1,
}
"""The dimensions of those that have a usual one; others run over all."""

_WHOLE = [
    *(
        "inv",
        "inv_ex",
        "pinv",
        "cholesky",
        "cholesky_ex",
        "det",
        "slogdet",
        "matrix_exp",
        "matrix_power",
        "matrix_rank",
    ),
    *("qr", "svd", "svdvals", "eigh", "eigvalsh", "eig", "eigvals", "cond", "lu", "lu_factor", "householder_product"),
]


@rule(*(f"aten.linalg_{name}" for name in _WHOLE), "aten.inverse", "aten.det", "aten.logdet", "aten.slogdet")
@rule("aten.cholesky", "aten.svd", "aten.qr", "aten.pinverse", "aten.matrix_exp", "aten.matrix_power")
def of_a_matrix(call: Call) -> object:
    """What hangs on a matrix as a whole: its rows and columns are fixed, the dimensions before them pass on."""
    dims = call.operands()[0]
    *lead, rows, columns = dims
    for dim in (rows, columns):
        call.fix(dim, f"{call.name} takes the matrix as a whole")
    reason = f"{call.where}: {call.name} takes the matrix as a whole"
    values = call.node.meta["val"]
    several = values if isinstance(values, list | tuple) else [values]
    laid = [(*lead, *constants(value.shape[len(lead) :], reason)) for value in several]
    return laid if several is values else laid[0]


@rule("aten.linalg_solve", "aten.linalg_solve_triangular", "aten.cholesky_solve", "aten.triangular_solve")
def solved(call: Call) -> object:
    """The solution of A X = B: A is taken as a whole, the columns of B pass on."""
    names = ("A", "B") if "A" in call.arguments else ("input2", "self")
    if names[0] not in call.arguments or call.get("left", True) is False:
        return call.unknown(f"{call.name} like this is not understood")
    matrix, right = (call.tensor(name) for name in names)
    if len(right) < 2 or len(right) < len(matrix):
        return call.unknown(f"{call.name} of vectors is not understood")
    for dim in (*matrix[-2:], right[-2]):
        call.fix(dim, f"{call.name} takes the matrix as a whole")
    return (*broadcast([matrix[:-2], right[:-2]]), right[-2], right[-1])


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
