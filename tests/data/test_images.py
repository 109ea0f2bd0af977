"""Folders of images: pairs that fit, the same again with the same seed, and clear words for what cannot be used."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import metaprune as mp
import metaprune.data.images as images_module
from metaprune.data import DataError, Images, load_images, load_test_images
from metaprune.data.images import shrunk
from metaprune.data.pairs import Patches, degraded, turned
from metaprune.train.callbacks import Callback, Moment
from metaprune.train.checkpoint import Checkpoint

SIZES = [(40, 32), (33, 47), (36, 36), (50, 34), (41, 43)]  # width, height


def picture(size: tuple[int, int], seed: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of different sizes and types, and a file that is none."""
    for i, size in enumerate(SIZES):
        picture(size, i, "L" if i == 1 else "RGB").save(tmp_path / f"{i}.{'bmp' if i == 2 else 'png'}")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def drawn(images: Images, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    return list(images.train)


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, y) for a, b in pairs for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("degradation", "channels", "given", "true"),
    [
        ({"scale": 4}, 3, (3, 6, 6), (3, 24, 24)),
        ({"scale": 2, "channels": 1}, 1, (1, 12, 12), (1, 24, 24)),
        ({"sigma": 25}, 1, (1, 24, 24), (1, 24, 24)),
        ({"sigma": 25, "channels": 3}, 3, (3, 24, 24), (3, 24, 24)),
    ],
)
def test_batches_have_their_shapes(
    folder: Path, degradation: dict[str, Any], channels: int, given: tuple[int, ...], true: tuple[int, ...]
) -> None:
    images = load_images(folder, **degradation, patch=24, patches=10, batch_size=4, val_share=0.4)
    assert images.channels == channels
    assert len(images.train) == 3
    assert len(images.val) == 2
    assert images.test is None
    batches = list(images.train)
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in batches] == [((n, *given), (n, *true)) for n in (4, 4, 2)]
    for x, y in [*batches, *images.val]:
        scale = degradation.get("scale", 1)
        assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
        assert y.shape[2:] == (scale * x.shape[2], scale * x.shape[3])
        assert 0 <= y.min() <= y.max() <= 1


def test_given_patches_are_those_of_the_shrunk_image(folder: Path) -> None:
    """Cut out of the whole image made small, and at the same place."""
    images = load_images(folder, scale=4, patch=8, patches=20, batch_size=20, augment=False, val_share=0.2)
    source = images.train.source
    whole = [source[i] for i in range(len(source))]
    for small, large in zip(*drawn(images)[0], strict=True):
        found = []
        for little, big in whole:
            for top in range(little.shape[1] - 1):
                for left in range(little.shape[2] - 1):
                    true = big[:, 4 * top : 4 * top + 8, 4 * left : 4 * left + 8].float() / 255
                    if torch.equal(true, large):
                        found.append(little[:, top : top + 2, left : left + 2].float() / 255)
        assert any(torch.equal(small, each) for each in found)


def test_every_place_and_image_is_drawn(folder: Path) -> None:
    images = load_images(folder, sigma=1e-6, channels=1, patch=31, patches=400, batch_size=400, augment=False)
    source = images.train.source
    windows = {
        source[i][1][:, top : top + 31, left : left + 31].numpy().tobytes()
        for i in range(len(source))
        for top in range(source[i][1].shape[1] - 30)
        for left in range(source[i][1].shape[2] - 30)
    }
    seen = {(255 * y).round().to(torch.uint8).numpy().tobytes() for y in drawn(images)[0][1]}
    assert seen <= windows
    assert len(seen) > 0.5 * len(windows) > 30


def test_every_place_is_drawn_alike_often() -> None:
    """Of an image of 5 by 6 pixels a square of 4 has six places: the last ones count too."""
    image = torch.arange(30, dtype=torch.uint8).view(1, 5, 6)
    ((given, _),) = Patches([(image, image)], size=4, patches=600, batch_size=600, augment=False)
    corners = (255 * given[:, 0, 0, 0]).round().long().bincount(minlength=30)
    assert corners.nonzero().flatten().tolist() == [0, 1, 2, 6, 7, 8]
    assert corners[corners > 0].min() > 60


def test_shrinking_is_that_of_pillow() -> None:
    """Within a grey level, for Pillow rounds in between."""
    given = picture((48, 36), 3)
    theirs = np.asarray(given.resize((12, 9), Image.Resampling.BICUBIC)).astype(int)
    ours = shrunk(torch.from_numpy(np.asarray(given).copy()).permute(2, 0, 1), 4).permute(1, 2, 0)
    assert np.abs(ours.numpy() - theirs).max() <= 1


def test_a_square_has_eight_sides() -> None:
    patch = torch.arange(9, dtype=torch.uint8).view(1, 3, 3)
    seen = {turned(patch, turn).contiguous().numpy().tobytes() for turn in range(8)}
    expected = {
        torch.rot90(p, k, (1, 2)).contiguous().numpy().tobytes() for p in (patch, patch.flip(2)) for k in range(4)
    }
    assert seen == expected
    assert torch.equal(turned(patch, 0), patch)


def test_given_and_true_are_turned_alike(folder: Path) -> None:
    """Shrinking the patch again gives the small one, but for what its surroundings add at the border."""
    images = load_images(folder, scale=2, patch=24, patches=32, batch_size=32)
    for small, large in zip(*drawn(images)[0], strict=True):
        again = shrunk((255 * large).round().to(torch.uint8), 2).float() / 255
        assert (again - small)[:, 2:-2, 2:-2].abs().max() < 0.02


def test_the_seed_decides(folder: Path) -> None:
    images = load_images(folder, sigma=50, patch=16, patches=24, batch_size=8)
    assert images.train.settings == {
        "data.patch": "16",
        "data.augment": "mirror and turn",
        "data.val": "0.1 of the training images",
    }
    assert same(drawn(images, 1), drawn(images, 1))
    assert not same(drawn(images, 1), drawn(images, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_workers_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    options: dict[str, Any] = {"sigma": 50, "patch": 16, "patches": 24, "batch_size": 8}
    kept = drawn(load_images(folder, **options))
    monkeypatch.setattr(images_module, "MEMORY", 2000)  # room for one image
    monkeypatch.setattr(images_module, "WORKERS", workers)
    lazy = load_images(folder, **options)
    assert 0 < len(lazy.train.source.decoded) < len(lazy.train.source)  # type: ignore[attr-defined]
    assert lazy.train.workers == workers
    assert same(kept, drawn(lazy))
    assert same(list(load_images(folder, **options).val), list(lazy.val))
    assert not lazy.val.source.decoded  # type: ignore[attr-defined]


def test_what_is_kept_in_memory_is_counted(folder: Path) -> None:
    """Both pictures of each pair; of several as many as fit, in their order."""
    source: Any = load_test_images(folder, scale=4).source
    sizes = [given.nbytes + true.nbytes for given, true in (source[place] for place in range(5))]
    for spare, kept in ((7, 5), (0, 5), (-1, 4), (-sizes[4], 4), (-sizes[4] - 1, 3)):
        fresh = replace(source, decoded={})
        assert fresh.keep(sum(sizes) + spare) == sum(sizes) + spare - sum(sizes[:kept])
        assert sorted(fresh.decoded) == list(range(kept))
        assert fresh.in_memory == (kept == 5)


def test_noise_has_its_strength_and_is_not_clamped(folder: Path) -> None:
    images = load_images(folder, sigma=50, patch=32, patches=64, batch_size=64)
    ((noisy, true),) = drawn(images)
    noise = 255 * (noisy - true)
    assert float(noise.std()) == pytest.approx(50, rel=0.02)
    assert abs(float(noise.mean())) < 1
    assert noisy.min() < 0
    assert noisy.max() > 1
    ((other, clean),) = drawn(images, 1)
    assert not torch.allclose(noise, 255 * (other - clean), atol=1)  # anew in each pass


def test_noise_is_in_grey_levels_of_255() -> None:
    given = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    drawn = torch.randn(given.shape, generator=torch.Generator().manual_seed(3))
    found = degraded(given, 50.0, torch.Generator().manual_seed(3))
    torch.testing.assert_close(255 * found, given + 50 * drawn)
    torch.testing.assert_close(255 * degraded(given, 0.0, torch.Generator()), given.float())


def test_noise_of_whole_images_is_always_the_same(folder: Path) -> None:
    """Whatever was drawn before, and for each image another."""
    options: dict[str, Any] = {"sigma": 50, "patch": 16, "test": folder}
    passes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        images = load_images(folder, **options)
        assert images.test
        passes += [list(images.test), list(images.test)]
    assert all(same(passes[0], other) for other in passes[1:])
    assert same(passes[0], list(load_test_images(folder, sigma=50)))
    noises = [(x - y)[..., :30, :30] for x, y in passes[0]]
    assert not torch.allclose(noises[0], noises[1])
    other = load_images(folder, **options, seed=1).test
    assert other
    assert not same(passes[0], list(other))


def test_whole_images_are_cut_to_a_multiple(folder: Path) -> None:
    found = list(load_test_images(folder, scale=4))
    sizes = [(h - h % 4, w - w % 4) for w, h in SIZES]
    assert [tuple(y.shape[2:]) for _, y in found] == sizes
    for place, (_, true) in enumerate(found):  # at the bottom and the right
        with Image.open(folder / f"{place}.{'bmp' if place == 2 else 'png'}") as whole:
            there = torch.from_numpy(np.asarray(whole.convert("RGB")).copy()).permute(2, 0, 1)
        assert torch.equal((255 * true[0]).round().byte(), there[:, : true.shape[2], : true.shape[3]])


def test_parts_share_no_image(folder: Path) -> None:
    def names(part: Any) -> set[str]:
        return {path.name for path in part.source.paths}

    images = load_images(folder, scale=2, patch=16, val_share=0.4)
    assert names(images.train) | names(images.val) == {"0.png", "1.png", "2.bmp", "3.png", "4.png"}
    assert not names(images.train) & names(images.val)
    assert names(images.val) == names(load_images(folder, scale=2, patch=16, val_share=0.4).val)
    assert len({frozenset(names(load_images(folder, scale=2, patch=16, seed=s).val)) for s in range(9)}) > 1


def test_subfolders_are_the_parts(folder: Path) -> None:
    for name, some in (("train", "01"), ("val", "23"), ("test", "4")):
        (folder / name).mkdir()
        for file in list(folder.glob(f"[{some}].*")):
            file.rename(folder / name / file.name)
    images = load_images(folder, scale=2, patch=16, val_images=1)
    assert images.test
    assert [len(each.source) for each in (images.train, images.val, images.test)] == [2, 1, 1]
    assert len(load_test_images(folder, scale=2)) == 1
    (folder / "train").rename(folder / "other")
    with pytest.raises(DataError, match="subfolder named 'train' beside val, test"):
        load_images(folder, scale=2, patch=16)


class Halt(Exception):
    """Raised where a run is to die."""


def test_a_resumed_training_sees_the_same_batches(folder: Path, tmp_path: Path) -> None:
    """Killed inside an epoch, with noise and places still to be drawn: the same weights, bit for bit."""
    images = load_images(folder, sigma=50, patch=16, patches=16, batch_size=4)
    task = mp.Denoising(images.train, images.val, sigma=50)
    recipe = mp.Recipe(epochs=2, lr=0.01, optimizer="adamw", precision="32-true", device="cpu")

    steps: list[int] = []

    def trained(checkpoint: Path, halt: int | None = None) -> Tensor:
        steps.clear()
        torch.manual_seed(0)
        network = nn.Conv2d(1, 1, 3, padding=1)

        class Dying(Callback):
            def on_step(self, moment: Moment) -> None:
                steps.append(moment.step)
                if moment.step - 1 == halt:
                    raise Halt

        kept = Checkpoint(checkpoint, seconds=0)
        mp.fit(network, task, recipe, checkpoint=kept, callbacks=[Dying()], progress=False)
        return network.weight.detach()

    expected = trained(tmp_path / "whole")
    with pytest.raises(Halt):
        trained(tmp_path / "killed", halt=5)
    assert torch.equal(trained(tmp_path / "killed"), expected)
    assert steps == [6, 7, 8]  # and not all of them again


BAD: list[tuple[Callable[[Path], object], dict[str, Any], str]] = [
    (lambda _: None, {}, "expected scale (to enlarge) or sigma (to denoise), got None and None"),
    (lambda _: None, {"scale": 2, "sigma": 5}, "got 2 and 5"),
    (lambda _: None, {"scale": 1}, "whole scale of 2 or more, got 1"),
    (lambda _: None, {"scale": 2.5}, "whole scale of 2 or more, got 2.5"),
    (lambda _: None, {"sigma": 0}, "sigma above 0"),
    (lambda _: None, {"sigma": 5, "channels": 2}, "1 channel (grey) or 3 (RGB), got 2"),
    (lambda _: None, {"scale": 4, "patch": 30}, "a patch that the scale 4 divides, got 30"),
    (lambda _: None, {"sigma": 5, "patch": 0}, "1 or more"),
    (lambda _: None, {"sigma": 5, "patches": 0}, "1 or more"),
    (lambda _: None, {"sigma": 5, "batch_size": 0}, "1 or more"),
    (lambda _: None, {"sigma": 5, "val_share": 1.0}, "val_share in (0, 1)"),
    (lambda _: None, {"sigma": 5, "val_images": 0}, "val_images >= 1"),
    (lambda _: None, {"sigma": 5, "seed": -1}, "seed inside [0, 2^31)"),
    (lambda _: None, {"sigma": 5, "patch": 16, "val_share": 0.99}, "cannot hold 0.99 of 5 images out"),
    (lambda _: None, {"sigma": 5, "patch": 48}, "expected 48 pixels or more each way"),
    (lambda f: picture((20, 12), 0).save(f / "5.png"), {"sigma": 5, "patch": 16, "test": "SELF"}, "5.png is too small"),
    (  # fifteen are needed for a window of eleven inside the borders, and one of these is left over
        lambda f: picture((15, 40), 0).save(f / "5.png"),
        {"scale": 2, "patch": 8, "test": "SELF"},
        "expected 15 pixels or more each way, got 14x40",
    ),
    (lambda f: (f / "5.png").write_text("text"), {"sigma": 5, "patch": 16}, "5.png cannot be read as an image"),
    (
        lambda f: (f / "5.png").write_bytes((f / "0.png").read_bytes()[:300]),
        {"sigma": 5, "patch": 16},
        "5.png cannot be",
    ),
    (lambda f: Image.new("I;16", (40, 40)).save(f / "5.png"), {"sigma": 5, "patch": 16}, "5.png has pixels of type I"),
    (lambda f: [each.unlink() for each in f.glob("*.[pb]*")], {"sigma": 5}, "found none"),
    (lambda _: None, {"sigma": 5, "patch": 16, "test": "nowhere"}, "there is no such folder"),
]


@pytest.mark.parametrize(("change", "options", "said"), BAD, ids=[said for *_, said in BAD])
def test_what_cannot_be_used_is_named(
    folder: Path, change: Callable[[Path], object], options: dict[str, Any], said: str
) -> None:
    change(folder)
    options = options | ({"test": folder} if options.get("test") == "SELF" else {})
    with pytest.raises(DataError, match=re.escape(said)):
        load_images(folder, **options)


@pytest.mark.parametrize("seed", [-1, 2**31, "a", None])
def test_a_seed_that_is_none(folder: Path, seed: Any) -> None:
    for load in (load_images, load_test_images):
        with pytest.raises(DataError, match="expected a seed inside"):
            load(folder, sigma=5, seed=seed)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for load in (load_images, load_test_images):
        with pytest.raises(DataError, match="there is no such folder"):
            load(tmp_path / "nowhere", sigma=5)
