"""Classification, and learning from a teacher."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaprune.train import Classification, TaskError

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
BATCH = (torch.empty(4, 1), torch.tensor([0, 1, 2, 2]))


def test_accuracy_is_in_percent() -> None:
    total, count = Classification([], []).metric(LOGITS, BATCH)
    assert (float(total), count) == (300.0, 4)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_labels_are_whole_numbers_of_any_size(kind: torch.dtype) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    task, labels = Classification([], []), torch.tensor([0, 1])
    batch = (torch.zeros(2, 1), labels.to(kind))
    assert float(task.loss(logits, batch)) == pytest.approx(float(F.cross_entropy(logits, labels)))
    assert tuple(map(float, task.metric(logits, batch))) == (100.0, 2.0)  # type: ignore[operator]


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
