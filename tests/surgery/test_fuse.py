"""Linear maps along axes, written into the channels that stay."""

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.errors import PlanError
from metaprune.surgery.fuse import Fusion, fused, norms
from tests.laws import oracle
from tests.laws.case import case


def normed(*further: nn.Module) -> nn.Sequential:
    """A convolution and its batch norm, with statistics of their own, and what reads them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), *further, nn.Conv2d(6, 2, 1)).double().eval()
    with torch.no_grad():
        for tensor in (model[1].weight, model[1].bias, model[1].running_mean):
            tensor.copy_(torch.randn(6))
        model[1].running_var.copy_(torch.rand(6) + 0.5)
    return model


@pytest.mark.parametrize("least", [None, 1e-9, 0.0])
def test_rows_are_combined_as_the_norm_behind_them_shows_them(least: float | None) -> None:
    """Behind the norm the channels that stay are the combinations of all, also where the norm's weight is near zero."""
    model = normed()
    if least is not None:
        with torch.no_grad():
            model[1].weight[2] = least
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    matrix = torch.randn(2, 6, dtype=torch.float64)
    small = mp.slice(fused(model, graph, {"0": Fusion((1, 2), writes=matrix)}), graph, mp.Plan({"0": (1, 2)}))
    wanted = torch.einsum("kn,bnhw->bkhw", matrix, model[:2](x))
    assert oracle.distance(wanted, small[:2](x)) < 1e-9


def test_rows_are_combined_as_a_norm_without_weight_shows_them() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6, affine=False)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), norm, nn.Conv2d(6, 2, 1)).double().eval()
    norm.running_var.copy_(torch.rand(6) + 0.5)  # type: ignore[union-attr]
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    matrix = torch.randn(2, 6, dtype=torch.float64)
    small = mp.slice(fused(model, graph, {"0": Fusion((1, 2), writes=matrix)}), graph, mp.Plan({"0": (1, 2)}))
    wanted = torch.einsum("kn,bnhw->bkhw", matrix, model[:2](x))
    assert oracle.distance(wanted, small[:2](x)) < 1e-9  # type: ignore[index]


def test_columns_are_added_up_and_the_rest_stays() -> None:
    model = normed()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    matrix = torch.randn(2, 6, dtype=torch.float64)
    whole = fused(model, graph, {"0": Fusion((1, 4), reads=matrix)})
    assert torch.equal(whole[0].weight, model[0].weight)
    assert oracle.distance(torch.einsum("kn,onhw->okhw", matrix, model[-1].weight), whole[-1].weight[:, [1, 4]]) < 1e-12


def test_rows_before_a_norm_that_lets_nothing_through_are_combined_as_they_are() -> None:
    """There is no scale to count them in."""
    model = normed()
    nn.init.zeros_(model[1].weight)
    graph = mp.trace(model, (torch.randn(2, 3, 5, 5, dtype=torch.float64),))
    matrix = torch.randn(2, 6, dtype=torch.float64)
    whole = fused(model, graph, {"0": Fusion((1, 2), writes=matrix)})
    assert oracle.distance(torch.einsum("kn,n...->k...", matrix, model[0].weight), whole[0].weight[[1, 2]]) < 1e-12
    assert all(tensor.isfinite().all() for tensor in whole.state_dict().values())


def test_depthwise_filters_are_carried() -> None:
    model = normed(nn.Conv2d(6, 6, 3, groups=6, bias=False))
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    matrix = torch.rand(2, 6, dtype=torch.float64)
    whole = fused(model, graph, {"0": Fusion((0, 3), carries=matrix)})
    assert oracle.distance(torch.einsum("kn,n...->k...", matrix, model[2].weight), whole[2].weight[[0, 3]]) < 1e-12


class Shared(nn.Module):
    """One convolution before two norms, and a result that is read without one."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.one(y) + (y if self.extra else self.other(self.conv(x + 1)))


def test_norms_behind_shared_rows_are_none() -> None:
    x = torch.randn(2, 3, 4, 4)
    plain = normed().float()
    assert [norm.rows for norm in norms(plain, mp.trace(plain, (x,)))] == [(("0.bias", 0), ("0.weight", 0))]
    for extra in (False, True):
        shared = Shared(extra).eval()
        assert norms(shared, mp.trace(shared, (x,))) == []


def test_what_cannot_be_absorbed_is_refused() -> None:
    one = case("vit")
    axis, why = next(iter(one.graph.unabsorbed.items()))
    with pytest.raises(PlanError, match="cannot be fused") as error:
        fused(one.model, one.graph, {axis: Fusion((0,))})
    assert why in str(error.value)


def test_another_network_than_the_graph_is_of_is_refused() -> None:
    graph = mp.trace(normed(), (torch.randn(2, 3, 5, 5, dtype=torch.float64),))
    wider = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Conv2d(7, 2, 1)).double().eval()
    with pytest.raises(PlanError, match="it is not of this Sequential"):
        fused(wider, graph, {"0": Fusion((1, 2), reads=torch.ones(2, 6, dtype=torch.float64))})


def test_the_model_is_left_alone() -> None:
    one = case("resnet")
    before = oracle.fingerprint(one.model)
    axis = next(name for name in one.graph.free if name not in one.graph.unabsorbed)
    size = one.graph.axes[axis].size
    every = torch.ones(1, size, dtype=torch.float64)
    fused(one.model, one.graph, {axis: Fusion((0,), every, every, every)})
    assert oracle.fingerprint(one.model) == before
