"""Signatures that state shapes are checked while tests run, and cost nothing where they state none."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from metaprune.data import batches, pictures
from tests.shapes import states_a_shape


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(TypeCheckError, match="shift"):
        batches.shift(torch.zeros(4, 8, 8, dtype=torch.uint8), pad=1, flip=False)


def stated(x: "dict[str, Float[Tensor, ' n']] | None") -> None: ...


def returned(x: int) -> Float[Tensor, " n"]: ...


def plain(x: Tensor, count: int = 0) -> "Absent": ...  # type: ignore[name-defined]  # noqa: F821


def test_what_states_none_is_left_as_it_was_written() -> None:
    assert [states_a_shape(function) for function in (stated, returned, plain)] == [True, True, False]
    assert hasattr(batches.shift, "__wrapped__")
    assert not hasattr(pictures.inside, "__wrapped__")
