"""Folders for one run at a time, and what killed runs left in them."""

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest

from metaprune.train.folder import LOCK, UNFINISHED, FolderError, alone_in, draft, one_at_a_time, sweep_drafts


def test_the_second_process_is_told(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            with alone_in(tmp_path, "first"):
                os.write(writing, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"x"  # nothing, where it could not begin
        with pytest.raises(FolderError, match="second: another run works in"), alone_in(tmp_path, "second"):
            pass
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        os.close(reading)
    with alone_in(tmp_path, "third"):  # the lock of a process that was killed is nobody's
        assert [path.name for path in tmp_path.iterdir()] == [".metaprune-lock"]
    assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_locked_a_run_begins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with alone_in(tmp_path / "out", "first"):
        assert (tmp_path / "out").is_dir()


def test_the_second_thread_is_told_and_the_same_one_may_ask_again(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        try:
            with alone_in(tmp_path, "second"):
                said.append("in")
        except FolderError as error:
            said.append(str(error))

    with alone_in(tmp_path, "first"), alone_in(str(tmp_path), "again"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(20)
    assert "another run works in" in said[0]
    second()
    assert said[1] == "in"


def test_a_child_that_outlives_a_killed_run_does_not_hold_its_lock(tmp_path: Path) -> None:
    """Such as a loader's worker. (A run that ends by itself takes its lock away, whoever else has it open.)"""
    said, saying = os.pipe()
    ends, ending = os.pipe()
    run = os.fork()
    if run == 0:
        try:
            with alone_in(tmp_path, "run"):
                if os.fork() == 0:
                    os.close(ending)
                    os.write(saying, b"x")
                    os.read(ends, 1)  # until the other end is closed
                    os._exit(0)
                signal.pause()
        finally:
            os._exit(1)
    os.close(saying)
    try:
        try:
            assert os.read(said, 1) == b"x"  # nothing, where it could not begin
        finally:
            os.kill(run, signal.SIGKILL)
            os.waitpid(run, 0)
        assert (tmp_path / LOCK).exists()
        with alone_in(tmp_path, "after it"):
            pass
    finally:
        for end in (said, ends, ending):
            os.close(end)


def test_a_folder_that_is_left_empty_goes_again(tmp_path: Path) -> None:
    with alone_in(tmp_path / "new" / "folder", "test"):
        assert (tmp_path / "new" / "folder").is_dir()
    assert list(tmp_path.iterdir()) == []
    with alone_in(tmp_path / "new" / "folder", "test"):
        (tmp_path / "new" / "folder" / "file").touch()
    assert (tmp_path / "new" / "folder" / "file").exists()


def test_an_error_of_the_run_is_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with alone_in(tmp_path, "outer"), pytest.raises(OSError, match="the run's"), alone_in(tmp_path, "inner"):
            raise OSError("the run's")


def test_a_function_is_alone_in_its_folder(tmp_path: Path) -> None:
    @one_at_a_time
    def work(*, out: Path | None = None) -> bool:
        """Words."""
        return (tmp_path / ".metaprune-lock").exists()

    assert work.__doc__ == "Words."
    assert work(out=tmp_path)
    assert not work()


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f".run.json{UNFINISHED}").write_text("{")
    for name in (".hidden", "run.json.unfinished", ".saving"):
        (tmp_path / name).write_text("mine")
    with alone_in(tmp_path, "test"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".saving", "run.json.unfinished"]


def test_drafts_are_swept_if_they_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".saving-left").mkdir()
    for name in ("plan.json", ".metaprune-lock", f".plan.json{UNFINISHED}"):
        (tmp_path / ".saving-left" / name).touch()
    (tmp_path / ".saving-photos").mkdir()
    (tmp_path / ".saving-photos" / "holiday.jpg").touch()
    with draft(tmp_path, ".saving-") as place:
        (place / "plan.json").touch()
        sweep_drafts(tmp_path, ".saving-", {"plan.json"})
        assert (place / "plan.json").exists()
        assert not (tmp_path / ".saving-left").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".saving-photos"]


def test_a_file_of_others_that_is_called_as_the_lock_stays(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("mine")
    with alone_in(tmp_path, "test"):
        pass
    assert (tmp_path / LOCK).read_text() == "mine"
