"""A moving average of weights: by hand, in a training that is killed, and what is measured and kept of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.train.average import Average
from metaprune.train.callbacks import Callback, Moment

RECIPE = mp.Recipe(2, lr=0.3, precision="32-true", device="cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def task(average: float | None = 0.4) -> mp.Task:
    """From its fifth step on what counts is the decay, and no longer how short the training was."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 4, generator=generator)
    batches = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)
    return replace(mp.Classification(batches, batches), average=average)


class Noted(Callback):
    """All that the weights were after steps and epochs."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.epochs: list[dict[str, Tensor]] = []

    def on_step(self, moment: Moment) -> None:
        self.steps.append(state(moment.network))

    def on_epoch(self, moment: Moment) -> None:
        self.epochs.append(state(moment.network))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_it_is_what_is_measured_and_kept() -> None:
    """And the training itself goes on as if there were none."""
    plain, noted, given = Noted(), Noted(), network()
    mp.fit(network(), task(None), RECIPE, progress=False, callbacks=[plain])
    model = network()
    history = mp.fit(model, task(), RECIPE, progress=False, callbacks=[noted])
    for ours, theirs in zip(noted.steps, plain.steps, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    expected = state(given)
    for number, now in enumerate(plain.steps, start=1):
        decay = min(0.4, (1 + number) / (10 + number))
        expected = {
            name: decay * expected[name] + (1 - decay) * now[name] if now[name].is_floating_point() else now[name]
            for name in now
        }
    for found in (state(model), noted.epochs[-1]):
        torch.testing.assert_close(found, expected)
    assert any(not torch.equal(noted.epochs[-1][name], plain.epochs[-1][name]) for name in expected)
    assert history.rows[-1].metric == mp.train.evaluate(model, task().val, task(), RECIPE)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_killed_it_goes_on_to_the_same_average(keep: Any, tmp_path: Any) -> None:
    class Kill(Callback):
        def on_epoch(self, moment: Moment) -> None:
            if moment.epoch == 2:
                raise KeyboardInterrupt

    whole, model = network(), network()
    mp.fit(whole, task(), RECIPE, progress=False, keep=keep)
    with pytest.raises(KeyboardInterrupt):
        mp.fit(model, task(), RECIPE, progress=False, keep=keep, checkpoint=tmp_path, callbacks=[Kill()])
    for _ in range(2):  # the second time it is done already
        model = network()
        mp.fit(model, task(), RECIPE, progress=False, keep=keep, checkpoint=tmp_path)
        assert all(map(torch.equal, state(model).values(), state(whole).values()))


def test_while_something_acts_none_is_taken() -> None:
    """An average of weights whose zeros stay has others."""
    sparse = mp.sparsify(network(), 0.5)
    weights = [tensor for tensor in sparse.model.parameters() if tensor.dim() > 1]
    before = [weight == 0 for weight in weights]
    mp.fit(sparse.model, task(), RECIPE, progress=False, during=[sparse])
    assert sum(int(zero.sum()) for zero in before) > 10
    for weight, zero in zip(weights, before, strict=True):
        assert not weight[zero].any()


def test_an_error_gives_the_weights_back() -> None:
    model = network()
    average = Average(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1)
    before = state(model)
    shown = average.shown()
    shown.__enter__()
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert shown.__exit__(ValueError, ValueError("oh"), None) is not True
    assert all(map(torch.equal, state(model).values(), before.values()))


@pytest.mark.parametrize("average", [0.0, 1.0, "0.9", float("nan")])
def test_what_is_refused(average: Any) -> None:
    with pytest.raises(mp.MetapruneError, match="average"):
        task(average)
