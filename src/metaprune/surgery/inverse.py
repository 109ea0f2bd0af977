"""What the sizes in an expression must be for it to have the size of a dimension: `c // heads`, `dim - part` …

Terms stand for their sizes here: a product for `*`, a concatenation for `+`. A difference is what is left of a
concatenation, a quotient what is left of a product. Where a size is not made so yet, `wanted` says what of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from metaprune.graph.provenance import Attribute, Combined, Extent, Number
from metaprune.graph.term import Axis, Concat, Product, Term, size

__all__ = ["WRITTEN", "Known", "made_of", "wanted"]

Leaf = Attribute | Extent
Known = Callable[[Leaf], Term | None]
"""What a leaf of an expression is the size of, as far as that is known; a plain number is an axis without a name."""

WRITTEN = "the code holds it as a number"


def made_of(number: Number, known: Known) -> Term | None:
    """The dimension that has the size of an expression at all widths, if it can be told."""
    if isinstance(number, int):
        return Axis("", number, WRITTEN) if number > 0 else None
    if not isinstance(number, Combined):
        return known(number)
    left, right = made_of(number.left, known), made_of(number.right, known)
    if left is None or right is None:
        return None
    match number.sign:
        case "*":
            return _product(left, right)
        case "+":
            return _concat(left, right)
        case "-":
            return _without(left, right)
        case "//":
            return _over(left, right)
    return None


def wanted(number: Number, term: Term, known: Known, layout: Sequence[Term] = ()) -> Iterator[tuple[Leaf, Term]]:
    """What leaves of an expression would have to be the size of, given the others, for it to have that of `term`.

    Args:
        number: The expression.
        term: The dimension whose size it must have.
        known: What its leaves are the sizes of.
        layout: Dimensions that lie side by side, which tell in what order factors and parts go.
    """
    if isinstance(number, int):
        return
    if not isinstance(number, Combined):
        yield number, term
        return
    left, right = made_of(number.left, known), made_of(number.right, known)
    match number.sign:
        case "*":
            if right is not None and (rest := _over(term, right)) is not None:
                yield from wanted(number.left, rest, known, layout)
            if left is not None and (rest := _over(term, left)) is not None:
                yield from wanted(number.right, rest, known, layout)
        case "+":
            if right is not None and (rest := _without(term, right)) is not None:
                yield from wanted(number.left, rest, known, layout)
            if left is not None and (rest := _without(term, left)) is not None:
                yield from wanted(number.right, rest, known, layout)
        case "//":
            if right is not None:
                yield from wanted(number.left, _product(*_in_order(right, term, layout)), known, layout)
            if left is not None and (rest := _over(left, term)) is not None:
                yield from wanted(number.right, rest, known, layout)
        case "-":
            if right is not None:
                yield from wanted(number.left, _concat(*_in_order(right, term, layout)), known, layout)
            if left is not None and (rest := _without(left, term)) is not None:
                yield from wanted(number.right, rest, known, layout)


def _in_order(one: Term, other: Term, layout: Sequence[Term]) -> tuple[Term, Term]:
    """Both as they lie in the layout; where that does not tell, as given."""
    if one in layout and other in layout and layout.index(other) < layout.index(one):
        return other, one
    return one, other


def _product(*terms: Term) -> Term:
    """The product of terms, flat, without factors of 1."""
    factors = [factor for term in terms for factor in _factors(term) if size(factor) != 1]
    return factors[0] if len(factors) == 1 else Product(tuple(factors))


def _concat(*terms: Term) -> Term:
    """The concatenation of terms, flat."""
    parts = [part for term in terms for part in _parts(term)]
    return parts[0] if len(parts) == 1 else Concat(tuple(parts))


def _factors(term: Term) -> tuple[Term, ...]:
    return term.factors if isinstance(term, Product) else (term,)


def _parts(term: Term) -> tuple[Term, ...]:
    return term.parts if isinstance(term, Concat) else (term,)


def _over(term: Term, divisor: Term) -> Term | None:
    """The rest of a product without some neighbouring factors; of a concatenation, part by part."""
    if isinstance(term, Concat):
        rests = [_over(part, divisor) for part in term.parts]
        whole = [rest for rest in rests if rest is not None]
        return _concat(*whole) if len(whole) == len(rests) else None
    rest = _taken_out(_factors(term), _factors(_product(divisor)))
    return None if rest is None else _product(*rest)


def _without(term: Term, part: Term) -> Term | None:
    """The rest of a concatenation without some neighbouring parts."""
    rest = _taken_out(_parts(term), _parts(part))
    return _concat(*rest) if rest else None


def _taken_out(terms: Sequence[Term], gone: Sequence[Term]) -> list[Term] | None:
    """Without the first run of terms of the sizes of `gone`; None where there is none."""
    if not gone:
        return list(terms)
    for start in range(len(terms) - len(gone) + 1):
        if all(_alike(one, other) for one, other in zip(terms[start : start + len(gone)], gone, strict=True)):
            return [*terms[:start], *terms[start + len(gone) :]]
    return None


def _alike(one: Term, other: Term) -> bool:
    """Whether two terms have one size at all widths, as far as can be seen: the same, or both fixed."""
    plain = isinstance(one, Axis) and isinstance(other, Axis) and one.fixed and other.fixed
    return one == other or (bool(plain) and size(one) == size(other))
