"""A folder of images for restoration: found, split, and decoded into memory as far as they fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from metaprune.data.load import MEMORY, MOST_WORKERS, VAL_SHARE, WORKERS, whole
from metaprune.data.pairs import Pair, Patches, Whole
from metaprune.data.pictures import DataError, inside, named, opened, pixels
from metaprune.graph.arguments import is_number
from metaprune.train.tasks.fidelity import WINDOW
from metaprune.train.tasks.restoration import bicubic

__all__ = ["Folder", "Images", "load_images", "load_test_images"]

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
PARTS = ("train", "val", "test")
PATCH = {True: 96, False: 64}  # pixels, by whether images are to be enlarged


@dataclass(frozen=True)
class Images:
    """Pairs of degraded and true images, in three parts that share no image."""

    name: str
    train: Patches
    val: Whole  # held out of the training part; chooses
    test: Whole | None  # chooses nothing
    channels: int  # 1 (grey) or 3 (RGB)


@dataclass(frozen=True, eq=False, repr=False)
class Folder:
    """Images by their indices, each with the small one that is to be enlarged, or with itself."""

    paths: Sequence[Path]
    sizes: Sequence[tuple[int, int]]  # (height, width), multiples of the scale
    channels: int
    scale: int
    decoded: dict[int, Pair]

    @property
    def in_memory(self) -> bool:
        """Whether none needs decoding any more."""
        return len(self.decoded) == len(self.paths)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Pair:
        """The image that is given and the true one: uint8 (C, H, W) and (C, scale·H, scale·W).

        Raises:
            DataError: it cannot be decoded.
        """
        if index in self.decoded:
            return self.decoded[index]
        true = _decoded(self.paths[index], self.channels)
        height, width = self.sizes[index]
        true = true[:, :height, :width].contiguous()
        return (shrunk(true, self.scale) if self.scale > 1 else true), true

    def keep(self, memory: int) -> int:
        """Decodes as many as fit into so many bytes; returns the bytes that are left."""
        for index, (height, width) in enumerate(self.sizes):
            needed = self.channels * height * width
            if self.scale > 1:
                needed += needed // self.scale**2
            if needed > memory:
                break
            self.decoded[index] = self[index]
            memory -= needed
        return memory


def load_images(
    folder: str | Path,
    *,
    scale: int | None = None,
    sigma: float | None = None,
    channels: int | None = None,
    patch: int | None = None,
    patches: int = 3200,
    batch_size: int = 16,
    val_share: float | None = None,
    val_images: int | None = None,
    test: str | Path | None = None,
    seed: int = 0,
    augment: bool = True,
    workers: int | None = None,
) -> Images:
    """Loads images to be restored: `load_images("photos", scale=4)`, `load_images("photos", sigma=50)`.

    Training patches are cut out at random places in each pass; validation and test images come whole, one at a time.
    Small images are the true ones shrunk bicubically, with anti-aliasing, and rounded to 8 bits; the true ones are
    cut to a multiple of the scale, at the bottom and the right. Noise is Gaussian, added after scaling to [0, 1], and
    not clamped: drawn anew for each training patch, and always the same for a validation or test image.

    Args:
        folder: images of any size, in folders below it too; or its subfolders train, val and test.
        scale: for `mp.SuperResolution`: how many times smaller the given images are.
        sigma: for `mp.Denoising`: standard deviation of the noise, in grey levels of 255.
        channels: 3 for RGB (by default where images are enlarged), 1 for grey (by default where noise is taken away).
        patch: height and width of a true training patch, in pixels; by default 96 to enlarge and 64 to denoise.
        patches: training patches in a pass, an epoch.
        batch_size: patches in a batch.
        val_share: the part of the training images, one at least, that is held out to choose by where there is no
            subfolder val.
        val_images: use at most so many of the images to choose by.
        test: another folder of test images.
        seed: which images are held out, and the noise of whole images. It has nothing to do with the seed of a
            training: leave it alone wherever numbers are compared.
        augment: mirror patches and turn them by quarters.
        workers: processes that read images which do not fit in memory; 4 by default.

    Raises:
        DataError: nothing there, files that are no images, images too small, or arguments that do not fit.
    """
    named(folder, "images", "a folder")
    name = Path(folder).name or str(folder)
    scale, channels = _degradation(name, scale, sigma, channels)
    patch = PATCH[scale > 1] if patch is None else patch
    share = VAL_SHARE if val_share is None else val_share
    if not all(whole(number, 1) for number in (patch, patches, batch_size)) or patch % scale:
        raise DataError(
            f"images {name}: expected patch, patches and batch_size of 1 or more, and a patch that the scale {scale} "
            f"divides, got {patch!r}, {patches!r} and {batch_size!r}"
        )
    _seeded(name, seed)
    if test is not None:
        named(test, f"images {name}: test", "a folder")
    if not (is_number(share) and 0 < share < 1) or not (val_images is None or whole(val_images, 1)):
        raise DataError(
            f"images {name}: expected val_share in (0, 1) and val_images >= 1, got {val_share!r}, {val_images!r}"
        )
    if not (workers is None or whole(workers, 0, MOST_WORKERS)):
        raise DataError(f"images {name}: expected workers inside [0, {MOST_WORKERS}], got {workers!r}")
    parts = {part: Path(folder) / part for part in PARTS if is_folder(Path(folder) / part)}
    if parts and "train" not in parts:
        raise DataError(f"images {folder}: expected a subfolder named 'train' beside {', '.join(parts)}; rename it")
    train = found_in(parts.get("train", Path(folder)))
    if "val" in parts:
        if val_share is not None:
            raise DataError(f"images {folder}: there is a subfolder val; leave val_share out, or take that away")
        val, source = found_in(parts["val"]), "a subfolder of its own"
    else:
        source = f"{share:g} of the training images"
        train, val = held_out(train, share, seed, f"images {folder}", "images")
    tested = Path(test) if test is not None else parts.get("test")

    least = WINDOW + 2 * scale  # SSIM needs a window inside the borders
    folders = [checked(train, patch, channels, scale), checked(val[:val_images], least, channels, scale)]
    if tested is not None:
        folders.append(checked(found_in(tested), least, channels, scale))
    memory = MEMORY
    for each in folders:
        memory = each.keep(memory)
    if workers is None:
        workers = 0 if folders[0].in_memory else WORKERS
    noise = sigma or 0.0
    settings = {
        "data.patch": str(patch),
        "data.augment": "mirror and turn" if augment else "none",
        "data.val": source,
    }
    return Images(
        name=name,
        train=Patches(folders[0], patch // scale, patches, batch_size, noise, augment, workers, settings),
        val=Whole(folders[1], noise, seed),
        test=Whole(folders[2], noise, seed) if tested is not None else None,
        channels=channels,
    )


def load_test_images(
    folder: str | Path,
    *,
    scale: int | None = None,
    sigma: float | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> Whole:
    """Loads whole images only, as the test part of `load_images`: those of the subfolder test, or all.

    Raises:
        DataError: as `load_images`.
    """
    named(folder, "images", "a folder")
    scale, channels = _degradation(Path(folder).name, scale, sigma, channels)
    _seeded(Path(folder).name, seed)
    below = Path(folder) / "test"
    found = checked(found_in(below if is_folder(below) else Path(folder)), WINDOW + 2 * scale, channels, scale)
    found.keep(MEMORY)
    return Whole(found, sigma or 0.0, seed)


def shrunk(true: UInt8[Tensor, " c big wide"], scale: int) -> UInt8[Tensor, " c h w"]:
    """An image, bicubically as many times smaller, rounded to 8 bits."""
    size = (true.shape[1] // scale, true.shape[2] // scale)
    return bicubic(true[None].float(), size)[0].round().clamp(0, 255).to(torch.uint8)


def _degradation(name: str, scale: int | None, sigma: float | None, channels: int | None) -> tuple[int, int]:
    """The scale (1 where noise is added) and the channels, once they are known to make sense."""
    if (scale is None) == (sigma is None):
        raise DataError(f"images {name}: expected scale (to enlarge) or sigma (to denoise), got {scale} and {sigma}")
    if scale is not None and not whole(scale, 2):
        raise DataError(f"images {name}: expected a whole scale of 2 or more, got {scale!r}")
    if sigma is not None and not (is_number(sigma) and 0 < sigma < float("inf")):
        raise DataError(f"images {name}: expected a sigma above 0, in grey levels of 255, got {sigma!r}")
    channels = (1 if scale is None else 3) if channels is None else channels
    if type(channels) is not int or channels not in (1, 3):
        raise DataError(f"images {name}: expected 1 channel (grey) or 3 (RGB), got {channels!r}")
    return scale or 1, channels


def _seeded(name: str, seed: object) -> None:
    """Refuse what is no seed of the noise of whole images."""
    if not whole(seed, 0, 2**31 - 1):
        raise DataError(f"images {name}: expected a seed inside [0, 2^31), got {seed!r}")


def is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a part of its name is longer than names can be
        return False


def found_in(folder: Path) -> list[Path]:
    """All images of a folder, by name."""
    if not is_folder(folder):
        raise DataError(f"images {folder}: there is no such folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"images {folder}: expected files named {', '.join(sorted(SUFFIXES))}, found none")
    root = folder.resolve()
    return [inside(path.absolute(), (root,), f"images {folder}") for path in paths]


def checked(paths: Sequence[Path], least: int, channels: int, scale: int) -> Folder:
    """The images, once each is known to be one, and to have `least` pixels each way."""
    sizes = []
    for path in paths:
        with opened(path, f"images: {path}") as picture:
            width, height = (side - side % scale for side in picture.size)
        if min(width, height) < least:
            raise DataError(
                f"images: {path} is too small: expected {least} pixels or more each way, "
                f"got {width}x{height}; take it away, or ask for smaller patches"
            )
        sizes.append((height, width))
    return Folder(paths, sizes, channels, scale, {})


def _decoded(path: Path, channels: int) -> UInt8[Tensor, " c h w"]:
    with opened(path, f"images: {path}") as picture:
        return pixels(picture, "L" if channels == 1 else "RGB")


def held_out(paths: Sequence[Path], share: float, seed: int, who: str, what: str) -> tuple[list[Path], list[Path]]:
    """Those that stay, and a share of them drawn at random, one at least; both in their order.

    Raises:
        DataError: none would stay.
    """
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    held = max(1, round(share * len(paths)))
    if held == len(paths):
        raise DataError(f"{who}: cannot hold {share:g} of {len(paths)} {what} out; add more")
    return [paths[place] for place in sorted(order[held:])], [paths[place] for place in sorted(order[:held])]
