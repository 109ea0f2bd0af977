"""Batches: every example once, shifted as a slow loop would shift them, normalised."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metaprune.data import Batches
from metaprune.data.batches import shift


@pytest.fixture
def batches() -> Batches:
    images = torch.randint(256, (50, 3, 6, 8), dtype=torch.uint8)
    return Batches(images, torch.arange(50), 16, torch.full((3,), 100.0), torch.full((3,), 50.0))


def test_they_are_near_a_device_that_has_room(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    there = batches.near(torch.device("meta"))
    parts = (there.images, there.labels, there.mean, there.std)
    assert all(isinstance(part, Tensor) and part.is_meta for part in parts)
    assert batches.near(torch.device("cpu")) is batches
    lazy = replace(batches, images=lambda indices: torch.zeros(len(indices), 3, 6, 8, dtype=torch.uint8))
    assert lazy.near(torch.device("meta")) is lazy
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 1000))
    assert batches.near(torch.device("cuda")) is batches


def test_every_example_once(batches: Batches) -> None:
    for shuffle in (False, True):
        labels = [y for _, y in replace(batches, shuffle=shuffle)]
        assert [len(y) for y in labels] == [16, 16, 16, 2]
        assert len(batches) == 4
        assert (torch.cat(labels).tolist() == list(range(50))) is not shuffle
        assert torch.cat(labels).sort().values.tolist() == list(range(50))


def test_images_are_normalised_and_stay_with_their_labels(batches: Batches) -> None:
    assert isinstance(batches.images, Tensor)
    for x, y in replace(batches, shuffle=True):
        torch.testing.assert_close(50 * x + 100, batches.images[y].float())


def test_shifts_are_those_of_a_loop() -> None:
    """Each image is one of the windows of the padded image, or mirrored; and all of them turn up."""
    images = torch.randint(1, 256, (400, 2, 3, 4), dtype=torch.uint8)
    images[:] = images[0]
    padded = torch.zeros(2, 5, 6, dtype=torch.uint8)
    padded[:, 1:-1, 1:-1] = images[0]
    windows = [padded[:, i : i + 3, j : j + 4] for i in range(3) for j in range(3)]
    for flip, expected in ((False, windows), (True, [*windows, *(each.flip(2) for each in windows)])):
        found = shift(images, 1, flip)
        assert all(any(torch.equal(image, window) for window in expected) for image in found)
        assert all(any(torch.equal(image, window) for image in found) for window in expected)


def test_half_of_them_are_mirrored() -> None:
    images = torch.arange(2, dtype=torch.uint8).expand(400, 1, 1, 2)
    assert 160 < int(shift(images, 0, flip=True)[..., 0].sum()) < 240


def test_no_shift_no_change() -> None:
    images = torch.randint(256, (9, 1, 5, 5), dtype=torch.uint8)
    assert torch.equal(shift(images, 0, flip=False), images)


def test_the_seed_decides(batches: Batches) -> None:
    busy = replace(batches, shuffle=True, pad=1, flip=True)
    passes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        passes.append(torch.cat([x for x, _ in busy]))
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_are_read_when_needed(batches: Batches, workers: int) -> None:
    images = batches.images
    assert isinstance(images, Tensor)
    lazy = replace(batches, images=images.__getitem__, shuffle=True, workers=workers)
    for x, y in lazy:
        torch.testing.assert_close(50 * x + 100, images[y].float())
    drawn = []
    for one in (replace(batches, shuffle=True), lazy):  # to read them draws nothing
        torch.manual_seed(3)
        drawn.append((torch.cat([y for _, y in one]).tolist(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
