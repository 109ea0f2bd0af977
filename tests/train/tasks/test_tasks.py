"""Segmentation, detection and language modelling: what is learned, what is measured, and each pruned once."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

import metaprune as mp
from metaprune.train import (
    Detection,
    LanguageModelling,
    Recipe,
    Segmentation,
    Task,
    TaskError,
    distil,
    evaluate,
    fit,
)
from metaprune.train.engine import rehearse
from metaprune.train.tasks.segmentation import _right

RECIPE = Recipe(epochs=3, lr=3e-3, optimizer="adamw", precision="32-true", device="cpu", channels_last=False)


def pruned(model: nn.Module, args: tuple[Any, ...], task: Task, method: Any) -> mp.Result:
    budget = mp.Budget(macs=0.5, multiple_of=1)
    return mp.prune(model, args, method=method, budget=budget, task=task, recipe=RECIPE, progress=False)


# Segmentation.


class Segmenting(nn.Module):
    """Logits at half the size, alone or beside a further head, as torchvision gives them."""

    def __init__(self, heads: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.out, self.aux, self.heads = nn.Conv2d(16, 3, 1), nn.Conv2d(16, 3, 1), heads

    def forward(self, x: Tensor) -> Any:
        seen = self.body(x)
        return {"out": self.out(seen), "aux": self.aux(seen)} if self.heads else self.out(seen)


def scenes(batches: int = 4, size: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Brightness in three classes; the corner is unknown."""
    torch.manual_seed(0)
    maps = torch.randint(0, 3, (batches, size, 1, 2, 2)).float()
    maps = F.interpolate(maps.flatten(0, 1), scale_factor=4).unflatten(0, (batches, size))
    images = maps + 0.2 * torch.randn_like(maps)
    maps = maps[:, :, 0].long()
    maps[:, :, 0, 0] = 255
    return list(zip(images, maps, strict=True))


@pytest.mark.parametrize("heads", [False, True])
def test_segmentation_learns_and_measures_what_is_known(heads: bool) -> None:
    data, model = scenes(), Segmenting(heads)
    task = Segmentation(data, data, classes=3)
    rows = fit(model, task, replace(RECIPE, epochs=12, lr=0.03), progress=False).rows
    assert rows[-1].metric > 0.8 > rows[0].metric
    own = MulticlassJaccardIndex(3, ignore_index=255)
    for x, y in data:
        out = model.eval()(x)
        out = out["out"] if heads else out
        own.update(F.interpolate(out, (8, 8), mode="bilinear").argmax(1), y)
    assert evaluate(model, data, task, RECIPE) == pytest.approx(float(own.compute()), abs=1e-6)


def test_pixels_that_are_known_and_right_are_counted_in_percent() -> None:
    logits = torch.zeros(2, 3, 2, 2)
    logits[:, 1] = 1.0
    maps = torch.tensor([[[1, 1], [0, 255]], [[255, 255], [1, 2]]])
    right, count = _right(logits, (None, maps), lambda found, batch: (found, batch[1]), 255)
    assert (float(right), count) == (300.0, 5)


def test_the_loss_of_segmentation() -> None:
    data = scenes()
    x, y = data[0]
    out = Segmenting(True)(x)
    weight = torch.tensor([1.0, 2.0, 0.5])
    for given in (None, weight):
        loss = Segmentation(data, data, classes=3, weight=given).loss(out, (x, y))
        parts = [
            F.cross_entropy(F.interpolate(out[name], (8, 8), mode="bilinear"), y, given, ignore_index=255)
            for name in ("out", "aux")
        ]
        torch.testing.assert_close(loss, parts[0] + 0.5 * parts[1])
    unknown = Segmentation(data, data, classes=3).loss(out, (x, torch.full_like(y, 255)))
    assert unknown == 0  # where F.cross_entropy is no number
    for odd, words in (
        ((x, y.float()), "whole numbers"),
        ((x, y[:, 0]), "expected logits"),
        ((x, y.clamp(max=1) + 2), "got 3; renumber them, or say what is to be ignored: ignore=3"),
        ({"x": x}, "expected batches .images, maps."),
    ):
        with pytest.raises(TaskError, match=words):
            Segmentation(data, data, classes=3).loss(out, odd)
    with pytest.raises(TaskError, match="or a dictionary with them as 'out'"):
        Segmentation(data, data, classes=3).loss([x], (x, y))
    for bad in (1, 2.0, None):
        with pytest.raises(TaskError, match="classes as a whole number from 2"):
            Segmentation(data, data, classes=bad)  # type: ignore[arg-type]


def test_a_segmenting_network_is_pruned() -> None:
    data = scenes()
    torch.manual_seed(0)
    task = distil(Segmentation(data, data, classes=3), Segmenting(True))
    report = pruned(Segmenting(True), (data[0][0],), task, mp.DHP()).report
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert report.metric_name == "mIoU"
    assert set(report.pruned.further) == {"pixel accuracy (%)"}


# Detection.


class Detecting(nn.Module):
    """Torchvision's contract with one box an image: losses in training, boxes in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 3, 2, 1))
        self.box, self.cls = nn.Linear(12 * 16, 4), nn.Linear(12 * 16, 2)

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        seen = self.body(torch.stack(images)).relu().flatten(1)
        boxes, logits = self.box(seen), self.cls(seen)
        if self.training:
            true = torch.stack([target["boxes"][0] for target in targets])
            labels = torch.stack([target["labels"][0] for target in targets])
            return {"box": F.smooth_l1_loss(boxes, true / 16), "cls": F.cross_entropy(logits, labels)}
        scores, labels = logits.softmax(1).max(1)
        return [
            {"boxes": 16 * boxes[i : i + 1], "scores": scores[i : i + 1], "labels": labels[i : i + 1]}
            for i in range(len(images))
        ]


def things(batches: int = 6, size: int = 4) -> list[tuple[Any, Any]]:
    torch.manual_seed(1)
    found = []
    for _ in range(batches):
        images, targets = [], []
        for _ in range(size):
            (x, y), label = torch.randint(0, 8, (2,)).tolist(), int(torch.randint(0, 2, ()))
            image = 0.1 * torch.randn(1, 16, 16)
            image[:, y : y + 8, x : x + 8] += 1 if label else -1
            images.append(image)
            box = torch.tensor([[x, y, x + 8, y + 8]]).float()
            targets.append({"boxes": box, "labels": torch.tensor([label])})
        found.append((tuple(images), tuple(targets)))
    return found


class Overlap:
    """The mean overlap of the one box: a metric of one's own, where average precision cannot be had."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def update(self, found: list[dict[str, Tensor]], true: list[dict[str, Tensor]]) -> None:
        for a, b in zip(found, true, strict=True):
            (one,), (other,) = a["boxes"], b["boxes"]
            inside = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0).prod()
            total = sum((box[2:] - box[:2]).clamp(min=0).prod() for box in (one, other)) - inside
            self.seen.append(inside / total)

    def compute(self) -> Tensor:
        return torch.stack(self.seen).mean()


@cache
def detecting() -> tuple[nn.Module, float]:
    """A network that has learned to detect, and its overlap."""
    data = things()
    torch.manual_seed(0)
    model, task = Detecting(), Detection(data, data, metric=Overlap(), metric_name="overlap")
    rows = fit(model, task, replace(RECIPE, epochs=12), progress=False).rows
    assert rows[-1].metric > 0.4 > rows[0].metric
    return model, rows[-1].metric


@pytest.mark.parametrize("method", [mp.DHP(), mp.Taylor()], ids=lambda method: method.name)
def test_a_detecting_network_learns_and_is_pruned(method: Any) -> None:
    data, (model, overlap) = things(), detecting()
    task = Detection(data, data, metric=Overlap(), metric_name="overlap")
    result = pruned(model, (list(data[0][0]),), task, method)
    report = result.report
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert report.pruned.metric == pytest.approx(evaluate(result.model, data, task, RECIPE))
    assert report.dense.metric == pytest.approx(overlap)


def test_what_detection_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = things(1)
    task = Detection(data, data, metric=Overlap())
    with pytest.raises(TaskError, match=r"expected batches \(images, targets\)"):
        task.inputs({"images": data[0][0]})
    assert task.loss({"a": torch.tensor(1.0), "b": torch.tensor(2.5)}, data[0]) == 3.5
    for odd in ([], {}, {"a": 3.0}, {"a": torch.ones(2)}):
        with pytest.raises(TaskError, match="expected a dictionary of losses"):
            task.loss(odd, data[0])
    with pytest.raises(TaskError, match="for each image a dictionary with boxes"):
        task.judged(torch.ones(3), data[0])
    single = [((each,), (target,)) for each, target in zip(*data[0], strict=True)]
    rehearse(Detecting(), replace(task, train=_Sized(single)), RECIPE)  # which must not take channels for examples
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'metaprune\[detection\]', or give a metric of its own"):
        Detection(data, data)


class _Sized(list[Any]):
    batch_size, examples = 4, 5  # the last batch has one example


# Language.


class Speaking(nn.Module):
    """A causal network: logits in a tensor, or in an object as Hugging Face gives it."""

    def __init__(self, kind: str = "tensor", tokens: int = 7) -> None:
        super().__init__()
        self.kind = kind
        self.embed, self.mix = nn.Embedding(tokens, 16), nn.GRU(16, 16, batch_first=True)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, tokens)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = self.down(self.up(self.mix(self.embed(input_ids))[0]).relu())
        return {"tensor": logits, "object": SimpleNamespace(logits=logits), "dict": {"logits": logits}}[self.kind]


def sentences(batches: int = 4) -> list[Tensor]:
    """Each token is the one before and one more."""
    torch.manual_seed(2)
    return [(torch.randint(0, 7, (6, 1)) + torch.arange(10)) % 7 for _ in range(batches)]


@pytest.mark.parametrize("kind", ["tensor", "dict", "object"])
def test_perplexity_is_over_all_tokens(kind: str) -> None:
    data, model = [*sentences(), sentences()[0][:1]], Speaking(kind)  # uneven batches
    task = LanguageModelling(data, data)
    total, count = 0.0, 0
    for tokens in data:
        out = model.eval()(tokens)
        logits = out if kind == "tensor" else out["logits"] if kind == "dict" else out.logits
        total += F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").item()
        count += tokens[:, 1:].numel()
    assert evaluate(model, data, task, RECIPE) == pytest.approx(math.exp(total / count), rel=1e-5)
    assert not task.higher_is_better
    rows = fit(model, task, replace(RECIPE, epochs=8, lr=0.02), progress=False).rows
    assert rows[-1].metric < 3 < math.exp(total / count)


def test_batches_as_collators_make_them() -> None:
    """Padding is not learned, labels are not given to the network, and -100 is ignored."""
    tokens = sentences(1)[0]
    mask = torch.ones_like(tokens)
    mask[:, 7:] = 0
    model = Speaking()
    task = LanguageModelling([], [])
    batch = {"input_ids": tokens, "attention_mask": mask}
    args, kwargs = task.inputs({**batch, "labels": tokens})
    assert (args, set(kwargs)) == ((), {"input_ids", "attention_mask"})
    logits = model(**batch)
    expected = F.cross_entropy(logits[:, :6].flatten(0, 1), tokens[:, 1:7].flatten())
    torch.testing.assert_close(task.loss(logits, batch), expected)
    labels = tokens.masked_fill(mask == 0, -100)
    torch.testing.assert_close(task.loss(logits, {**batch, "labels": labels}), expected)
    for odd, words in (
        (tokens + 1, "inside .0, 7., as the network has outputs, got 7"),
        (tokens[:, :4], "tokens of shape"),
        (tokens.float(), "whole-number tokens"),
    ):
        with pytest.raises(TaskError, match=words):
            task.loss(logits, odd)
    with pytest.raises(TaskError, match="expected logits"):
        task.loss(logits[0], tokens)
    with pytest.raises(TaskError, match="expected batches of tokens"):
        task.inputs({"x": tokens})
    with pytest.raises(TaskError, match="two tokens or more"):
        task.loss(logits[:, :1], tokens[:, :1])


def test_a_speaking_network_is_pruned() -> None:
    data = sentences()
    torch.manual_seed(0)
    task = distil(LanguageModelling(data, data), Speaking())
    report = pruned(Speaking(), (data[0],), task, mp.DHP()).report
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert (report.metric_name, report.higher_is_better) == ("perplexity", False)
    assert report.settings["teacher.share"] == "0.5"


# A teacher's answers.


def softened(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(theirs / T) ‖ softmax(ours / T)) of rows of logits, on average."""
    ours, theirs = (F.softmax(each / temperature, 1) for each in (ours, theirs))
    return temperature**2 * (theirs * (theirs / ours).log()).sum(1).mean()


def test_a_teacher_is_heard_at_every_pixel_and_at_every_token() -> None:
    ours, theirs = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    distance = Segmentation([], [], classes=3, temperature=2.0).distance
    assert distance
    pixels = [each.permute(0, 2, 3, 1).reshape(-1, 3) for each in (ours, theirs)]
    torch.testing.assert_close(distance({"out": ours, "aux": theirs}, theirs), softened(*pixels, 2.0))
    ours, theirs = torch.randn(2, 4, 7), torch.randn(2, 4, 7)
    distance = LanguageModelling([], [], temperature=3.0).distance
    assert distance
    tokens = ours.reshape(8, 7), theirs.reshape(8, 7)
    torch.testing.assert_close(distance({"logits": ours}, theirs), softened(*tokens, 3.0))


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "hot"])
def test_a_temperature_that_is_none(temperature: Any) -> None:
    with pytest.raises(TaskError, match="segmentation: expected a temperature above 0"):
        Segmentation([], [], classes=3, temperature=temperature)
    with pytest.raises(TaskError, match="language modelling: expected a temperature above 0"):
        LanguageModelling([], [], temperature=temperature)


def test_what_is_ignored_may_be_another_number() -> None:
    """A class is then not counted: neither in the loss nor in what is measured."""
    torch.manual_seed(0)
    logits, maps = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    task = Segmentation([], [], classes=3, ignore=1)
    known = maps != 1
    rows = logits.movedim(1, -1)[known]
    torch.testing.assert_close(task.loss(logits, (None, maps)), F.cross_entropy(rows, maps[known]))
    right, count = task.further["pixel accuracy (%)"](logits, (None, maps))  # type: ignore[operator]
    assert (float(right), count) == (100 * int((rows.argmax(1) == maps[known]).sum()), int(known.sum()))
    tokens, speech = torch.randint(0, 7, (3, 6)), torch.randn(3, 6, 7)
    spoken = LanguageModelling([], [], ignore=2)
    after = tokens[:, 1:].flatten()
    expected = F.cross_entropy(speech[:, :-1].flatten(0, 1)[after != 2], after[after != 2])
    torch.testing.assert_close(spoken.loss(speech, tokens), expected)
    metric: Any = spoken.metric
    metric.update(*spoken.judged(speech, tokens))
    torch.testing.assert_close(metric.compute(), expected.exp())


def test_segmentation_takes_two_classes_and_no_fewer() -> None:
    data = [(torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))]
    assert Segmentation(data, data, classes=2).loss(torch.rand(1, 2, 4, 4), data[0]).item() > 0
    for classes in (1, 2.0, True):
        with pytest.raises(TaskError, match="whole number from 2"):
            Segmentation(data, data, classes=classes)  # type: ignore[arg-type]
