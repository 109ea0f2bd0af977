"""What must be equal becomes one: by hand, on a few variables."""

from collections.abc import Callable

import pytest

from metaprune.graph.unify import (
    EMPTY,
    UNIT,
    Factors,
    Irreconcilable,
    Parts,
    Shape,
    Variable,
    cut,
    factor,
    fix,
    measure,
    resolve,
    split_right,
    unify,
    variables,
)

either = pytest.mark.parametrize("turned", [False, True])


def same(one: Shape, other: Shape, turned: bool) -> None:
    unify(*((other, one) if turned else (one, other)))


def sizes(shape: Shape) -> list[int]:
    return [variable.size for variable in variables(shape)]


def reasons(shape: Shape) -> list[str | None]:
    return [variable.fixed for variable in variables(shape)]


@either
@pytest.mark.parametrize(
    "other", [lambda: Factors((Variable(3), Variable(4))), lambda: Parts((Variable(5), Variable(7)))]
)
def test_what_a_fixed_variable_is_bound_to_is_fixed(other: Callable[[], Shape], turned: bool) -> None:
    fixed, made = Variable(12, "why"), other()
    same(fixed, made, turned)
    assert resolve(fixed) == made
    assert reasons(made) == ["why", "why"]


@either
def test_a_free_variable_that_meets_a_fixed_one_is_fixed(turned: bool) -> None:
    fixed, free = Variable(12, "why"), Variable(12)
    same(fixed, free, turned)
    assert resolve(fixed) is resolve(free)
    assert reasons(free) == ["why"]


@either
def test_a_free_variable_stays_free(turned: bool) -> None:
    one, other = Variable(12), Factors((Variable(3), Variable(4)))
    same(one, other, turned)
    assert (sizes(one), reasons(one)) == ([3, 4], [None, None])


def test_the_reason_given_first_stays() -> None:
    variable = Variable(4, "first")
    fix(variable, "second")
    assert variable.fixed == "first"
    fix(Factors((variable, free := Variable(2))), "third")
    assert (variable.fixed, free.fixed) == ("first", "third")
    left, right = Variable(4, "left"), Variable(4, "right")
    unify(left, right)
    assert reasons(left) == reasons(right) == ["left"]


@pytest.mark.parametrize("reason", [None, "why"])
def test_pieces_are_as_free_as_the_whole(reason: str | None) -> None:
    head, tail = split_right(Variable(12, reason), 4)
    assert (sizes(head), sizes(tail)) == ([3], [4])
    assert reasons(head) == reasons(tail) == [reason]
    pieces = cut(Variable(12, reason), [5, 7])
    assert [measure(piece) for piece in pieces] == [5, 2, 5]
    assert [reasons(piece) for piece in pieces] == [[reason]] * 3


@either
def test_products_are_matched_from_the_right(turned: bool) -> None:
    ours, theirs = Factors((Variable(6), Variable(4))), Factors((Variable(2), Variable(12)))
    same(ours, theirs, turned)
    assert sizes(ours) == sizes(theirs) == [2, 3, 4]
    assert list(variables(ours)) == list(variables(theirs))


def test_concatenations_are_cut_at_the_boundaries_of_both() -> None:
    ours, theirs = Parts((Variable(3), Variable(5))), Parts((Variable(4), Variable(4, "why")))
    unify(ours, theirs)
    assert sizes(ours) == [3, 4]  # one entry alone has no channels to cut
    assert measure(ours) == 8
    assert list(variables(ours)) == list(variables(theirs))
    assert reasons(ours) == [None, "why"]


def test_a_boundary_between_blocks_cuts_the_leading_factor() -> None:
    lead, block = Variable(4), Variable(3)
    pieces = cut(Factors((lead, block)), [6])
    assert [sizes(piece) for piece in pieces] == [[2, 3], [2, 3]]
    assert sizes(lead) == [2, 2]
    assert all(list(variables(piece))[-1] is block for piece in pieces)
    assert reasons(lead) == [None, None]


def test_a_boundary_inside_a_block_fixes_the_leading_factor() -> None:
    lead, block = Variable(4), Variable(3)
    pieces = cut(Factors((lead, block)), [4])
    assert [measure(piece) for piece in pieces] == [4, 8]
    assert lead.fixed == "a slice falls inside its blocks of 3 channels"
    assert (sizes(block), reasons(block)) == ([2], [None])  # cut behind its first entry


@pytest.mark.parametrize(("lead", "fits"), [(64, True), (65, False)])
def test_a_leading_factor_is_written_out_up_to_64_times(lead: int, fits: bool) -> None:
    shape = Factors((Variable(lead), Variable(3)))
    if fits:
        assert [measure(piece) for piece in cut(shape, [4])] == [4, 3 * 64 - 4]
    else:
        with pytest.raises(Irreconcilable, match="inside a block of 3"):
            cut(shape, [4])


def test_a_concatenation_splits_where_all_parts_divide() -> None:
    one, other = Variable(6), Variable(9)
    head, tail = split_right(Parts((one, other)), 3)
    assert (sizes(head), sizes(tail)) == ([2, 3], [3])
    assert list(variables(one))[-1] is list(variables(other))[-1], "the tails are one"


@pytest.mark.parametrize("parts", [(3, 3), (2, 4)])
def test_what_counts_parts_is_fixed(parts: tuple[int, int]) -> None:
    head, tail = split_right(Parts(tuple(Variable(size) for size in parts)), 3)
    assert reasons(head) == ["it counts the parts of a concatenation"]
    assert (measure(head), measure(tail)) == (2, 3)


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: unify(Variable(3), Variable(4)),
        lambda: split_right(Variable(12), 5),
        lambda: split_right(Factors((Variable(3), Variable(4))), 6),
        lambda: unify(Factors((Variable(2), Variable(9))), Factors((Variable(3), Variable(6)))),
    ],
)
def test_what_does_not_divide_is_refused(impossible: Callable[[], object]) -> None:
    with pytest.raises(Irreconcilable):
        impossible()


def test_units_and_empty_parts_say_nothing() -> None:
    variable = Variable(3)
    assert resolve(Variable(1)) == UNIT
    assert resolve(Variable(0)) == EMPTY
    assert resolve(Factors((UNIT, variable, Variable(1)))) is variable
    assert resolve(Parts((EMPTY, variable))) is variable
    assert resolve(Factors((variable, EMPTY))) == EMPTY
    lead = Parts((Variable(2), Variable(3)))
    distributed = resolve(Factors((lead, variable)))
    assert isinstance(distributed, Parts)
    assert sizes(distributed) == [2, 3, 3, 3]
    assert cut(variable, [0, 3]) == [EMPTY, variable, EMPTY]


def test_dimensions_are_laid_out_anew() -> None:
    whole = Variable(24)
    first, second, third = factor([whole], [2, 3, 4])
    assert list(variables(whole)) == [first, second, third]
    again = factor([first, second, third], [6, 1, 4])
    assert [sizes(shape) for shape in again] == [[2, 3], [], [4]]
    assert factor([whole], [0, 4])[0] == EMPTY
