"""One picture: the square in its middle, and what cannot be read."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from metaprune.data.pictures import DataError, opened, pixels, squared


def bytes_of(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(6, 13), (13, 6), (6, 6)])
def test_the_square_in_the_middle(height: int, width: int) -> None:
    """Of a picture whose shorter side has the size already; the pixel over stays at the bottom or the right."""
    given = bytes_of(height, width, 3)
    found = squared(Image.fromarray(given.numpy()), "RGB", 6, "who")
    top, left = (height - 6) // 2, (width - 6) // 2
    assert torch.equal(found, given[top : top + 6, left : left + 6].permute(2, 0, 1))


def test_the_shorter_side_is_scaled() -> None:
    picture = Image.fromarray(bytes_of(12, 20).numpy())
    expected = pixels(picture.resize((10, 6)), "L")[:, :, 2:8]
    assert torch.equal(squared(picture, "L", 6, "who"), expected)


def test_a_picture_that_would_become_too_long_is_refused() -> None:
    with pytest.raises(DataError, match="who is too long: 1x9000 pixels, 100x900000 once scaled"):
        squared(Image.new("L", (1, 9000)), "L", 100, "who")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("broken\n  data"), "(broken data)"),
        (ValueError(), "(ValueError)"),
        (ValueError("x" * 200), "(" + "x" * 120 + ")"),
    ],
    ids=["two lines", "no words", "long"],
)
def test_why_a_picture_cannot_be_read_is_said_in_one_line(error: Exception, reason: str, tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    said = re.escape(f"a.png cannot be read as an image {reason}; take it away")
    with pytest.raises(DataError, match=f"^{said}$"), opened(tmp_path / "a.png", "a.png"):
        raise error
