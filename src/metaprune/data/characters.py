"""Pictures by class, to learn from a few of each: folders or a zip of `alphabet/character/drawing.png`, as Omniglot."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.data.pictures import DataError, inside, named, opened, squared
from metaprune.graph.arguments import is_number, is_whole

__all__ = ["Characters", "load_characters"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".webp"))

LARGEST = 1 << 24
"""Bytes that a picture in a zip may have, unpacked."""


@dataclass(frozen=True, eq=False, repr=False)
class Characters:
    """Classes, each a tensor (drawings, channels, size, size) from 0 to 1; apart for training, validation and test.

    Attributes:
        train: Classes to learn from.
        val: Classes to choose by.
        test: Classes to report.
        names: Of all of them, by part.
    """

    train: Sequence[Float[Tensor, " n c size size"]]
    val: Sequence[Float[Tensor, " n c size size"]]
    test: Sequence[Float[Tensor, " n c size size"]]
    names: dict[str, list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """How many classes of each part."""
        return f"Characters({len(self.train)} classes to train, {len(self.val)} to validate, {len(self.test)} to test)"


def load_characters(
    source: str | Path,
    *,
    size: int = 28,
    channels: int = 1,
    val_share: float = 0.15,
    test_share: float = 0.25,
    invert: bool = True,
    seed: int = 0,
) -> Characters:
    """Read classes of pictures; each folder that holds pictures is a class, named by its path.

    A top folder `train` beside `val` or `test` says which classes are whose; else classes are dealt out at random.

    Args:
        source: A folder, or a zip of one.
        size: Pictures are scaled to this many pixels each way.
        channels: 1 for grey, 3 for colours.
        val_share: Share of the classes for validation.
        test_share: And for the test.
        invert: Whether dark ink on white becomes light on black, as is usual.
        seed: Of the dealing out.

    Raises:
        DataError: There is nothing there, or not enough; a file that is no picture.
    """
    named(source, "characters", "a folder or a zip")
    if not (is_whole(size) and 1 <= size <= 1024 and channels in (1, 3)):
        raise DataError(f"characters: expected a size inside [1, 1024] and 1 or 3 channels, got {size!r}, {channels!r}")
    if not is_whole(seed):
        raise DataError(f"characters: expected a seed as a whole number, got {seed!r}")
    shares = (val_share, test_share)
    if not all(is_number(share) and 0 < share < 1 for share in shares) or sum(shares) >= 1:
        raise DataError(
            f"characters: expected shares above 0 that leave classes to train, got {val_share}, {test_share}"
        )
    path = Path(source)
    reading = _in_zip if path.is_file() else _in_folder if path.is_dir() else None
    if reading is None:
        raise DataError(f"characters: there is no folder or zip {source}; name one")
    mode = "L" if channels == 1 else "RGB"

    def picture(content: Path | bytes, who: str) -> Tensor:
        with opened(content, who) as found:
            scaled = squared(found, mode, size, who).float() / 255
        return 1 - scaled if invert else scaled

    classes = reading(path, picture)
    parts = _by_folder(classes) or _dealt_out(classes, val_share, test_share, seed)
    if any(not part for part in parts.values()):
        raise DataError(
            f"characters {path.name}: expected classes for all three parts, got {len(classes)} in all; give more"
        )
    tensors = {part: [classes[name] for name in names] for part, names in parts.items()}
    return Characters(tensors["train"], tensors["val"], tensors["test"], parts)


Reader = Callable[[Path | bytes, str], Tensor]


def _in_folder(path: Path, picture: Reader) -> dict[str, Tensor]:
    """Class -> its drawings, of a folder."""
    root = path.resolve()
    found: dict[str, list[Tensor]] = {}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            place = file.relative_to(path)
            safe = inside(place, [root], f"characters {path.name}")
            found.setdefault(place.parent.as_posix(), []).append(picture(safe, f"characters: {place}"))
    return _stacked(found, path)


def _in_zip(path: Path, picture: Reader) -> dict[str, Tensor]:
    """The same of a zip, which is read where it is; a folder that all share is left out of the names."""
    found: dict[str, list[Tensor]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                entry
                for entry in sorted(archive.infolist(), key=lambda entry: entry.filename)
                if PurePosixPath(entry.filename).suffix.lower() in SUFFIXES
                and not PurePosixPath(entry.filename).name.startswith(".")
                and "__MACOSX" not in entry.filename
            ]
            for entry in entries:
                if entry.file_size > LARGEST:
                    raise DataError(f"characters: {entry.filename} of {path.name} is too large; take it away")
                with archive.open(entry) as file:
                    content = io.BytesIO(file.read(LARGEST + 1)).getvalue()
                parent = PurePosixPath(entry.filename).parent.as_posix()
                found.setdefault(parent, []).append(picture(content, f"characters: {entry.filename}"))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(
            f"characters {path.name}: cannot be read as a zip ({reason}); unpack it, and give the folder"
        ) from error
    tops = {name.split("/")[0] for name in found}
    if len(tops) == 1 and all("/" in name for name in found):
        found = {name.partition("/")[2]: drawings for name, drawings in found.items()}
    return _stacked(found, path)


def _stacked(found: dict[str, list[Tensor]], path: Path) -> dict[str, Tensor]:
    if not found:
        raise DataError(f"characters {path.name}: there are no pictures in it; expected class/drawing.png")
    return {name: torch.stack(drawings) for name, drawings in found.items()}


def _by_folder(classes: dict[str, Tensor]) -> dict[str, list[str]] | None:
    """The parts as the top folders say; None where they say nothing."""
    tops = {name.split("/")[0] for name in classes}
    if "train" not in tops or not tops <= {"train", "val", "test"}:
        return None
    return {part: [name for name in classes if name.split("/")[0] == part] for part in ("train", "val", "test")}


def _dealt_out(classes: dict[str, Tensor], val: float, test: float, seed: int) -> dict[str, list[str]]:
    names = list(classes)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    first, second = round(len(names) * test), round(len(names) * val)
    return {
        "test": sorted(names[place] for place in order[:first]),
        "val": sorted(names[place] for place in order[first : first + second]),
        "train": sorted(names[place] for place in order[first + second :]),
    }
