"""Dense blocks: what they append, and to what."""

import pytest
import torch
from torch import nn

from metaprune.models import DenseNet, densenet40
from metaprune.models.densenet import DenseLayer


def test_depth_is_the_number_of_layers() -> None:
    weighted = [module for module in densenet40().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 40


def test_norms_grow_by_the_growth_and_transitions_keep_the_channels() -> None:
    model = DenseNet(10, growth=5, start=4)
    widths = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert widths == [4, 9, 14, 14, 19, 24, 24, 29, 34]


def test_a_layer_keeps_its_inputs_and_appends() -> None:
    x = torch.randn(2, 6, 5, 5)
    y = DenseLayer(6, 3)(x)
    assert y.shape == (2, 9, 5, 5)
    assert torch.equal(y[:, :6], x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 41}, "3n \\+ 4 .*, got 41"),
        ({"depth": 4}, "got 4"),
        ({"depth": 40, "growth": 0}, "growth and a start of 1 or more, got 0 and 16"),
        ({"depth": 40, "start": 0}, "got 12 and 0"),
    ],
)
def test_networks_that_do_not_exist(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DenseNet(**arguments)
