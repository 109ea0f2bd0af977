"""A network that was loaded is held against the cut one: each way in which it may be another is said."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.pretrained.comparing import difference, other_floats, other_tensors
from metaprune.pretrained.rotary import frequencies_of, same_frequencies, with_frequencies
from metaprune.surgery.slice import Cut, carve

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A number with a fraction, a buffer that is in no file, and whole numbers out beside real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale = 0.5
        self.register_buffer("shift", torch.ones(3), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.two(self.one(x).relu()) * self.scale + self.shift
        return y, y.argmax(1)


@cache
def cut() -> tuple[Cut, mp.ChannelGraph, mp.Plan]:
    torch.manual_seed(0)
    model = Scaled().eval()
    graph = mp.trace(model, (X,))
    plan = mp.Plan({"one": [0, 2, 3, 7]})
    return carve(model, graph, plan), graph, plan


def found(change: Callable[[Any], Any], folded: bool = False) -> str | None:
    done, graph, plan = cut()
    loaded = copy.deepcopy(done.model)
    with torch.no_grad():
        change(loaded)
    return difference(done.model, loaded, graph, plan, folded)


def turned(model: Any) -> None:
    """Computes the same: hidden channels in another order."""
    order = torch.tensor([1, 0, 2, 3])
    model.one.weight.copy_(model.one.weight[order].clone())
    model.one.bias.copy_(model.one.bias[order].clone())
    model.two.weight.copy_(model.two.weight[:, order].clone())


def test_the_same_is_no_other() -> None:
    assert found(lambda model: None) is None
    assert found(turned, folded=True) is None
    assert found(turned) == "one.weight would hold other values"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.two.bias.add_(1e-6), "two.bias would hold other values"),
        (lambda model: setattr(model, "scale", 0.25), ".scale would be 0.25 in place of 0.5"),
        (lambda model: model.shift.add_(1), "shift would hold other values"),
        (lambda model: model.register_buffer("more", torch.ones(1)), "more was not there"),
        (lambda model: delattr(model, "shift"), "shift is not there"),
        (lambda model: model.two.half(), "two.weight would be (3, 4) of torch.float16 in place of (3, 4) of torch.fl"),
        (
            lambda model: setattr(model, "one", nn.Linear(6, 5)),
            "one.weight would be (5, 6) of torch.float32 in place of (4, 6) of torch.float32",
        ),
    ],
)
def test_other_tensors_and_numbers_are_said(change: Callable[[Any], Any], said: str) -> None:
    assert (found(change) or "").startswith(said)


def answering(change: Callable[[Tensor, Tensor], Any]) -> Callable[[Any], None]:
    """Gives its outputs back changed."""

    def apply(model: Any) -> None:
        model.register_forward_hook(lambda _, __, outputs: change(*outputs))

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, best: (y * 1.01, best), "its outputs would differ by 1.0e-02 of the largest"),
        (lambda y, best: (y, best + 1), "an output of whole numbers would be another"),
        (lambda y, best: (y,), "it has 1 outputs in place of 2"),
        (lambda y, best: (y[:1], best), "an output would be (1, 3) in place of (4, 3)"),
        (lambda y, best: (y / 0, best), "an output is not finite where the cut network's is"),
        (lambda y, best: 1 / 0, "it cannot be called: ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("folded", [False, True])
def test_other_outputs_are_said(change: Callable[[Tensor, Tensor], Any], said: str, folded: bool) -> None:
    assert (found(answering(change), folded) or "").startswith(said)


def test_rounding_is_no_difference() -> None:
    """A thousand roundings of the largest entry, 1.2e-4 of it, are; a little more is not."""
    assert found(answering(lambda y, best: (y + 1.0e-4 * y.abs().max(), best))) is None
    said = found(answering(lambda y, best: (y + 1.4e-4 * y.abs().max(), best)))
    assert said == "its outputs would differ by 1.4e-04 of the largest"


def test_only_numbers_of_both_are_compared() -> None:
    one, other = Scaled(), Scaled()
    other.scale, other.more = 0.5 * (1 + 1e-12), 3.0
    assert other_floats(one, other) == {}
    other.scale = 0.6
    assert other_floats(one, other) == {("", "scale"): (0.5, 0.6)}
    assert other_tensors(one, copy.deepcopy(one), ()) is None


class Rotary(nn.Module):
    """Frequencies as rules make them, and the copy that rules for long inputs go back to."""

    def __init__(self, frequencies: list[float]) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.tensor(frequencies), persistent=False)
        self.register_buffer("original_inv_freq", torch.tensor(frequencies), persistent=False)


class Configuration:
    """What of a configuration says how frequencies are made."""

    def __init__(self, **fields: Any) -> None:
        self.rope_parameters: Any = {"rope_type": "default", "rope_theta": 100.0} | fields
        self.max_position_embeddings = 32


def test_frequencies_are_factors_of_a_power_series() -> None:
    """1, 0.1 of 100 ** (-place / 2): the second stayed of a longer series, 0.4 in place of 0.1."""
    plain, model = Configuration(), Rotary([1.0, 0.4])
    assert list(frequencies_of(model)) == ["inv_freq"]
    changed = with_frequencies(plain, model)
    assert plain.rope_parameters == {"rope_type": "default", "rope_theta": 100.0}
    assert changed.rope_parameters["rope_type"] == "longrope"
    assert changed.rope_parameters["short_factor"] == pytest.approx([1.0, 0.25])
    assert changed.rope_parameters["long_factor"] == pytest.approx([1.0, 0.25])
    assert (changed.rope_parameters["factor"], changed.rope_parameters["attention_factor"]) == (1.0, 1.0)
    assert changed.rope_parameters["original_max_position_embeddings"] == 32
    made = [1 / (factor * 100.0 ** (place / 2)) for place, factor in enumerate(changed.rope_parameters["long_factor"])]
    assert made == pytest.approx([1.0, 0.4])


@pytest.mark.parametrize(
    ("configuration", "model"),
    [
        (Configuration(), Rotary([1.0, 0.1])),
        (Configuration(), Rotary([1.0, -0.4])),
        (Configuration(), nn.Linear(2, 2)),
        (Configuration(), nn.ModuleList([Rotary([1.0, 0.4]), Rotary([1.0, 0.5])])),
        (Configuration(rope_type="yarn"), Rotary([1.0, 0.4])),
        (Configuration(rope_theta=None), Rotary([1.0, 0.4])),
    ],
    ids=["the rule's own", "none", "no frequencies", "two kinds", "another rule", "no base"],
)
def test_what_needs_or_takes_no_factors_stays(configuration: Configuration, model: nn.Module) -> None:
    assert with_frequencies(configuration, model) is configuration


def test_frequencies_are_the_same_but_for_rounding() -> None:
    one = torch.tensor([1.0, 1e-4])
    assert same_frequencies(one, one * (1 + 5e-7))
    assert not same_frequencies(one, one * (1 + 2e-6))
    assert not same_frequencies(one, one[:1])
