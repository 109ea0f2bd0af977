"""Tensors by name: a network run with others, and a digest of them."""

import copy

import pytest
import torch
from torch import Tensor, nn

from metaprune.graph.tensors import call_with, digest, named_tensors, with_tensors
from tests.laws.case import case


class Twice(nn.Module):
    """A module under three names, one of its weights tied to another module's, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.list = nn.ModuleList([self.first, nn.BatchNorm1d(4)])
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        for layer in (self.first, self.again, *self.list, self.tied):
            x = layer(x).tanh()
        return scale * x


@pytest.mark.parametrize("name", ["first.weight", "again.weight", "list.0.bias", "tied.weight", "list.1.running_mean"])
def test_a_network_is_run_with_other_tensors(name: str) -> None:
    model, x = Twice().eval(), torch.randn(3, 4)
    other = torch.randn_like(named_tensors(model)[name]).requires_grad_("running" not in name)
    before = {path: (id(tensor), tensor.clone()) for path, tensor in named_tensors(model).items()}
    expected = with_tensors(model, {name: other.detach()})(x, scale=2.0)
    for _ in range(2):
        found = call_with(model, {name: other}, (x,), {"scale": 2.0})
        torch.testing.assert_close(found, expected)
        found.sum().backward()
    assert (other.grad is not None) == other.requires_grad
    assert named_tensors(model).keys() == before.keys()
    for path, tensor in named_tensors(model).items():
        assert id(tensor) == before[path][0]
        assert torch.equal(tensor, before[path][1])


def test_tied_tensors_stand_under_every_name() -> None:
    """Parameters and buffers alike."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    model[1].running_mean = model[0].running_mean
    found = named_tensors(model)
    assert set(found) == set(model.state_dict())
    assert found["1.weight"] is found["0.weight"]
    assert found["1.running_mean"] is found["0.running_mean"]


def test_an_error_gives_the_tensors_back() -> None:
    model = Twice().eval()
    before = {path: id(tensor) for path, tensor in named_tensors(model).items()}
    with pytest.raises(RuntimeError, match="shape"):
        call_with(model, {"first.weight": torch.zeros(4, 4)}, (torch.zeros(3, 5),))
    assert {path: id(tensor) for path, tensor in named_tensors(model).items()} == before


def test_a_digest_tells_networks_apart() -> None:
    model = case("resnet").model
    known = digest(model.state_dict())
    twin = copy.deepcopy(model)
    assert digest(twin.state_dict()) == known
    assert digest(dict(list(model.state_dict().items())[:-1])) != known
    with torch.no_grad():
        twin.get_parameter("conv1.weight").flatten()[0].nextafter_(torch.tensor(9.0, dtype=torch.float64))
    assert digest(twin.state_dict()) != known
    renamed = {name.replace("conv1", "first"): tensor for name, tensor in model.state_dict().items()}
    assert digest(renamed) != known


def test_a_digest_does_not_depend_on_the_layout() -> None:
    weight = torch.randn(4, 3, 2, 2)
    kinds = (weight, weight.to(memory_format=torch.channels_last), weight.clone().requires_grad_())
    assert len({digest({"weight": tensor, "steps": torch.tensor(3)}) for tensor in kinds}) == 1
