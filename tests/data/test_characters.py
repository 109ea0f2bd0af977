"""Pictures by class, from folders and zips."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from metaprune.data import DataError, characters, load_characters


def drawing(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", (12, 12), 255)
    picture.paste(shade, (3, 3, 9, 9))
    picture.save(path)


def alphabets(folder: Path, tops: tuple[str, ...] = ("greek", "korean"), count: int = 5) -> Path:
    for place, top in enumerate(tops):
        for character in range(count):
            for each in range(3):
                drawing(folder / top / f"character{character}" / f"{each}.png", 20 * place + 2 * character)
    (folder / tops[0] / "README.txt").write_text("no picture")
    return folder


def zipped(folder: Path, to: Path) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path("all") / file.relative_to(folder))
    return to


def test_classes_are_dealt_out(tmp_path: Path) -> None:
    """Each to one part, the same for the same seed; light on black."""
    folder = alphabets(tmp_path / "omniglot")
    found = load_characters(folder, size=6, val_share=0.2, test_share=0.3)
    assert (len(found.train), len(found.val), len(found.test)) == (5, 2, 3)
    names = [name for part in found.names.values() for name in part]
    assert len(set(names)) == len(names) == 10
    assert "greek/character0" in names
    assert all(one.shape == (3, 1, 6, 6) for one in [*found.train, *found.val, *found.test])
    dark = load_characters(folder, size=6, val_share=0.2, test_share=0.3, invert=False)
    torch.testing.assert_close(dark.train[0], 1 - found.train[0])
    assert found.train[0][0, 0, 0, 0] < 0.1 < 0.5 < found.train[0][0, 0, 3, 3]
    assert load_characters(folder, size=6, seed=1).names != load_characters(folder, size=6).names
    assert repr(found) == "Characters(5 classes to train, 2 to validate, 3 to test)"


def test_a_zip_is_as_its_folder(tmp_path: Path) -> None:
    """What systems leave beside pictures is none of them."""
    folder = alphabets(tmp_path / "omniglot")
    drawing(folder / "greek" / "character0" / ".0.png", 99)
    archive = zipped(folder, tmp_path / "all.zip")
    with zipfile.ZipFile(archive, "a") as added:
        added.write(folder / "greek" / "character0" / "0.png", "__MACOSX/all/greek/character0/0.png")
    one, other = load_characters(folder, size=6), load_characters(archive, size=6)
    assert all(len(each) == 3 for each in [*one.train, *one.val, *one.test])
    assert len(one.names["train"]) == 6
    assert one.names == other.names
    for part in ("train", "val", "test"):
        assert all(map(torch.equal, getattr(one, part), getattr(other, part)))


def test_folders_say_which_classes_are_whose(tmp_path: Path) -> None:
    found = load_characters(alphabets(tmp_path / "parts", ("train", "val", "test"), 2), size=4)
    assert found.names["val"] == ["val/character0", "val/character1"]
    assert len(found.train) == 2
    alphabets(tmp_path / "parts", ("greek",), 2)  # not all of them are parts: then none is
    others = load_characters(tmp_path / "parts", size=4)
    assert sorted(name for part in others.names.values() for name in part) == sorted(
        f"{top}/character{place}" for top in ("greek", "test", "train", "val") for place in range(2)
    )
    assert {name.split("/")[0] for name in others.names["train"]} != {"train"}


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder or zip"):
        load_characters(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        load_characters(tmp_path / "empty")
    (tmp_path / "bad.zip").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cannot be read as a zip"):
        load_characters(tmp_path / "bad.zip")
    drawing(tmp_path / "one" / "class" / "0.png", 0)
    with pytest.raises(DataError, match="classes for all three parts"):
        load_characters(tmp_path / "one")
    (tmp_path / "one" / "class" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as an image"):
        load_characters(tmp_path / "one")


def test_a_picture_in_a_zip_has_a_size_that_it_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would unpack to is looked at before it is unpacked."""
    archive = zipped(alphabets(tmp_path / "omniglot"), tmp_path / "all.zip")
    monkeypatch.setattr(characters, "LARGEST", 10)
    with pytest.raises(DataError, match="is too large"):
        load_characters(archive)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    drawing(tmp_path / "secret.png", 0)
    folder = alphabets(tmp_path / "omniglot")
    (folder / "greek" / "character0" / "9.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leads out of"):
        load_characters(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 0}, "got 0, 1"),
        ({"channels": 2}, "got 28, 2"),
        ({"seed": "a"}, "a seed as a whole number, got 'a'"),
        ({"val_share": 0.9}, "shares above 0 .*got 0.9, 0.25"),
    ],
)
def test_bad_arguments(tmp_path: Path, fields: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_characters(tmp_path, **fields)  # type: ignore[arg-type]
