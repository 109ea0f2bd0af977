"""Expressions over sizes, turned round."""

import pytest

from metaprune.graph.provenance import Attribute, Combined, Extent, Number
from metaprune.graph.term import Axis, Concat, Product, Term, width
from metaprune.surgery.inverse import made_of, wanted

HEADS, SIZE, PART, REST, TRUNK = (
    Axis("heads", 4),
    Axis("size", 6),
    Axis("part", 10),
    Axis("rest", 14),
    Axis("trunk", 24),
)
TRIPLE = Product((Axis("", 3, "three"), HEADS, SIZE))
TWO = Concat((Product((HEADS, SIZE)), Product((HEADS, PART))))
H, D, P, R, T = (Attribute("", name) for name in ("heads", "size", "part", "rest", "trunk"))


@pytest.mark.parametrize(
    ("number", "terms", "expected"),
    [
        (Combined("//", T, H), {"trunk": Product((HEADS, SIZE)), "heads": HEADS}, SIZE),
        (Combined("//", Combined("//", T, 3), H), {"trunk": TRIPLE, "heads": HEADS}, SIZE),
        (Combined("-", T, P), {"trunk": Concat((PART, REST)), "part": PART}, REST),
        (Combined("-", Combined("-", T, P), P), {"trunk": Concat((PART, PART, REST)), "part": PART}, REST),
        (Combined("+", P, R), {"part": PART, "rest": REST}, Concat((PART, REST))),
        (Combined("*", H, D), {"heads": HEADS, "size": SIZE}, Product((HEADS, SIZE))),
        (Combined("//", T, H), {"trunk": TWO, "heads": HEADS}, Concat((SIZE, PART))),
        (Combined("//", T, H), {"trunk": TRUNK, "heads": HEADS}, None),
        (Combined("-", T, P), {"trunk": TRUNK, "part": PART}, None),
        (Combined("%", T, P), {"trunk": TRUNK, "part": PART}, None),
    ],
)
def test_what_an_expression_is_made_of(number: Number, terms: dict[str, Term], expected: Term | None) -> None:
    assert made_of(number, lambda leaf: terms.get(leaf.name)) == expected  # type: ignore[union-attr]


def test_what_is_made_of_plain_numbers_has_their_size() -> None:
    found = made_of(Combined("*", 2, Combined("+", 3, D)), lambda _: SIZE)
    assert found is not None
    assert [width(found, {"size": size}) for size in (6, 1)] == [18, 8]


@pytest.mark.parametrize(
    ("number", "term", "terms", "layout", "expected"),
    [
        (Combined("//", T, H), SIZE, {"heads": HEADS}, (HEADS, SIZE), (T, Product((HEADS, SIZE)))),
        (Combined("//", T, H), SIZE, {"heads": HEADS}, (SIZE, HEADS), (T, Product((SIZE, HEADS)))),
        (Combined("//", T, H), SIZE, {"trunk": Product((HEADS, SIZE))}, (), (H, HEADS)),
        (Combined("-", T, P), REST, {"part": PART}, (PART, REST), (T, Concat((PART, REST)))),
        (Combined("-", T, P), REST, {"part": PART}, (REST, PART), (T, Concat((REST, PART)))),
        (Combined("-", T, P), REST, {"trunk": Concat((PART, REST))}, (), (P, PART)),
        (Combined("*", H, D), Product((HEADS, SIZE)), {"heads": HEADS}, (), (D, SIZE)),
        (Combined("*", H, D), Product((HEADS, SIZE)), {"size": SIZE}, (), (H, HEADS)),
        (Combined("+", P, R), Concat((PART, REST)), {"rest": REST}, (), (P, PART)),
    ],
)
def test_what_the_others_want_a_size_to_be(
    number: Number, term: Term, terms: dict[str, Term], layout: tuple[Term, ...], expected: tuple[Attribute, Term]
) -> None:
    assert list(wanted(number, term, lambda leaf: terms.get(leaf.name), layout)) == [expected]  # type: ignore[union-attr]


def test_the_size_of_a_tensor_is_wanted_to_be_a_product() -> None:
    trunk = Extent("", 0, 0, 24, TRUNK)
    found = wanted(Combined("//", trunk, H), SIZE, lambda leaf: TRUNK if leaf is trunk else HEADS)
    assert list(found) == [(trunk, Product((HEADS, SIZE)))]
