"""Folders of pictures of two kinds, A and B, to translate the first into the second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from metaprune.data.images import PARTS, Folder, checked, found_in, held_out, is_folder
from metaprune.data.load import MEMORY, VAL_SHARE, whole
from metaprune.data.pairs import Pair, Patches, Source, window
from metaprune.data.pictures import DataError, named
from metaprune.graph.arguments import is_number

__all__ = ["Translations", "load_pairs"]

KINDS = ("A", "B")


@dataclass(frozen=True)
class Translations:
    """Batches of pictures (a, b) of two kinds, float (N, C, size, size) in [0, 1], in three parts."""

    name: str
    train: Patches | Apart
    val: Middles  # held out of the training part; chooses
    test: Middles | None  # chooses nothing
    pictures: int  # to train on, of the first kind


@dataclass(frozen=True, eq=False, repr=False)
class Beside:
    """Pairs of pictures of the same size by their indices.

    Raises:
        DataError: a pair differs in size.
    """

    first: Folder
    second: Folder

    def __post_init__(self) -> None:
        for path, one, other in zip(self.second.paths, self.first.sizes, self.second.sizes, strict=True):
            if one != other:
                raise DataError(
                    f"pairs: expected {path} as large as its partner in A, {one[1]}x{one[0]}, got {other[1]}x{other[0]}"
                )

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.first)

    def __getitem__(self, index: int) -> Pair:
        """uint8 (C, H, W) and (C', H, W).

        Raises:
            DataError: one cannot be decoded.
        """
        return self.first[index][1], self.second[index][1]


@dataclass(frozen=True, eq=False, repr=False)
class Apart:
    """Patches of either kind, drawn each by themselves."""

    first: Patches
    second: Patches
    settings: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.first)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        for (a, _), (b, _) in zip(self.first, self.second, strict=True):
            yield a, b


@dataclass(frozen=True, eq=False, repr=False)
class Middles:
    """The middle of each picture, (N, C, size, size) in [0, 1], with its partner's, or any of the other kind."""

    first: Source
    second: Source
    size: int
    batch_size: int

    def __len__(self) -> int:
        """The number of batches."""
        return -(-min(len(self.first), len(self.second)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        count = min(len(self.first), len(self.second))
        for start in range(0, count, self.batch_size):
            places = range(start, min(start + self.batch_size, count))
            a, b = (
                torch.stack([self._middle(source[place][kind]) for place in places]).float() / 255
                for kind, source in enumerate((self.first, self.second))
            )
            yield a, b

    def _middle(self, picture: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in picture.shape[1:])
        return window(picture, top, left, self.size)


def load_pairs(
    folder: str | Path,
    *,
    paired: bool = True,
    channels: tuple[int, int] = (3, 3),
    patch: int = 64,
    patches: int = 3200,
    batch_size: int = 16,
    val_share: float | None = None,
    seed: int = 0,
    augment: bool = False,
) -> Translations:
    """Loads pictures for `mp.Adversarial`: `load_pairs("maps")`.

    The folder holds subfolders A and B; or train, val and test, each with A and B; or trainA, trainB, testA and so on.
    Where pictures are paired, partners have one name (but for its ending) and one size. Training patches are cut out at
    random places in each pass, of pairs at the same; validation and test pictures are cut to their middles.

    Args:
        folder: The pictures, of any size from `patch` on.
        paired: Whether those of one name belong together.
        channels: Of A and of B, 1 (grey) or 3 (RGB).
        patch: Height and width of what the networks see, in pixels.
        patches: Training patches in a pass, an epoch.
        batch_size: Patches in a batch.
        val_share: The part of the training pictures, one at least, that is held out to choose by where there is no
            part val.
        seed: Which are held out.
        augment: Mirror patches and turn them by quarters.

    Raises:
        DataError: nothing there, files that are no pictures, too small or without their partners, or arguments that do
            not fit.
    """
    named(folder, "pairs", "a folder")
    root, share = Path(folder), VAL_SHARE if val_share is None else val_share
    name = root.name or str(folder)
    if not all(whole(number, 1) for number in (patch, patches, batch_size)) or not whole(seed, 0, 2**31 - 1):
        raise DataError(
            f"pairs {name}: expected patch, patches and batch_size of 1 or more and a seed from 0, got {patch!r}, "
            f"{patches!r}, {batch_size!r} and {seed!r}"
        )
    both = isinstance(channels, tuple | list) and len(channels) == 2
    if not both or any(type(count) is not int or count not in (1, 3) for count in channels):
        raise DataError(f"pairs {name}: expected 1 channel (grey) or 3 (RGB) of A and of B, got {channels!r}")
    if not (is_number(share) and 0 < share < 1):
        raise DataError(f"pairs {name}: expected val_share in (0, 1), got {val_share!r}")
    parts = {part: kinds for part in PARTS if (kinds := _kinds(root, part, paired)) is not None}
    if not parts and (kinds := _kinds(root, "", paired)) is not None:
        parts = {"train": kinds}
    if "train" not in parts:
        raise DataError(f"pairs {folder}: expected subfolders A and B, train/A and train/B, or trainA and trainB")
    if "val" in parts:
        if val_share is not None:
            raise DataError(f"pairs {folder}: there is a part val; leave val_share out, or take that away")
        source = "a part of its own"
    else:
        split = [held_out(paths, share, seed, f"pairs {name}", "pictures") for paths in parts["train"]]
        parts["train"], parts["val"] = (list(part) for part in zip(*split, strict=True))
        source = f"{share:g} of the training pictures"
    memory = MEMORY
    folders = {}
    for part, kinds in parts.items():
        folders[part] = [checked(paths, patch, count, 1) for paths, count in zip(kinds, channels, strict=True)]
        for one in folders[part]:
            memory = one.keep(memory)
    settings = {
        "data.patch": str(patch),
        "data.augment": "mirror and turn" if augment else "none",
        "data.val": source,
        "data.paired": str(paired).lower(),
    }
    first, second = folders["train"]
    drawn: Patches | Apart
    if paired:
        drawn = Patches(Beside(first, second), patch, patches, batch_size, augment=augment, settings=settings)
    else:
        a, b = (Patches(each, patch, patches, batch_size, augment=augment) for each in (first, second))
        drawn = Apart(a, b, settings)

    def middles(part: str) -> Middles:
        one, other = folders[part]
        if not paired:
            return Middles(one, other, patch, batch_size)
        pairs = Beside(one, other)
        return Middles(pairs, pairs, patch, batch_size)

    return Translations(name, drawn, middles("val"), middles("test") if "test" in parts else None, len(first))


def _kinds(root: Path, part: str, paired: bool) -> list[list[Path]] | None:
    """The pictures of A and of B in a part, those of pairs in one order; None where it has no such folders.

    Raises:
        DataError: one of two folders is missing, or a picture has no partner.
    """
    for folders in ([root / part / kind for kind in KINDS], [root / f"{part}{kind}" for kind in KINDS]):
        there = [is_folder(folder) for folder in folders]
        if any(there):
            if not all(there):
                raise DataError(f"pairs {root}: expected {folders[0]} and {folders[1]}, found one of them")
            kinds = [found_in(folder) for folder in folders]
            return _matched(folders, kinds) if paired else kinds
    return None


def _matched(folders: Sequence[Path], kinds: Sequence[Sequence[Path]]) -> list[list[Path]]:
    """The same, once each is known to have its partner."""
    by_name = [
        {str(path.relative_to(folder.resolve()).with_suffix("")): path for path in paths}
        for folder, paths in zip(folders, kinds, strict=True)
    ]
    for here, there, other in ((0, 1, "B"), (1, 0, "A")):
        if alone := sorted(by_name[here].keys() - by_name[there].keys()):
            raise DataError(
                f"pairs: {by_name[here][alone[0]]} has no partner of its name in {other}; take it away, or say that "
                "they are not paired"
            )
    names = sorted(by_name[0])
    return [[known[name] for name in names] for known in by_name]
