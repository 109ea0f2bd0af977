"""Classification, and learning from a teacher."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaprune.train import Classification, Recipe, Task, TaskError, distil, fit

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
BATCH = (torch.empty(4, 1), torch.tensor([0, 1, 2, 2]))


def test_accuracy_is_in_percent() -> None:
    total, count = Classification([], []).metric(LOGITS, BATCH)
    assert (float(total), count) == (300.0, 4)


def test_the_loss_is_cross_entropy() -> None:
    for smoothing in (0.0, 0.1):
        loss = Classification([], [], label_smoothing=smoothing).loss(LOGITS, BATCH)
        torch.testing.assert_close(loss, F.cross_entropy(LOGITS, BATCH[1], label_smoothing=smoothing))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(4), torch.zeros(4).long()),
        (torch.zeros(4, 3, 2, 2), torch.zeros(4).long()),
        (torch.zeros(4, 3), torch.zeros(5).long()),
        (torch.zeros(4, 3), torch.zeros(4)),
    ],
)
def test_shapes_and_types_that_do_not_fit(logits: Tensor, labels: Tensor) -> None:
    task = Classification([], [])
    for function in (task.loss, task.metric):
        with pytest.raises(TaskError, match="expected logits"):
            function(logits, (None, labels))


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
