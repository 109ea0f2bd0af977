"""Numbers that modules keep about themselves."""

import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.infer import infer
from metaprune.graph.term import Axis, Concat, Product, size
from metaprune.surgery.numbers import guesses, readings, set_numbers


class Keeper(nn.Module):
    """Knows its sizes under names that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_size, self.epochs, self.one, self.flag = 4, 6, 24, 1, True
        self.parts = [24, 24]
        self._private = 24
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x).view(len(x), self.heads, self.head_size)
        return self.out((y * y.softmax(1)).flatten(1))


def test_set_numbers() -> None:
    a, b = Axis("a", 4), Axis("b", 6)
    model = nn.Sequential(Keeper(), nn.Linear(3, 3))
    numbers = {
        ("0", "heads"): a,
        ("0", "epochs"): Product((a, b)),
        ("0", "parts.1"): Concat((a, b, a)),
        ("1", "in_features"): b,
    }
    set_numbers(model, numbers, {"a": 3})
    assert (model[0].heads, model[0].epochs, model[1].in_features) == (3, 18, 6)
    assert model[0].parts == [24, 12]
    assert (model[0].head_size, model[1].out_features) == (6, 3)


def test_set_numbers_keeps_tuples() -> None:
    model = Keeper()
    model.parts = (24, 24)
    set_numbers(model, {("", "parts.0"): Axis("a", 24)}, {"a": 7})
    assert model.parts == (7, 24)


def test_guesses_are_terms_of_that_size() -> None:
    model = Keeper()
    graph = infer(model, (torch.zeros(2, 5),)).graph
    found = guesses(model, graph)
    for (path, attribute), terms in found.items():
        name, _, index = attribute.partition(".")
        value = getattr(model.get_submodule(path), name)
        assert {size(term) for term in terms} == {value[int(index)] if index else value}
        assert len(set(terms)) == len(terms)
    assert {attribute for path, attribute in found if not path} == {
        "heads",
        "head_size",
        "epochs",
        "parts.0",
        "parts.1",
    }
    assert not set(found) & set(graph.numbers), "what a rule knows is not guessed"


def test_readings_begin_with_the_likeliest_and_differ_step_by_step() -> None:
    a, b = Axis("a", 4), Axis("b", 4)
    model = nn.ModuleList([Keeper(), Keeper()])
    found = {("0", "heads"): [a, b], ("1", "heads"): [a, b], ("0", "epochs"): [b]}
    every = list(readings(model, found))
    assert every[0] == {("0", "heads"): a, ("1", "heads"): a, ("0", "epochs"): b}
    assert all(reading.get(("0", "heads")) == reading.get(("1", "heads")) for reading in every)  # of one class
    assert {("0", "heads"): b, ("1", "heads"): b, ("0", "epochs"): b} in every
    assert {("0", "epochs"): b} in every  # any may be left alone
    assert len(every) == len({tuple(reading.items()) for reading in every})
    assert list(readings(model, {})) == [{}]


def test_numbers_are_found_by_cutting() -> None:
    """Heads and their sizes are brought into line, and what only looks like a size is left as it is."""
    model = Keeper()
    graph = mp.trace(model, (torch.zeros(2, 5),))
    heads, inner = (next(n for n, axis in graph.free.items() if axis.size == s) for s in (4, 6))
    small = mp.slice(model, graph, mp.Plan({heads: [0, 2], inner: [0, 1, 5]}))
    assert (small.heads, small.head_size) == (2, 3)  # type: ignore[attr-defined]
    assert (model.heads, model.head_size) == (4, 6)
    assert (small.one, small.flag, small._private) == (1, True, 24)  # type: ignore[attr-defined]
    assert small(torch.zeros(3, 5)).shape == (3, 5)
