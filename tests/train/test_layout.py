"""Networks, losses and metrics that do not take pictures channels last train all the same, as without that layout."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.train.engine import evaluate, rehearse
from metaprune.train.task import TaskError


class Viewed(nn.Module):
    """Flattened by a view, which PyTorch refuses of what lies channels last, in one mode or both."""

    def __init__(self, training: bool | None = None) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 4 * 4, 5)
        self.views = (True, False) if training is None else (training,)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.fc(x.view(x.size(0), -1) if self.training in self.views else x.flatten(1))


def pictures(classes: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(6, 3, 8, 8, generator=generator), torch.randint(classes, (6,), generator=generator))
        for _ in range(3)
    ]


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def recipe(**fields: Any) -> mp.Recipe:
    return mp.Recipe(epochs=2, lr=0.05, device="cpu", **fields)


@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_view_trains(training: bool | None, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, task = made(lambda: Viewed(training)), mp.Classification(pictures(), pictures())
    plain = copy.deepcopy(model)
    rehearse(model, task, recipe(precision=precision))
    mp.fit(model, task, recipe(precision=precision))
    assert capsys.readouterr().err.count("channels last, so it is given them channels first") == 1
    assert model.conv.weight.is_contiguous()  # type: ignore[union-attr]
    if training is not False:
        mp.fit(plain, task, recipe(precision=precision, channels_last=False))
        assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))
        scores = [evaluate(each, task.val, task, recipe(precision=precision)) for each in (model, plain)]
        assert scores[0] == scores[1]


@pytest.mark.parametrize(
    "method", [mp.Magnitude(), mp.DHP(), mp.MetaPruning(population=4, generations=1, parents=2)], ids=lambda m: m.name
)
def test_a_view_is_pruned(method: Any) -> None:
    model, task = made(Viewed), mp.Classification(pictures(), pictures())
    budget = mp.Budget(macs=0.6, multiple_of=1)
    result = mp.prune(
        model, (torch.randn(2, 3, 8, 8),), method=method, budget=budget, task=task, recipe=recipe(), progress=False
    )
    assert result.report.pruned.macs <= 0.6 * result.report.dense.macs


def test_what_fails_in_either_layout_is_said_once() -> None:
    model, task = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 5))), pictures()
    with pytest.raises(TaskError, match="fine-tuning: the network cannot take the batch: RuntimeError: mat1"):
        mp.fit(model, mp.Classification(task, task), recipe())
    assert model[0].weight.is_contiguous()  # type: ignore[index,union-attr]


def error(output: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[float, int]:
    return float((output.view(len(output), -1) - batch[1].view(len(output), -1)).square().mean(1).sum()), len(output)


@pytest.mark.parametrize("of", ["loss", "metric"])
def test_a_loss_and_a_metric_may_view(of: str) -> None:
    model = made(lambda: nn.Conv2d(3, 3, 3, padding=1))
    generator = torch.Generator().manual_seed(0)
    data = [tuple(torch.randn(2, 3, 8, 8, generator=generator) for _ in range(2)) for _ in range(2)]
    task = mp.Denoising(data, data, sigma=25)
    task = (
        replace(task, loss=lambda output, batch: output.view(len(output), -1).square().mean())
        if of == "loss"
        else replace(task, metric=error, metric_name="error", further={"again": error})
    )
    before = copy.deepcopy(model)
    mp.fit(model, task, recipe())
    assert not torch.equal(before.weight, model.weight)  # type: ignore[arg-type]
    if of == "metric":
        model.eval()
        expected = sum(error(model(x).detach(), (x, y))[0] for x, y in data) / 4
        assert evaluate(model, data, task, recipe(precision="32-true")) == pytest.approx(expected, rel=1e-4)


def test_partners_may_view() -> None:
    model = made(lambda: nn.Conv2d(1, 3, 3, padding=1))
    judge = made(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Viewer()))
    data = [(torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)) for _ in range(2)]
    task = mp.Adversarial(data, data, discriminator=judge)
    (partner,) = (partner.module for partner in task.partners.values())
    before = copy.deepcopy(dict(partner.named_parameters()))
    mp.fit(model, task, recipe())
    for name, weight in partner.named_parameters():
        assert weight.is_contiguous()
        assert not torch.equal(before[name], weight)


class Viewer(nn.Module):
    """A row for each picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)
