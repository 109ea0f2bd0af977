"""What people do with networks of their own, as they do it: each in a few lines beside theirs, with any method.

The comment before each call says what the lines beside the user's own are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

import metaprune as mp

RECIPE = mp.Recipe(epochs=2, lr=0.02, precision="32-true", device="cpu", channels_last=False)
EXAMPLE = (torch.zeros(2, 1, 8, 8),)


def pruned(model: nn.Module, args: tuple[Any, ...], kwargs: Any = None, **fields: Any) -> mp.Result:
    given = {"budget": mp.Budget(macs=0.5, multiple_of=1), "recipe": RECIPE, "progress": False}
    return mp.prune(model, args, kwargs, **(given | fields))


class Net(nn.Module):
    """A stem, a body and a head, of the user's."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def loaders(classes: int = 3) -> Iterator[DataLoader[Any]]:
    for seed, count in enumerate((32, 24, 20)):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, classes, (count,), generator=generator)
        pictures = torch.randn(count, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
        yield DataLoader(TensorDataset(pictures, labels), 8, shuffle=not seed)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_best_epoch_is_not_lost(keep: Any) -> None:
    """A rate that is far too high: the last epoch is seldom the best; the report says so, and one word keeps it."""
    train, val, test = loaders()
    torch.manual_seed(0)
    wild = replace(RECIPE, epochs=4, lr=6.0, schedule="constant", momentum=0.0, keep=keep)
    task = mp.Classification(train, val, test)
    result = pruned(Net(), EXAMPLE, method=mp.Magnitude(), task=task, recipe=wild)
    history = result.report.history
    best = max(history, key=lambda epoch: (epoch.metric, epoch.epoch))
    assert best.metric > history[-1].metric + 1
    got = mp.evaluate(result.model, val, task, wild)
    assert got == pytest.approx(best.metric if keep == "best" else history[-1].metric)
    said = {
        "best": f"the weights are those of epoch {best.epoch:g}, the best of fine-tuning on the validation data",
        "last": f"epoch {best.epoch:g} of fine-tuning was better on the validation data than the last",
    }
    assert any(note.startswith(said[keep]) for note in result.report.notes)


class Detector(nn.Module):
    """Losses from targets in training, what it found in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, 1, 1))
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor, targets: Any = None) -> dict[str, Tensor]:
        found = self.out(self.body(images).relu())
        scores, places = found[:, 0].amax((1, 2)), found[:, 1:].mean((2, 3))
        if self.training:
            there = F.binary_cross_entropy_with_logits(scores, targets["there"])
            return {"there": there, "place": (places - targets["place"]).abs().mean()}
        return {"scores": scores.sigmoid(), "places": places}


@pytest.mark.parametrize(
    ("method", "with_targets"),
    [(mp.Magnitude(), False), (mp.Taylor(), True), (mp.DHP(), False), (mp.GraphMetanetwork(trial=1), True)],
    ids=str,
)
def test_losses_that_the_network_makes_of_targets(method: Any, with_targets: bool) -> None:
    torch.manual_seed(0)
    images = torch.randn(24, 1, 8, 8)
    bright = images.mean((1, 2, 3))
    rows = [(x, {"there": (b > 0).float(), "place": b.expand(2)}) for x, b in zip(images, bright, strict=True)]
    train, val = DataLoader(rows, 8), DataLoader(rows[:8], 4)
    images, targets = next(iter(val))
    # the losses are what the network gives in training; what it gives in evaluation is measured
    task = mp.Task(
        train,
        val,
        None,
        loss=lambda losses, batch: sum(losses.values()),
        metric=lambda found, batch: (((found["scores"] > 0.5) == (batch[1]["there"] > 0)).sum(), len(batch[0])),
        inputs=lambda batch: ((batch[0],), {"targets": batch[1]}),
    )
    result = pruned(Detector(), (images,), {"targets": targets} if with_targets else None, method=method, task=task)
    assert result.report.pruned.macs <= 0.5 * result.report.dense.macs
    assert result.plan.kept


def test_f1_of_the_set_with_class_weights() -> None:
    train, val, test = loaders()
    # a metric of torchmetrics and the weights of classes
    task = mp.Classification(train, val, test, weight=[1.0, 1.0, 5.0], metric=MulticlassF1Score(3), metric_name="F1")
    result = pruned(Net(), EXAMPLE, method=mp.DHP(), task=task)
    x, y = (torch.cat(parts) for parts in zip(*test, strict=True))
    own = f1_score(y.numpy(), result.model.eval()(x).argmax(1).numpy(), average="macro")
    assert result.report.pruned.metric == pytest.approx(own, abs=1e-6)
    assert result.report.metric_name == "F1"


def test_mean_iou_of_maps() -> None:
    class Maps(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(self.head(self.body(self.stem(x)).movedim(1, 3)).movedim(3, 1), scale_factor=2)

    train, val, _ = [[(x, (x[:, 0] > 0).long() + (x[:, 0] > 1)) for x, _ in loader] for loader in loaders()]
    # a loss and a metric of a whole set; both compare maps of logits and maps of classes
    task = mp.Task(train, val, None, lambda out, batch: F.cross_entropy(out, batch[1]), MulticlassJaccardIndex(3))
    result = pruned(Maps(), EXAMPLE, method=mp.Taylor(), task=task)
    own = MulticlassJaccardIndex(3)
    for x, y in val:
        own.update(result.model.eval()(x), y)
    assert result.report.pruned.metric == pytest.approx(float(own.compute()), abs=1e-6)


@pytest.mark.parametrize(("method", "kind"), [(mp.DHP(), "tuple"), (mp.Taylor(), "dict")], ids=str)
def test_a_teacher_with_several_outputs(method: Any, kind: str) -> None:
    class Two(Net):
        def __init__(self) -> None:
            super().__init__()
            self.size = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Any:
            seen = self.body(self.stem(x)).mean((2, 3))
            both = self.head(seen), self.size(seen)
            return both if kind == "tuple" else dict(zip(("cls", "reg"), both, strict=True))

    def both(out: Any) -> Any:
        return out if kind == "tuple" else (out["cls"], out["reg"])

    def loss(out: Any, batch: Any) -> Tensor:
        return F.cross_entropy(both(out)[0], batch[1]) + F.mse_loss(both(out)[1][:, 0], batch[1] / 10)

    def apart(out: Any, answers: Any) -> Tensor:
        return F.mse_loss(both(out)[0], both(answers)[0]) + F.mse_loss(both(out)[1], both(answers)[1])

    train, val, _ = loaders()
    torch.manual_seed(0)
    model, teacher = Two(), Two()
    right = lambda out, batch: ((both(out)[0].argmax(1) == batch[1]).sum() * 100.0, len(batch[1]))  # noqa: E731
    # how two outputs compare; the teacher, and a module whose outputs are compared too
    task = mp.distil(mp.Task(train, val, None, loss, right, distance=apart), teacher, features=["body"])
    result = pruned(model, EXAMPLE, method=method, task=task)
    assert result.report.pruned.macs <= 0.5 * result.report.dense.macs


@pytest.mark.parametrize("method", [mp.DHP(), mp.Taylor()], ids=lambda method: method.name)
def test_a_head_that_only_training_reads(method: Any) -> None:
    class Aided(Net):
        def __init__(self) -> None:
            super().__init__()
            self.aid = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            seen = self.stem(x)
            out = self.head(self.body(seen).mean((2, 3)))
            return (out, self.aid(seen.mean((2, 3)))) if self.training else out

    train, val, _ = loaders()

    def loss(out: Any, batch: Any) -> Tensor:
        outs = out if isinstance(out, tuple) else (out,)
        return sum((F.cross_entropy(each, batch[1]) for each in outs), torch.zeros(()))

    # nothing beside the loss
    task = mp.Task(train, val, None, loss, lambda out, batch: ((out.argmax(1) == batch[1]).sum(), len(batch[1])))
    torch.manual_seed(0)
    result = pruned(Aided(), EXAMPLE, method=method, task=task, budget=mp.Budget(macs=0.2, multiple_of=1))
    assert "stem.0" in result.plan.kept
    assert [out.shape for out in result.model.train()(EXAMPLE[0])] == [(2, 3), (2, 3)]
