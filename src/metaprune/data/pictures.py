"""One picture, from bytes or from a file inside a folder, to pixels; whatever is wrong with it is said in one line."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metaprune.graph.errors import MetapruneError

__all__ = ["DataError", "as_bytes", "inside", "named", "opened", "pixels", "squared"]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, where Pillow can; it knows others that start programs (EPS), and these are never tried."""

LONGEST = 1024
"""Characters of a name."""

MOST = 1 << 26
"""Pixels that a picture may have, before and after it is scaled: 67 million, as 8192x8192."""


class DataError(MetapruneError):
    """Data that cannot be found or read."""


def inside(path: str | Path, roots: Sequence[Path], who: str) -> Path:
    """A path, once it is known to lie in one of the folders (`roots`, resolved); links are followed first.

    Raises:
        DataError: it leads out of them, or there is no such file.
    """
    try:
        found = (roots[0] / path).resolve()
        there = found.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a link to itself, or no text for a path
        raise DataError(
            f"{who}: {str(path)[:60]!r} is no path of a file ({str(error)[:60]}); take the row away"
        ) from error
    if not any(found.is_relative_to(root) for root in roots):
        raise DataError(f"{who}: {path} leads out of {roots[0]}, so it is not opened; copy the file into the folder")
    if not there:
        raise DataError(f"{who}: there is no file {path}; take the row away, or put the file there")
    return found


def named(name: object, who: str, expected: str) -> None:
    """Refuse what is no name of a folder or the like.

    Raises:
        DataError: it is empty, or longer than a path can be, or holds characters that are none.
    """
    words = str(name)
    odd = not isinstance(name, str | Path) or not words.strip() or len(words) > LONGEST
    if odd or any(letter < " " for letter in words):
        shown = repr(name)
        raise DataError(f"{who}: expected {expected}, got {shown if len(shown) <= 60 else shown[:60] + ' …'}")


@contextmanager
def opened(source: Path | bytes, who: str) -> Iterator[Image.Image]:
    """A picture of Pillow's whose size and type are known and taken; its pixels are not decoded yet.

    Raises:
        DataError: it is no picture, or too large, or has more than 8 bits a channel; or what is done with it inside
            the block fails.
    """
    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are looked at below, and of odd entries in headers
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as picture:
                if picture.width * picture.height > MOST:
                    raise DataError(
                        f"{who} is too large: expected up to {MOST:,} pixels, got {picture.width}x{picture.height}; "
                        "shrink it, or take it away"
                    )
                if picture.mode.startswith(("I", "F")):
                    raise DataError(f"{who} has pixels of type {picture.mode}; expected 8 bits a channel; convert it")
                yield picture
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{who} is too large: expected up to {MOST:,} pixels; shrink it, or take it away") from error
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{who} cannot be read as an image ({reason}); take it away") from error


def pixels(picture: Image.Image, mode: str) -> UInt8[Tensor, " c h w"]:
    """The pixels in mode "L" or "RGB"."""
    return as_bytes(picture.convert(mode))


def squared(picture: Image.Image, mode: str, size: int, who: str) -> UInt8[Tensor, " c size size"]:
    """The square in the middle, once the shorter side is scaled to so many pixels.

    Raises:
        DataError: the picture is so long that scaling it makes it too large.
    """
    picture = picture.convert(mode)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    if width * height > MOST:
        raise DataError(f"{who} is too long: {picture.width}x{picture.height} pixels, {width}x{height} once scaled")
    left, top = (width - size) // 2, (height - size) // 2
    return as_bytes(picture.resize((width, height)).crop((left, top, left + size, top + size)))


def as_bytes(picture: Any) -> UInt8[Tensor, " c h w"]:
    """A picture of Pillow's, grey or RGB."""
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()
