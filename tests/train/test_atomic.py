"""Files that are there whole or not at all."""

import contextlib
from pathlib import Path

import pytest
import torch

from metaprune.train.atomic import FileError, read_json, read_tensors, replacing, write_json, write_tensors


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text("old")
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.parent == tmp_path  # a rename across file systems would be a copy
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    write_json(path, {"a": [1, "ü"]})
    with pytest.raises(TypeError, match="serializable"):
        write_json(path, {"a": object()})
    with pytest.raises(ValueError, match="JSON"):  # which has no word for it
        write_json(path, {"a": float("nan")})
    with pytest.raises(OSError, match="full"), replacing(path) as unfinished:
        fill(unfinished)
    assert read_json(path) == {"a": [1, "ü"]}
    assert list(tmp_path.iterdir()) == [path]


def fill(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")


def test_two_files_of_one_stem_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.json") as one, replacing(tmp_path / "model.safetensors") as other:
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "model.json").read_text() == "1"


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    given = {"whole": whole, "again": whole, "part": whole[10:12], "turned": whole.view(10, 100).T}
    write_tensors(tmp_path / "several", given, {"a": 1})
    found, about = read_tensors(tmp_path / "several")
    assert about == {"a": 1}
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)
    write_tensors(tmp_path / "part", {"part": whole[10:12]}, {})
    assert (tmp_path / "part").stat().st_size < 1000  # without what lies beside it


def test_one_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    """In the name of the checksum too: else nothing would be checked. But who writes a file by hand needs none."""
    path = tmp_path / "some.json"
    write_json(path, {"a": [1, "b"], "c": None})
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with contextlib.suppress(FileError):
            assert read_json(path) == {"a": [1, "b"], "c": None}, bytes(content)
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
