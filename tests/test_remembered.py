"""Traces are shared by what is the same, and by nothing else."""

import copy

import pytest
import torch
from torch import nn

from metaprune.session import pruning
from tests.methods import small
from tests.remembered import key_of


def test_the_same_is_the_same() -> None:
    model = small.Small()
    assert key_of(model, small.EXAMPLE) == key_of(copy.deepcopy(model), (small.EXAMPLE[0].clone(),))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(not model.training),
        lambda model: model.head.requires_grad_(False),
        lambda model: model.head.bias.data.add_(1),
        lambda model: setattr(model, "width", 3),
        lambda model: setattr(model.stem, "padding", (0, 0)),
        lambda model: model.double(),
        lambda model: setattr(model.back, "bias", model.stem.bias),
    ],
)
def test_whatever_may_matter_is_another_key(change) -> None:
    torch.manual_seed(0)
    model = small.Small()
    before = key_of(model, small.EXAMPLE)
    change(model)
    assert before is not None
    assert key_of(model, small.EXAMPLE) != before


def test_what_may_enclose_anything_has_no_key() -> None:
    model = small.Small()
    model.register_forward_hook(lambda *_: None)
    assert key_of(model, small.EXAMPLE) is None
    assert key_of(nn.Linear(2, 2, device="meta"), ()) is None


def test_runs_share_a_graph() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    first = pruning.trace(model, (torch.zeros(2, 3),), None)
    assert pruning.trace(copy.deepcopy(model), (torch.zeros(2, 3),), None) is first
    assert pruning.trace(model, (torch.ones(2, 3),), None) is not first
