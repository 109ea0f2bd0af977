"""Loaders, losses and metrics that are none: one clear error, and the network as it was."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from metaprune.graph.errors import MetapruneError
from metaprune.train import Classification, Denoising, History, Recipe, Row, evaluate, fit
from metaprune.train.checks import smallest
from metaprune.train.engine import rehearse
from metaprune.train.scores import scores, scores_of_outputs

RECIPE = Recipe(epochs=2, lr=0.05, precision="32-true", device="cpu")
X, Y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
GOOD = [(X, Y), (X, Y)]


class Loader:
    """Batches that claim to be so many."""

    def __init__(self, promised: int, batches: Callable[[], Iterator[Any]]) -> None:
        self.promised, self.batches = promised, batches

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[Any]:
        return self.batches()


def failing() -> Iterator[Any]:
    yield X, Y
    raise KeyError("cat")


BATCHES: dict[str, tuple[Any, str]] = {
    "dictionaries": ([{"image": X, "label": Y}], "dict with 'image', 'label'"),
    "an empty dictionary": ([{}], "no keys"),
    "empty tuples": ([()], "an empty tuple"),
    "nothing": ([None], "got None"),
    "words": ([("a", "b")], "the network cannot take the batch"),
    "labels only": ([(Y,)], "the network cannot take the batch"),
    "no labels": ([(X,)], "expected batches (images, labels)"),
    "one tensor": ([X], "expected batches (images, labels)"),
    "labels in a list": ([(X, [0, 1, 2, 0])], "labels as a tensor"),
    "no examples": ([(X[:0], Y[:0])], "without examples, of shape (0, 3)"),
    "NumPy": ([(X.numpy(), Y)], "NumPy arrays"),
    "NumPy labels": ([(X, Y.numpy())], "labels as a tensor"),
    "float64": ([(X.double(), Y)], "torch.float64 where the weights are torch.float32"),
    "bytes": ([((X * 9).byte(), Y)], "images.float()"),
    "other sizes": ([(X[:, :2], Y)], "the network cannot take the batch"),
    "one example": ([(X[:1], Y[:1])], "drop_last=True"),
    "labels of another number": ([(X, Y[:3])], "labels of shape (3,)"),
    "labels out of range": ([(X, Y + 1)], "inside [0, 3)"),
    "labels with a point": ([(X, Y.float())], "type torch.float32"),
    "numbers that are none": ([(X * math.nan, Y)], "not finite"),
    "not a loader": (Loader(2, failing), "KeyError: 'cat'"),
    "shorter than promised": (Loader(3, lambda: iter(GOOD)), "promised 3 batches an epoch and gave 2"),
    "longer than promised": (Loader(1, lambda: iter(GOOD)), "promised 1 batches an epoch and gave more"),
    "without an end": (Loader(2, lambda: itertools.cycle(GOOD)), "promised 2 batches an epoch and gave more"),
    "to be gone through once": (Loader(2, itertools.repeat(iter(GOOD)).__next__), "gone through again"),
}
ONLY_TRAINING = {"one example", "numbers that are none", "to be gone through once"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


def refused(words: str, call: Callable[[nn.Module], object], *, unchanged: bool = True) -> None:
    """The call raises one of the package's errors, in one line, with these words; the network is as it was."""
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(MetapruneError) as caught:
        call(net)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert not unchanged or all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_that_do_not_fit(kind: str) -> None:
    batches, words = BATCHES[kind]
    task = Classification(batches, GOOD)
    late = not isinstance(batches, list) or kind == "numbers that are none"
    refused(words, lambda net: fit(net, task, RECIPE, progress=False), unchanged=not late)
    if isinstance(batches, list):  # what the first batch does not tell is known after an epoch only
        refused(words, lambda net: rehearse(net, task, RECIPE))


@pytest.mark.parametrize("kind", [kind for kind in BATCHES if kind not in ONLY_TRAINING])
def test_batches_that_cannot_be_measured_on(kind: str) -> None:
    batches, words = BATCHES[kind]
    refused(words, lambda net: evaluate(net, batches, Classification(GOOD, batches), RECIPE))


def test_outputs_of_a_loader_without_an_end() -> None:
    endless: Any = BATCHES["without an end"][0]
    with pytest.raises(MetapruneError, match="promised 2 batches"):
        scores_of_outputs(lambda batch: torch.ones(4, 3), endless, Classification(GOOD, GOOD))


LOSSES: dict[str, tuple[Any, str]] = {
    "a float": (lambda output, batch: output.sum().item(), "expected the loss as a scalar tensor"),
    "nothing": (lambda output, batch: None, "scalar tensor, got None"),
    "a tuple": (lambda output, batch: (output.sum(), 4), "scalar tensor, got (tensor("),
    "NumPy": (lambda output, batch: output.detach().numpy().sum(), "scalar tensor"),
    "a vector": (lambda output, batch: output.sum(1), "take its mean"),
    "of shape (1,)": (lambda output, batch: output.sum().view(1), "of shape (1,)"),
    "constant": (lambda output, batch: torch.tensor(1.0), "does not depend on the network"),
    "detached": (lambda output, batch: output.detach().sum(), "does not depend on the network"),
    "whole": (lambda output, batch: (output > 0).sum(), "torch.int64"),
    "complex": (lambda output, batch: output.sum().to(torch.complex64), "complex64"),
    "failing": (lambda output, batch: output["logits"], "the loss failed: "),
    "infinite": (lambda output, batch: output.sum() / 0, "not finite"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_that_are_none(kind: str) -> None:
    loss, words = LOSSES[kind]
    task = replace(Classification(GOOD, GOOD), loss=loss)
    refused(words, lambda net: rehearse(net, task, RECIPE))
    refused(words, lambda net: fit(net, task, RECIPE, progress=False), unchanged=kind != "infinite")


METRICS: dict[str, tuple[Any, str]] = {
    "nothing": (lambda output, batch: None, "(sum over the examples, their number), got None"),
    "one number": (lambda output, batch: output.sum(), "a tensor of shape ()"),
    "three": (lambda output, batch: (1.0, 2, 3), "got (1.0, 2, 3)"),
    "no sum": (lambda output, batch: (None, 4), "two numbers"),
    "no number": (lambda output, batch: (output.sum(), None), "two numbers"),
    "a vector": (lambda output, batch: (output.sum(1), 4), "a tensor of shape (4,)"),
    "less than none": (lambda output, batch: (output.sum(), -4), "got a tensor of shape () and -4"),
    "words": (lambda output, batch: ("good", 4), "two numbers"),
    "of no examples": (lambda output, batch: (output.sum(), 0), "gave no examples"),
    "not a number": (lambda output, batch: (math.nan, 4), "mine is nan"),
    "infinite": (lambda output, batch: (output.square().sum() / 0, 4), "mine is inf"),
    "failing": (lambda output, batch: (batch[2], 4), "the metric failed: IndexError"),
}


@pytest.mark.parametrize("kind", METRICS)
def test_metrics_that_are_none(kind: str) -> None:
    metric, words = METRICS[kind]
    task = replace(Classification(GOOD, GOOD), metric=metric, metric_name="mine")
    refused(words, lambda net: evaluate(net, GOOD, task, RECIPE))
    beside = replace(Classification(GOOD, GOOD), further={"mine": metric})
    refused(words, lambda net: scores(net, GOOD, beside, RECIPE))
    refused(words, lambda net: scores_of_outputs(lambda batch: torch.ones(4, 3), GOOD, task))


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "no training data": ({"train": None}, "train as batches to go through"),
    "a number for data": ({"val": 3}, "val as batches"),
    "a name for data": ({"train": "digits"}, "train as batches"),
    "a tensor for data": ({"test": X}, "test as batches"),
    "no loss": ({"loss": None}, "loss as a function"),
    "no metric": ({"metric": 0.5}, "metric as a function"),
    "no inputs": ({"inputs": "x"}, "inputs as a function"),
    "no distance": ({"distance": 1}, "distance as a function"),
    "a nameless metric": ({"metric_name": None}, "metric_name as words"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_tasks_that_are_none(kind: str) -> None:
    change, words = PARTS[kind]
    refused(words, lambda net: replace(Classification(GOOD, GOOD), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 1.0},
        {"label_smoothing": "a"},
        {"label_smoothing": math.nan},
        {"temperature": 0},
        {"temperature": None},
        {"temperature": math.inf},
    ],
)
def test_classification_with_odd_numbers(change: dict[str, Any]) -> None:
    refused(next(iter(change)), lambda net: Classification(GOOD, GOOD, **change))


@pytest.mark.parametrize(
    ("examples", "size", "drop_last", "expected"), [(9, 4, False, 1), (8, 4, False, 4), (9, 4, True, None)]
)
def test_the_last_batch_is_known_beforehand(examples: int, size: int, drop_last: bool, expected: int | None) -> None:
    data = TensorDataset(torch.randn(examples, 3), torch.zeros(examples).long())
    loader: Any = DataLoader(data, size, drop_last=drop_last)
    assert smallest(loader) == expected
    task = Classification(loader, GOOD)
    if expected == 1:
        refused("last training batch: the network cannot take", lambda net: rehearse(net, task, RECIPE))
        rehearse(nn.Linear(3, 3), task, RECIPE)  # which one example does not trouble
    else:
        rehearse(network(), task, RECIPE)
    assert smallest([(X, Y)]) is None


def test_a_rehearsal_changes_nothing() -> None:
    net, task = network().eval(), Classification(GOOD, GOOD)
    net[1].train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    rehearse(net, task, RECIPE)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net] == [False, True, False, False]
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_perfect_picture_counts_a_finite_number_of_decibels() -> None:
    picture: Tensor = torch.rand(1, 1, 16, 16)
    batches = [(picture, picture)]
    assert evaluate(nn.Identity(), batches, Denoising(batches, batches, sigma=5), RECIPE) == 100


def test_a_history_is_short() -> None:
    assert repr(History()) == "History(no epochs)"
    rows = [Row(i, "fine-tuning", 1.0 / i, 50.0 + i, 0.1) for i in range(1, 100)]
    assert repr(History(rows)) == "History(99 epochs, loss 1 → 0.0101, metric 51 → 149)"
    assert History(rows)._repr_html_().count("<tr>") == 100


def test_numpy_numbers_are_numbers() -> None:
    task = replace(Classification(GOOD, GOOD), metric=lambda output, batch: (np.float64(8.0), np.int64(4)))
    assert evaluate(network(), GOOD, task, RECIPE) == 2
