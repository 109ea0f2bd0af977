"""Which outputs count."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp


class Trunk(nn.Module):
    """Gives what its user wants, and the trunk beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.stem(x)
        hidden = hidden + self.body(hidden.relu())
        return {"logits": self.head(hidden.relu()), "hidden": hidden}

    def embed(self, x: Tensor) -> Tensor:
        return self.stem(x)


X = (torch.randn(2, 4),)


@pytest.mark.parametrize("outputs", ["logits", ("logits",), 0, [0], lambda out: out["logits"]])
def test_what_does_not_count_fixes_nothing(outputs: object) -> None:
    model = Trunk()
    graph = mp.trace(model, X, outputs=outputs)
    assert graph.axes["stem"].fixed is None
    assert "output" in str(graph.axes["head"].fixed)
    plan = mp.Plan({"stem": [1, 3, 4]})
    small = mp.slice(model, graph, plan)
    assert small(*X)["hidden"].shape == (2, 3)
    torch.testing.assert_close(small(*X)["logits"], mp.mask(model, graph, plan)(*X)["logits"])


class Lossless(Trunk):
    """As models are that give a loss where they are told the labels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": None, **super().forward(x)}  # type: ignore[dict-item]


@pytest.mark.parametrize("outputs", [0, ("loss", "logits")])
def test_what_is_none_is_not_counted(outputs: object) -> None:
    graph = mp.trace(Lossless(), X, outputs=outputs)
    assert list(graph.free) == ["stem"]


class Pair(NamedTuple):
    """Outputs that are known by the names of attributes."""

    logits: Tensor
    hidden: Tensor


class Named(Trunk):
    """Gives a pair with names."""

    def forward(self, x: Tensor) -> Pair:  # type: ignore[override]
        return Pair(**super().forward(x))


def test_an_output_is_found_by_the_name_of_an_attribute() -> None:
    assert list(mp.trace(Named(), X, outputs="logits").free) == ["stem"]
    assert list(mp.trace(Named(), X, outputs="hidden").free) == ["head"]


@pytest.mark.parametrize("outputs", [None, ("logits", "hidden"), lambda out: out])
def test_what_counts_keeps_its_size(outputs: object) -> None:
    graph = mp.trace(Trunk(), X, outputs=outputs)
    assert "output" in str(graph.axes["stem"].fixed)


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ("logit", "KeyError: 'logit'"),
        (5, "IndexError: list index out of range"),
        ((), "LookupError: it gives nothing"),
        (lambda out: out["logits"] + 1, "LookupError: it gives tensors that the network does not return"),
        (lambda out: None, "LookupError: it gives nothing"),
    ],
)
def test_outputs_that_are_not_there_are_refused(outputs: object, why: str) -> None:
    with pytest.raises(mp.MetapruneError, match="is not in what the network returns") as caught:
        mp.trace(Trunk(), X, outputs=outputs)
    assert why in str(caught.value)
    assert str(caught.value).endswith("it returns ['logits', 'hidden']")


def test_a_call_without_such_outputs_counts_whole() -> None:
    graph = mp.trace(Trunk(), X, calls=(mp.Call(X, method="embed"),), outputs="logits")
    assert graph.inference.call.method == "forward"
    assert "output" in str(graph.axes["stem"].fixed)
