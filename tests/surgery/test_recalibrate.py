"""Running statistics measured anew."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from tests.laws import oracle


def network() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def batches(count: int = 5) -> list[tuple[Tensor, None]]:
    generator = torch.Generator().manual_seed(0)
    return [(2 + 3 * torch.randn(16, 3, generator=generator), None) for _ in range(count)]


def test_statistics_are_averages_over_batches() -> None:
    model, data = network(), batches()
    assert mp.recalibrate(model, data) == 5
    means = torch.stack([x.mean(0) for x, _ in data]).mean(0)
    variances = torch.stack([x.var(0) for x, _ in data]).mean(0)
    torch.testing.assert_close(model[0].running_mean, means)
    torch.testing.assert_close(model[0].running_var, variances)


def test_later_norms_see_what_earlier_ones_do_in_training() -> None:
    model, data = network(), batches(1)
    mp.recalibrate(model, data)
    x = data[0][0]
    hidden = model[1]((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(model[2].running_mean, hidden.mean(0))
    torch.testing.assert_close(model[2].running_var, hidden.var(0))


def test_only_statistics_change() -> None:
    model = network()
    model.train()
    model[2].eval()
    model[2].momentum = 0.3
    model[1].weight.requires_grad_(False)
    before = oracle.fingerprint(model)
    mp.recalibrate(model, batches())
    after = oracle.fingerprint(model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{i}.{name}" for i in (0, 2) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(p.grad is None for p in model.parameters())


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    """Shuffling and augmentation draw some; the caller's go on as if nothing had been."""
    data = torch.utils.data.DataLoader(torch.randn(32, 3), batch_size=8, shuffle=True)
    one, two = network(), network()
    state = torch.get_rng_state()
    mp.recalibrate(one, data, lambda batch: ((batch,), {}))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    mp.recalibrate(two, data, lambda batch: ((batch,), {}))
    assert torch.equal(one[0].running_var, two[0].running_var)


def test_no_more_than_the_most() -> None:
    model, few = network(), network()
    assert mp.recalibrate(model, batches(9), most=2) == 2
    mp.recalibrate(few, batches(2))
    assert torch.equal(model[0].running_mean, few[0].running_mean)


def test_a_network_without_statistics_is_not_run() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    model = nn.Sequential(Never(), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))
    assert mp.recalibrate(model, batches()) == 0


def test_inputs_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, *, picture: Tensor) -> Tensor:
            return self.norm(picture)

    model = Named()
    data = [{"picture": x} for x, _ in batches()]
    assert mp.recalibrate(model, data, lambda batch: ((), batch)) == 5
    assert model.norm.running_mean is not None
    assert model.norm.running_mean.mean() > 1


@pytest.mark.parametrize("good", [0, 2])
def test_after_an_error_the_statistics_are_what_they_were(good: int) -> None:
    model = network().eval()
    mp.recalibrate(model, batches(1))
    before = oracle.fingerprint(model)
    data: list[Any] = [*batches(good), (torch.zeros(4, 7), None)]
    with pytest.raises(RuntimeError, match="running_mean should contain 7 elements not 3"):
        mp.recalibrate(model, data)
    assert oracle.fingerprint(model) == before


def test_a_batch_of_another_kind_is_refused_with_the_way_out() -> None:
    model = network()
    before = oracle.fingerprint(model)
    for batch, what in (({"x": torch.ones(4, 3)}, "KeyError: 0"), (7, "TypeError"), ((3, 4), "AttributeError")):
        with pytest.raises(mp.MetapruneError, match=rf"cannot take a batch \({what}.*inputs=lambda batch"):
            mp.recalibrate(model, [batches(1)[0], batch])
        assert oracle.fingerprint(model) == before


def test_without_batches_the_statistics_are_what_they_were() -> None:
    model = network()
    mp.recalibrate(model, batches(1))
    before = oracle.fingerprint(model)
    assert mp.recalibrate(model, []) == 0
    assert oracle.fingerprint(model) == before


def test_norms_without_weights() -> None:
    """A network with statistics and not one parameter."""
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False))
    assert mp.recalibrate(model, batches()) == 5
    torch.testing.assert_close(model[0].running_mean, torch.stack([x.mean(0) for x, _ in batches()]).mean(0))
