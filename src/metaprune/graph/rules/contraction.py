"""Contractions: contracted dimensions are equal, the others pass on. They carry the multiply-accumulates."""

from __future__ import annotations

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.rules.elementwise import broadcast
from metaprune.graph.unify import (
    UNIT,
    Factors,
    Irreconcilable,
    Shape,
    fix,
    measure,
    resolve,
    split_right,
    unify,
)

__all__ = []


@rule("aten.linear")
def linear(call: Call) -> Dims:
    """y = x W^T + b over the last dimension, W of shape (out, in)."""
    *rest, inner = call.tensor("input")
    outer, columns = call.tensor("weight")
    call.macs.append((*rest, outer, columns))
    unify(inner, columns)
    call.affine(outer, "bias")
    call.reads["input"] = (len(rest),)
    call.sums["weight"] = {1: columns}
    call.number(_holder(call), in_features=columns, out_features=outer)
    return (*rest, resolve(outer))


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def convolution(call: Call) -> Dims:
    """W of shape (out, in / groups, *kernel): in = G x i and out = G x o share G; depthwise is i = 1."""
    if call.get("transposed", False):
        return transposed(call)
    batch, inner, *_ = call.tensor("input")
    outer, columns, *kernel = call.tensor("weight")
    space = _space(call, kernel)
    call.macs.append((batch, outer, columns, *kernel, *space))
    groups = call.get("groups", 1)
    call.sums = {"input": {1: columns}, "weight": {1: columns}}
    if groups == 1:
        unify(inner, columns)
    else:
        shared, per_group = split_right(inner, measure(inner) // groups)
        unify(per_group, columns)
        of_output, _ = split_right(outer, measure(outer) // groups)
        unify(shared, of_output)
        call.number(_holder(call), groups=shared)
        call.size(shared, "groups")
    return _convolved(call, batch, inner, outer, space)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed(call: Call) -> Dims:
    """W of shape (in, out / groups, *kernel)."""
    batch, inner, *positions = call.tensor("input")
    rows, columns, *kernel = call.tensor("weight")
    space = _space(call, kernel)
    call.macs.append((batch, rows, columns, *kernel, *positions))
    groups = call.get("groups", 1)
    unify(inner, rows)
    summed = rows
    if groups == 1:
        outer: Shape = columns
    else:
        shared, summed = split_right(rows, measure(rows) // groups)
        outer = resolve(Factors((shared, columns)))
        call.number(_holder(call), groups=shared)
        call.size(shared, "groups")
    call.sums = {"input": {1: summed}, "weight": {0: summed}}
    return _convolved(call, batch, inner, outer, space)


def _holder(call: Call) -> str | None:
    """The argument whose module keeps the numbers; where the weight is computed, it is the caller."""
    return "weight" if call["weight"] in call.owner else None


def _convolved(call: Call, batch: Shape, inner: Shape, outer: Shape, space: Dims) -> Dims:
    call.affine(outer, "bias")
    call.reads["input"] = (1,)
    call.number(_holder(call), in_channels=inner, out_channels=outer)
    return (batch, resolve(outer), *space)


def _space(call: Call, kernel: list[Shape]) -> Dims:
    """The output's picture: dimensions that a kernel of 1 leaves alone pass on, the others are fixed."""
    dims = call.tensor("input")[2:]
    result: list[Shape] = []
    for place, (dim, extent, size) in enumerate(zip(dims, kernel, call.shape[2:], strict=True)):
        alone = measure(extent) == 1 and all(
            isinstance(given := call.get(name, usual), list) and given[place % len(given)] == usual
            for name, usual in (("stride", 1), ("padding", 0), ("output_padding", 0))
            if name in call.arguments
        )
        fix(extent, "it is a kernel's extent")
        if not alone:
            call.fix(dim, "a convolution's kernel runs over it, so that its order counts")
        result.append(dim if alone else constants([size])[0])
    return tuple(result)


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot")
def matmul(call: Call) -> Dims:
    """Batched matrix product, with PyTorch's treatment of vectors."""
    left = call.tensor("self")
    right_name = next(name for name in ("other", "mat2", "vec", "tensor") if name in call.arguments)
    right = call.tensor(right_name)
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    inner = right[-2] if len(right) > 1 else right[0]
    try:
        unify(left[-1], inner)
        batch = broadcast([left[:-2], right[:-2]])
    except Irreconcilable:
        call.macs.append((*constants(call.shape), inner))
        raise
    call.reads["self"] = (len(left) - 1,)
    call.reads[right_name] = (max(len(right) - 2, 0),)
    call.macs.append((*batch, *rows, inner, *columns))
    return (*batch, *rows, *columns)


@rule("aten.tensordot", "aten.inner")
def tensordot(call: Call) -> Dims:
    """Of each operand some dimensions are contracted with as many of the other (`inner`: the last ones)."""
    left, right = call.tensor("self"), call.tensor("other")
    if call.name == "aten.inner" and not (left and right):
        return left or right
    ours = [int(dim) % len(left) for dim in call.get("dims_self", [-1])]
    theirs = [int(dim) % len(right) for dim in call.get("dims_other", [-1])]
    for one, other in zip(ours, theirs, strict=True):
        unify(left[one], right[other])
    call.reads["self"], call.reads["other"] = tuple(ours), tuple(theirs)
    rows = tuple(dim for place, dim in enumerate(left) if place not in ours)
    columns = tuple(dim for place, dim in enumerate(right) if place not in theirs)
    call.macs.append((*rows, *(left[dim] for dim in ours), *columns))
    return (*rows, *columns)


@rule("aten.addmm", "aten.baddbmm")
def addmm(call: Call) -> Dims:
    """A product added to a matrix."""
    left_name, right_name = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    left, right = call.tensor(left_name), call.tensor(right_name)
    unify(left[-1], right[-2])
    call.reads[left_name], call.reads[right_name] = (len(left) - 1,), (len(right) - 2,)
    batch = broadcast([left[:-2], right[:-2]])
    call.macs.append((*batch, left[-2], left[-1], right[-1]))
    return broadcast([call.tensor("self"), (*batch, left[-2], right[-1])])


@rule("aten.addmv", "aten.addbmm", "aten.addr")
def added(call: Call) -> Dims:
    """A matrix times a vector, a sum of products, or an outer product, added to something."""
    if call.name == "aten.addr":
        return broadcast([call.tensor("self"), (*call.tensor("vec1"), *call.tensor("vec2"))])
    names = ("mat", "vec") if call.name == "aten.addmv" else ("batch1", "batch2")
    left, right = (call.tensor(name) for name in names)
    *batch, rows, inner = left
    unify(inner, right[-2] if len(right) > 1 else right[0])
    summed = tuple(range(len(batch)))
    for place in summed:
        unify(left[place], right[place])
    call.reads[names[0]], call.reads[names[1]] = (*summed, len(left) - 1), (*summed, max(len(right) - 2, 0))
    columns = right[-1:] if len(right) > 1 else ()
    call.macs.append((*batch, rows, inner, *columns))
    return broadcast([call.tensor("self"), (rows, *columns)])


@rule("aten.linalg_multi_dot", "aten.chain_matmul")
def chain(call: Call) -> Dims:
    """A product of matrices, the first and the last of which may be vectors; multiplied from the left for the cost."""
    argument = "tensors" if "tensors" in call.arguments else "matrices"
    first, *rest = (call.of(node) for node in call[argument])
    left = first
    for place, right in enumerate(rest, 1):
        unify(left[-1], right[0])
        call.macs.append((*left[:-1], *right))
        call.reads[f"{argument}.{place}"] = (0,)
        before = call.of(call[argument][place - 1])
        call.sums[f"{argument}.{place - 1}"] = {len(before) - 1: before[-1]}
        left = (*left[:-1], *right[1:])
    return left


@rule("aten.cdist")
def distances(call: Call) -> Dims:
    """|x1_i - x2_j| over the last dimension, for each pair of rows."""
    *lead, rows, ours = call.tensor("x1")
    *others, columns, theirs = call.tensor("x2")
    unify(ours, theirs)
    call.reads["x1"], call.reads["x2"] = (len(lead) + 1,), (len(others) + 1,)
    return (*broadcast([tuple(lead), tuple(others)]), rows, columns)


@rule("aten.kron")
def kronecker(call: Call) -> Dims:
    """Each entry of the one times each of the other: dimensions are products."""
    left, right = call.tensor("self"), call.tensor("other")
    rank = max(len(left), len(right))
    ours, theirs = ((*[UNIT] * (rank - len(dims)), *dims) for dims in (left, right))
    return tuple(resolve(Factors((one, other))) for one, other in zip(ours, theirs, strict=True))


@rule("aten.linalg_vecdot")
def vecdot(call: Call) -> Dims:
    """Products summed over one dimension."""
    dims = broadcast([call.tensor("x"), call.tensor("y")])
    dim = call.dim("dim", len(dims), -1)
    for name in ("x", "y"):
        call.reads[name] = (dim - len(dims) + len(call.tensor(name)),)
    return (*dims[:dim], *dims[dim + 1 :])


@rule("aten._grouped_mm", "transformers.grouped_mm_fallback")
def grouped_matmul(call: Call) -> Dims:
    """Rows (S, K), sorted into groups, each times the matrix of its group, (G, K, N): groups and rows are fixed."""
    left_name, right_name = ("self", "mat2") if "self" in call.arguments else ("input", "weight")
    left, right = call.tensor(left_name), call.tensor(right_name)
    if len(left) != 2 or len(right) != 3 or call.get("bias") is not None:
        raise Irreconcilable("a grouped product that is not of rows with one matrix for each group")
    rows, inner = left
    groups, contracted, columns = right
    call.fix(groups, "each group of rows has its own matrix")
    call.fix(rows, "its entries are sorted into groups")
    unify(inner, contracted)
    call.reads[left_name], call.reads[right_name] = (1,), (1,)
    call.macs.append((rows, inner, columns))
    return (rows, resolve(columns))


@rule("aten.einsum")
def einsum(call: Call) -> Dims:
    """Equal letters are equal dimensions; letters that are not in the output are contracted."""
    equation = call["equation"].replace(" ", "")
    operands = [call.of(node) for node in call["tensors"]]
    left, arrow, output = equation.partition("->")
    subscripts = [_letters(s, len(dims)) for s, dims in zip(left.split(","), operands, strict=True)]
    letters: dict[str, Shape] = {}
    for subscript, dims in zip(subscripts, operands, strict=True):
        if len(set(subscript)) < len(subscript):
            raise Irreconcilable(f"einsum {equation!r} takes a diagonal")
        for letter, dim in zip(subscript, dims, strict=True):
            if measure(letters.setdefault(letter, dim)) == 1:
                letters[letter] = dim
            elif measure(dim) > 1:
                unify(letters[letter], dim)
    result = _letters(output if arrow else _implied(left), len(call.shape))
    call.macs += [tuple(letters[letter] for letter in product) for product in _products(subscripts, result)]
    summed = [letter for letter in letters if letter not in result]
    if call.macs:
        for index, subscript in enumerate(subscripts):
            call.reads[f"tensors.{index}"] = tuple(i for i, letter in enumerate(subscript) if letter in summed)
    else:
        for letter in summed:
            call.fix(letters[letter], f"einsum {equation!r} sums over it without a product")
    return tuple(resolve(letters[letter]) for letter in result)


def _letters(subscript: str, rank: int) -> list[str]:
    """One letter per dimension; those of an ellipsis are numbered from the right."""
    before, dots, after = subscript.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{i}" for i in range(hidden, 0, -1)), *after]


def _implied(left: str) -> str:
    """The output that einsum takes where none is written: the letters that occur once, in order of the alphabet."""
    single = sorted(letter for letter in set(left) - set(".,") if left.count(letter) == 1)
    return ("..." if "..." in left else "") + "".join(single)


def _products(subscripts: list[list[str]], result: list[str]) -> list[list[str]]:
    """What is multiplied and summed, operand after operand from the left: each letter is summed when it occurs last."""
    products: list[list[str]] = []
    left = subscripts[0]
    for place, right in enumerate(subscripts[1:], 1):
        later = {*result, *(letter for subscript in subscripts[place + 1 :] for letter in subscript)}
        inner = {letter for letter in left if letter in right and letter not in later}
        letters = [letter for letter in dict.fromkeys((*left, *right)) if letter in later or letter in inner]
        if inner:
            products.append(letters)
        left = [letter for letter in letters if letter in later]
    return products


@rule("aten.outer", "aten.ger")
def outer(call: Call) -> Dims:
    """Each entry of a vector times each of another: nothing is summed."""
    [rows], [columns] = call.tensor("self"), call.tensor("vec2")
    return (rows, columns)


@rule("aten.bilinear")
def bilinear(call: Call) -> Dims:
    """y_o = x1^T W_o x2 + b_o, W of shape (out, in1, in2)."""
    *rest, first = call.tensor("input1")
    *other, second = call.tensor("input2")
    outer, rows, columns = call.tensor("weight")
    unify(first, rows)
    unify(second, columns)
    call.affine(outer, "bias")
    call.reads["input1"], call.reads["input2"] = (len(rest),), (len(other),)
    call.sums["weight"] = {1: rows, 2: columns}
    call.number("weight", in1_features=rows, in2_features=columns, out_features=outer)
    lead = broadcast([tuple(rest), tuple(other)])
    call.macs.append((*lead, outer, rows, columns))
    return (*lead, resolve(outer))


@rule("aten.embedding")
def embedding(call: Call) -> Dims:
    """Rows are chosen by the data; columns pass on."""
    rows, columns = call.tensor("weight")
    fix(rows, "its rows are chosen by the input (a vocabulary)")
    call.number("weight", num_embeddings=rows, embedding_dim=columns)
    return (*call.tensor("indices"), resolve(columns))


@rule("aten.embedding_bag")
def embedding_bag(call: Call) -> list[Dims]:
    """Rows are chosen by the data and reduced bag by bag; columns pass on."""
    rows, columns = call.tensor("weight")
    fix(rows, "its rows are chosen by the input (a vocabulary)")
    call.number("weight", num_embeddings=rows, embedding_dim=columns)
    reduced, *positions = (constants(value.shape) for value in call.node.meta["val"])
    return [(reduced[0], resolve(columns)), *positions]


@rule("aten.one_hot")
def one_hot(call: Call) -> Dims:
    """Classes chosen by the data."""
    return (*call.tensor("self"), constants(call.shape[-1:])[0] if call.shape[-1] > 1 else UNIT)
