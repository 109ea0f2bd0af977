"""What holds around every command: signals, also during imports; any locale; standard output that is full or closed."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metaprune.cli import app, resolve

MAIN = [sys.executable, "-m", "metaprune"]


def run(*words: str, **given: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*MAIN, *words], stderr=subprocess.PIPE, text=True, check=False, timeout=300, **given)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_during_imports(number: int, word: str, swallowed: bool, tmp_path: Path) -> None:
    """A module that is imported early gets the signal; it may swallow whatever is raised."""
    kill = f"import os, signal\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n"
    (tmp_path / "typer.py").write_text(kill + ("    pass" if swallowed else "    raise ImportError('no typer')"))
    heard = partial(signal.signal, number, signal.SIG_DFL)  # what runs in the background may be deaf to it
    found = run("--help", env=os.environ | {"PYTHONPATH": str(tmp_path)}, preexec_fn=heard)
    assert found.returncode == 128 + number
    assert found.stderr == f"metaprune: {word}; start the same command again to go on\n"


@pytest.mark.parametrize(
    ("given", "code", "word"), [((), 130, "interrupted"), ((2,), 130, "interrupted"), ((15,), 143, "terminated")]
)
def test_a_signal_during_a_command(
    given: tuple[int, ...], code: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(*given)

    monkeypatch.setattr(resolve, "network", stopped)
    result = CliRunner().invoke(app, ["inspect", "resnet8"])
    assert result.exit_code == code
    assert result.stderr == f"metaprune: {word}; start the same command again to go on\n"


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [(OSError(28, "No space left on device", "/x/y"), 2, 1), (PermissionError(13, "Permission denied", "/x"), 2, 1)],
)
def test_a_full_disk_anywhere(error: OSError, code: int, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(resolve, "network", full)
    result = CliRunner().invoke(app, ["inspect", "resnet8"])
    assert result.exit_code == code
    assert result.stderr.count("\n") == lines
    assert result.stderr.startswith(f"metaprune: {error}; free space")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_standard_output_that_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        found = run("--help", stdout=full)
    assert found.returncode == 2
    assert found.stderr == "metaprune: the output cannot be written ([Errno 28] No space left on device)\n"


def test_a_reader_that_went_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    found = run("--help", stdout=writing)
    os.close(writing)
    assert "Traceback" not in found.stderr
    assert "ignored" not in found.stderr


def test_any_locale() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    code = r"from metaprune import __main__ as m; m._speak_utf8(); print('\u00bd \u00d7 \u2026 \udcff')"
    found = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=environment | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        check=True,
        timeout=300,
    )
    assert found.stdout.decode() == "½ × … \\udcff\n"
