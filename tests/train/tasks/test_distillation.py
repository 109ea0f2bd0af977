"""Learning from a teacher: its answers, of any structure, and what its modules give."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.methods import small
from torch import Tensor, nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.train import Classification, Recipe, Task, TaskError, Training, fit
from metaprune.train.tasks.distillation import distil, likeness

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])


def test_a_teacher_alone_is_imitated(task: Task, recipe: Recipe) -> None:
    """All labels are wrong, but only the teacher counts."""
    torch.manual_seed(1)
    teacher, student = nn.Linear(16, 3), nn.Linear(16, 3)
    shaped = nn.Sequential(nn.Flatten(), teacher)
    wrong = Classification([(x, (y + 1) % 3) for x, y in task.train], task.val)
    before = teacher.weight.clone()
    fit(
        nn.Sequential(nn.Flatten(), student),
        distil(wrong, shaped, share=1.0),
        Recipe(epochs=60, lr=0.1, weight_decay=0.0, precision="32-true", device="cpu"),
        progress=False,
    )
    x = torch.cat([images for images, _ in task.train]).flatten(1)
    assert (F.softmax(student(x), 1) - F.softmax(teacher(x), 1)).abs().max() < 0.02
    assert torch.equal(before, teacher.weight)
    assert teacher.weight.requires_grad
    assert shaped.training


def test_a_teacher_that_agrees_adds_nothing(task: Task) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    batch = next(iter(task.train))
    output = network(batch[0])
    loss = distil(task, network, share=0.25).loss(output, batch)
    torch.testing.assert_close(loss, 0.75 * task.loss(output, batch))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_answers_are_softened(temperature: float) -> None:
    distance = Classification([], [], temperature=temperature).distance
    assert distance
    answers = LOGITS.flip(1)
    soft, softer = (F.softmax(logits / temperature, 1) for logits in (LOGITS, answers))
    divergence = (softer * (softer / soft).log()).sum(1).mean()
    torch.testing.assert_close(distance(LOGITS, answers), temperature**2 * divergence)


def test_a_task_that_cannot_compare_outputs_has_no_teacher() -> None:
    own = Task([], [], None, loss=lambda output, _: output.sum(), metric=lambda output, _: (output.sum(), 1))
    with pytest.raises(TaskError, match="distance"):
        distil(own, nn.Linear(1, 1))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(TaskError, match="share from 0 to 1"):
        distil(Classification([], []), nn.Linear(1, 1), share=share)


def test_a_teacher_answers_in_evaluation_mode_whatever_mode_it_was_given_in(task: Task) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)).train()
    alone = distil(task, teacher, share=1.0)
    batch = next(iter(task.train))
    output = torch.zeros(len(batch[1]), 3)
    losses = {float(alone.loss(output, batch)) for _ in range(5)}
    assert len(losses) == 1
    assert teacher.training


# Outputs of any structure.


class Several(nn.Module):
    """Classes and brightness, in a tuple or a dictionary."""

    def __init__(self, kind: str, width: int = 12) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU())
        self.classes, self.bright = nn.Linear(width, 3), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Any:
        seen = self.body(x)
        a, b = self.classes(seen), self.bright(seen)
        return (a, b) if self.kind == "tuple" else {"classes": a, "bright": b, "count": len(x)}


def parts(output: Any) -> tuple[Tensor, Tensor]:
    return output if isinstance(output, tuple) else (output["classes"], output["bright"])


def several(loader: DataLoader[Any]) -> Task:
    def loss(output: Any, batch: Any) -> Tensor:
        classes, bright = parts(output)
        return F.cross_entropy(classes, batch[1]) + F.mse_loss(bright[:, 0], batch[0].mean((1, 2, 3)))

    def distance(ours: Any, theirs: Any) -> Tensor:
        return sum((F.mse_loss(a, b) for a, b in zip(parts(ours), parts(theirs), strict=True)), torch.zeros(()))

    return Task(
        loader,
        loader,
        None,
        loss=loss,
        metric=lambda output, batch: (100.0 * (parts(output)[0].argmax(1) == batch[1]).sum(), len(batch[1])),
        distance=distance,
    )


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_answers_of_any_structure(kind: str, loader: DataLoader[Any], recipe: Recipe) -> None:
    task, teacher, student = several(loader), Several(kind), Several(kind)
    fit(teacher, task, replace(recipe, epochs=5), progress=False)
    alone = distil(task, teacher, share=1.0)
    batch = loader.dataset[:8]  # type: ignore[index]
    before = alone.loss(student(batch[0]), batch).item()
    fit(student, alone, replace(recipe, epochs=20), progress=False)
    assert alone.loss(student(batch[0]), batch).item() < before / 4


# Features.


def test_likeness_is_the_paper_s() -> None:
    ours, theirs = torch.randn(5, 4, 2, 2), torch.randn(5, 9)
    one, other = (each.reshape(5, -1) @ each.reshape(5, -1).T for each in (ours, theirs))
    one, other = (each / each.norm(dim=1, keepdim=True) for each in (one, other))
    torch.testing.assert_close(likeness(ours, theirs), (one - other).square().sum() / 25)


def test_features_alone_are_imitated(loader: DataLoader[Any], recipe: Recipe) -> None:
    """Of a wider teacher, which calls its module otherwise; no hook stays, and labels do not matter."""
    torch.manual_seed(1)
    teacher = nn.ModuleDict({"trunk": Several("tuple", 20)})["trunk"]
    student = Several("tuple", 6)
    task = replace(several(loader), distance=None)
    taught = distil(task, teacher, share=1.0, features={"body": "body.2"})
    x = loader.dataset[:48][0]  # type: ignore[index]
    before = likeness(student.body(x), teacher.body(x)).item()
    fit(student, taught, replace(recipe, epochs=20, lr=1.0), progress=False)
    assert likeness(student.body(x), teacher.body(x)).item() < before / 2
    assert not any(module._forward_hooks for each in (student, teacher) for module in each.modules())


class Averaging(nn.Module):
    """A norm runs over what is cut, so the search runs a program in the place of the code once channels are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(64, 16), nn.LayerNorm(16)
        self.body, self.head = nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.norm(self.up(x.flatten(1)))).relu())


@pytest.mark.parametrize("method", [mp.DHP(search=1.0), mp.Taylor()], ids=lambda method: method.name)
def test_features_are_heard_while_a_method_searches(method: Any) -> None:
    torch.manual_seed(0)
    model = Averaging()
    heard: list[int] = []

    def compare(ours: Tensor, theirs: Tensor) -> Tensor:
        heard.append(ours.shape[1])
        return likeness(ours, theirs)

    task = distil(small.task(), copy.deepcopy(model), features=["norm", "body"], compare=compare)
    result = mp.prune(
        model,
        small.EXAMPLE,
        method=method,
        budget=mp.Budget(macs=0.4, multiple_of=1),
        task=task,
        recipe=small.recipe(2),
        progress=False,
    )
    assert result.report.settings["teacher.features"] == "norm, body"
    assert len(heard) > 2 * 24
    assert (min(heard) < 16) == isinstance(method, mp.Taylor)  # fine-tuning hears the cut network


def test_what_cannot_be_taught(task: Task, recipe: Recipe, network: nn.Module) -> None:
    teacher = copy.deepcopy(network)
    with pytest.raises(TaskError, match="the teacher has no module 'trunk'; it has 0, 1, 2"):
        distil(task, teacher, features=["trunk"])
    with pytest.raises(TaskError, match="the network has no module '7'"):
        fit(network, distil(task, teacher, features={"7": "0"}), recipe, progress=False)
    with pytest.raises(TaskError, match="features as names"):
        distil(task, teacher, features=[1])  # type: ignore[list-item]
    with pytest.raises(TaskError, match="a step of its own is compared by features alone"):
        distil(replace(task, step=lambda training, batch: training.loss(batch)), teacher)
    wider = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(20, 3))
    unlike = distil(task, wider, features=["0"], compare=lambda ours, theirs: (ours - theirs).square().mean())
    with pytest.raises(TaskError, match=r"the outputs of '0' cannot be compared \(RuntimeError.*give compare="):
        fit(network, unlike, recipe, progress=False)
    network.idle = nn.Identity()
    network.forward = nn.Sequential(*network[:6]).forward  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="idle was not called in the forward"):
        fit(network, distil(task, teacher, features={"idle": "0"}), recipe, progress=False)


def test_of_several_modules_of_a_name_the_outermost_is_heard(task: Task) -> None:
    """While a method searches, the network lies inside another; a name may stand deeper once more."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleDict({"body": nn.Identity()})
            self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.first["body"](x))

    batch = next(iter(task.train))
    teacher, student = Nested(), Nested()
    for each in (teacher, student):
        each(batch[0])
    heard = []
    taught = distil(task, teacher, share=1.0, features=["body"], compare=lambda a, b: heard.append((a, b)) or a.sum())
    assert taught.step is not None
    taught.step(Training(student, student, {}, {}, task), batch)
    [(ours, theirs)] = heard
    torch.testing.assert_close((ours, theirs), (student(batch[0]), teacher(batch[0])))


@pytest.mark.parametrize("own", [False, True])
def test_what_is_learned_from_features_by_hand(own: bool, loader: DataLoader[Any]) -> None:
    """(1 - share) · loss + share · (mean over modules + distance of answers); a step may take the loss's place."""
    teacher, student = Several("tuple", 20), Several("tuple", 6)
    task = several(loader)
    task = replace(task, distance=None, step=lambda training, batch: 3 * training.loss(batch)) if own else task
    taught = distil(task, teacher, share=0.25, features=["body", "bright"])
    assert taught.settings["teacher.share"] == "0.25"
    batch = next(iter(loader))
    assert taught.step is not None
    found = taught.step(Training(student, student, {}, {}, task), batch)
    ours, theirs = student(batch[0]), teacher(batch[0])
    apart = likeness(student.body(batch[0]), teacher.body(batch[0])) + likeness(ours[1], theirs[1])
    far = 0 if own else F.mse_loss(ours[0], theirs[0]) + F.mse_loss(ours[1], theirs[1])
    expected = 0.75 * (3 if own else 1) * task.loss(ours, batch) + 0.25 * (apart / 2 + far)
    torch.testing.assert_close(found, expected)
