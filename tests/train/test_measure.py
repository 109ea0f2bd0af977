"""Metrics over a whole set: what they should be, whoever cuts it into batches."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, MulticlassF1Score, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from metaprune.train import Classification, Detection, Recipe, Task, TaskError, TrainError, evaluate, fit
from metaprune.train.scores import scores, scores_of_outputs

RECIPE = Recipe(epochs=1, lr=0.01, precision="32-true", device="cpu")
UNEVEN = (7, 1, 30, 12)
"""Examples in each batch: a mean over batches is another number."""


def batches(make: Callable[[int], tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    torch.manual_seed(2)
    return [make(size) for size in UNEVEN]


def classes(size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 4), torch.randint(0, 3, (size,))


class Leading(nn.Module):
    """Logits that are the first inputs; a weight, so that there is something to train."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs, self.weight = outputs, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.outputs] * self.weight


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
def test_f1_of_the_whole_set_is_scikit_learn_s(average: Any) -> None:
    data = batches(classes)
    metric = MulticlassF1Score(3, average=average)
    metric.update(torch.tensor([0, 1]), torch.tensor([1, 0]))  # what it has seen before does not count
    task = Classification(data, data, metric=metric)
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    expected = f1_score(y.numpy(), x[:, :3].argmax(1).numpy(), average=average)
    assert evaluate(Leading(3), data, task, RECIPE) == pytest.approx(expected, abs=1e-6)
    assert task.metric_name == "MulticlassF1Score"
    assert metric.update_count == 1  # a copy was asked
    found = fit(Leading(3), replace(task, train=data), replace(RECIPE, lr=1e-6), progress=False)
    assert found.rows[0].metric == pytest.approx(expected, abs=1e-6)


def test_area_under_the_curve_is_scikit_learn_s() -> None:
    data = batches(lambda size: (torch.randn(size, 4), torch.randint(0, 2, (size,))))
    task = Classification(data, data, metric=BinaryAUROC())
    task = replace(task, judged=lambda output, batch: (output[:, 1] - output[:, 0], batch[1]))
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    expected = roc_auc_score(y.numpy(), (x[:, 1] - x[:, 0]).numpy())
    assert evaluate(Leading(2), data, task, RECIPE) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", [MulticlassJaccardIndex(3), MeanIoU(3, input_format="index", per_class=False)])
def test_mean_iou_is_torchmetrics_own(metric: Metric) -> None:
    data = batches(lambda size: (torch.randn(size, 4, 6, 6), torch.randint(0, 3, (size, 6, 6))))
    task = Classification(data, data, metric=metric, metric_name="mIoU")
    task = replace(task, judged=lambda output, batch: (output.argmax(1), batch[1]))
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    own = metric.clone()
    own.update(x[:, :3].argmax(1), y)
    assert evaluate(Leading(3), data, task, RECIPE) == pytest.approx(float(own.compute()), abs=1e-6)


def boxes(size: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    corners = 20 * torch.rand(size, 3, 2)
    found = torch.cat([corners, corners + 5 + 10 * torch.rand(size, 3, 2)], 2)
    return found, [{"boxes": each, "labels": torch.tensor([0, 1, 1])} for each in found + torch.randn(size, 3, 4)]


class Finding(nn.Module):
    """Boxes that were given to it, as detections."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        scores, labels = torch.tensor([0.9, 0.5, 0.3]), torch.tensor([0, 1, 0])
        return [{"boxes": each * self.weight, "scores": scores, "labels": labels} for each in x]


@pytest.fixture
def boxes_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no torchvision for this torch: torchmetrics asks of it only to turn corners into sizes."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        ops = types.ModuleType("torchvision.ops")
        ops.box_convert = lambda x, in_fmt, out_fmt: torch.cat([x[:, :2], x[:, 2:] - x[:, :2]], 1)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
        monkeypatch.setattr("torchmetrics.detection.mean_ap._TORCHVISION_AVAILABLE", True)


@pytest.mark.usefixtures("boxes_are_converted")
@pytest.mark.parametrize(("name", "entry"), [("mAP", "map"), ("map_75", "map_75")])
def test_mean_average_precision_is_torchmetrics_own(name: str, entry: str) -> None:
    """Which computes a dictionary: the entry that is named counts, or the first."""
    from torchmetrics.detection.mean_ap import MeanAveragePrecision

    data = batches(boxes)
    task = Task(data, data, None, lambda output, batch: output, MeanAveragePrecision(backend="faster_coco_eval"), name)
    own = MeanAveragePrecision(backend="faster_coco_eval")
    own.update([each for x, _ in data for each in Finding()(x)], [each for _, y in data for each in y])
    expected = float(own.compute()[entry])
    assert 0 < expected < 1
    assert evaluate(Finding(), data, task, RECIPE) == pytest.approx(expected, abs=1e-6)
    usual = Detection(data, data)
    if name == "mAP":
        usual = replace(usual, inputs=task.inputs)  # as the network takes its boxes here
        assert usual.metric_name == "mAP"
        assert evaluate(Finding(), data, usual, RECIPE) == pytest.approx(expected, abs=1e-6)


class Median:
    """A metric of one's own: an object with update and compute, and no reset."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        self.seen.append(output[:, 0])

    def compute(self) -> Tensor:
        return torch.cat(self.seen).median()


def test_any_object_that_updates_and_computes() -> None:
    data = batches(classes)
    task = Task(data, data, None, loss=lambda output, batch: output.sum(), metric=Median())
    x = torch.cat([x for x, _ in data])
    for _ in range(2):
        assert evaluate(Leading(3), data, task, RECIPE) == pytest.approx(float(x[:, 0].median()))
    assert task.metric_name == "Median"
    assert not task.metric.seen  # type: ignore[union-attr]


def test_several_in_one_pass() -> None:
    """The one that chooses, and further ones of both kinds; also of outputs without a network."""
    data = batches(classes)
    collection = MetricCollection({"f1": MulticlassF1Score(3), "iou": MulticlassJaccardIndex(3)})
    task = Classification(data, data, metric=collection, metric_name="iou")
    accuracy = Classification(data, data).metric
    task = replace(task, further={"median": Median(), "accuracy": accuracy})
    found, passes = scores(Leading(3), data, task, RECIPE), []
    assert found == scores_of_outputs(lambda batch: passes.append(0) or batch[0][:, :3], data, task)  # type: ignore[func-returns-value]
    assert len(passes) == len(data)
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    assert found.metric == pytest.approx(float(MulticlassJaccardIndex(3)(x[:, :3], y)))
    assert found.further["median"] == pytest.approx(float(x[:, 0].median()))
    assert found.further["accuracy"] == pytest.approx(100 * float((x[:, :3].argmax(1) == y).float().mean()))


def test_class_weights() -> None:
    data = batches(classes)
    task = Classification(data, data, weight=[1.0, 9.0, 0.0])
    logits, (x, y) = Leading(3)(data[2][0]), data[2]
    weights = torch.tensor([1.0, 9.0, 0.0])
    torch.testing.assert_close(task.loss(logits, (x, y)), torch.nn.functional.cross_entropy(logits, y, weights))
    assert task.settings["task.weight"] == "1, 9, 0"
    with pytest.raises(TaskError, match="got 3 for 2 outputs"):
        task.loss(logits[:, :2], (x, y.clamp(max=1)))
    for odd in ([1.0, -1.0], [], [[1.0]], "ab", [float("nan")]):
        with pytest.raises(TaskError, match="expected weight as numbers"):
            Classification(data, data, weight=odd)  # type: ignore[arg-type]


class Computing:
    """A metric that computes whatever it was told to."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def update(self, *judged: Any) -> None:
        if self.value is None:
            raise KeyError("mine")

    def compute(self) -> Any:
        return self.value


ODD: dict[str, tuple[Any, str]] = {
    "a vector": (torch.ones(3), r"one number, got a tensor of shape \(3,\); average it"),
    "words": ("good", "one number, got 'good'"),
    "nothing": ({}, "an empty dictionary"),
    "no number": (torch.tensor(float("nan")), "Computing is nan"),
    "an error": (None, "the metric's update failed: KeyError: 'mine'"),
}


@pytest.mark.parametrize("kind", ODD)
def test_metrics_that_compute_no_number(kind: str) -> None:
    value, words = ODD[kind]
    data = batches(classes)
    with pytest.raises((TaskError, TrainError), match=words):
        evaluate(Leading(3), data, Classification(data, data, metric=Computing(value)), RECIPE)


def test_metrics_that_do_not_fit_the_task() -> None:
    from torchmetrics import MeanSquaredError

    data = batches(classes)
    with pytest.raises(TaskError, match="got the class MulticlassF1Score; make one"):
        Classification(data, data, metric=MulticlassF1Score)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"MeanSquaredError says that less of it is better.*higher_is_better=False"):
        Task(data, data, None, loss=lambda output, batch: output.sum(), metric=MeanSquaredError())
    described = [{"x": x, "y": y} for x, y in data]
    task = Task(
        described, described, None, lambda o, b: o.sum(), MulticlassF1Score(3), inputs=lambda b: ((b["x"],), {})
    )
    with pytest.raises(TaskError, match=r"judged=lambda output, batch: \(output, batch\['labels'\]\)"):
        evaluate(Leading(3), described, task, RECIPE)
    odd = replace(Classification(data, data, metric=Median()), judged=lambda output, batch: output)
    with pytest.raises(TaskError, match="expected judged to give what the metric's update takes"):
        evaluate(Leading(3), data, odd, RECIPE)


def test_a_metric_that_was_used_before_begins_anew() -> None:
    data = batches(classes)
    metric = MulticlassF1Score(3)
    expected = evaluate(Leading(3), data, Classification(data, data, metric=metric), RECIPE)
    metric.update(torch.tensor([0, 0, 0]), torch.tensor([1, 2, 1]))
    used = Classification(data, data, metric=metric)
    assert evaluate(Leading(3), data, used, RECIPE) == pytest.approx(expected, abs=1e-6)
    assert int(metric.tp.sum() + metric.fp.sum()) == 3  # the user's own is as it was
