"""What every test stands on: a fixed seed, no network, and GPU tests only where there is a GPU."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
from xdist import is_xdist_controller

import tests.shapes  # noqa: F401  so that --jaxtyping-packages finds it, also where a folder's conftest imports first
from tests.forks import Forks

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

# Workers, and the processes that tests start, import the same files: they are compiled once, whatever the shell says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def graphs_are_remembered() -> Iterator[Callable[..., Any]]:
    """Not before all modules are imported, and not for tests of trace itself, which call `mp.trace`."""
    from tests.remembered import remembered

    with remembered() as trace:
        yield trace


@pytest.fixture(scope="session", autouse=True)
def clocks_are_quick() -> Iterator[None]:
    """What a report measures beside its subject; tests of `latency` itself call it by its own name."""
    from metaprune.cost import clock
    from metaprune.cost.latency import latencies, ratio
    from metaprune.session import measuring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "ratio", partial(ratio, seconds=0.001))
        for room in (clock, measuring):
            patch.setattr(room, "latencies", partial(latencies, seconds=0.001))
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_extends_lightning() -> Iterator[None]:
    """Each Fabric looks through all packages that are installed for callbacks: a tenth of a short run."""
    from lightning_fabric import fabric

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fabric, "_load_external_callbacks", lambda group: [])
        yield


@pytest.fixture(scope="session", autouse=True)
def what_never_changes_is_made_once() -> Iterator[None]:
    """The command line, which typer builds anew for each call, and the digits, which scikit-learn unpacks anew."""
    import typer.testing
    from sklearn import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.testing._get_command))
        patch.setattr(datasets, "load_digits", cache(datasets.load_digits))
        yield


@pytest.fixture
def trainers_collect_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of transformers looks for garbage before each training, among all that a worker holds."""
    monkeypatch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=lambda: 0))


@pytest.fixture(autouse=True)
def seed() -> None:
    """That of the CPU alone: `torch.manual_seed` writes a stack down for every kind of device that is not there."""
    import torch

    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["METAPRUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_configure() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores


def pytest_sessionstart(session: pytest.Session) -> None:
    """The process that only hands tests out imports nothing, so that workers begin at once."""
    if is_xdist_controller(session):
        return
    gc.disable()  # until all is imported: nothing of it is garbage
    import torch

    torch.set_num_threads(1)


LONG = (
    *("device/", "cli/test_killed", "session/test_pruning", "train/test_run", "laws/test_random", "test_survival"),
    *("pretrained/", "cli/", "methods/"),
)
"""Whose tests begin first: they come in groups that one worker does alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the tests of one network need is worked out once: they go to the same worker."""
    items.sort(key=lambda item: next((i for i, part in enumerate(LONG) if f"tests/{part}" in item.nodeid), len(LONG)))
    for item in items:
        network = getattr(item, "callspec", None) and item.callspec.params.get("name")  # type: ignore[attr-defined]
        item.add_marker(pytest.mark.xdist_group(network if isinstance(network, str) else item.nodeid.split("::")[0]))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is imported stays; to look through all of it for garbage, again and again, is a fifth of the time."""
    import hypothesis  # noqa: F401  (other packages' plugins of it ask who refers to what, which a frozen heap hides)

    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)


_FORKS: list[Forks] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """The last moment at which nothing was trained."""
    if any("forks" in getattr(item, "fixturenames", ()) for item in session.items):
        import lightning_fabric  # noqa: F401  (as training does)

        gc.freeze()
        _FORKS.append(Forks())


@pytest.fixture(scope="session")
def forks() -> Forks:
    """Starts processes that need not import anything."""
    return _FORKS[0]


def pytest_sessionfinish() -> None:
    while _FORKS:
        _FORKS.pop().end()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
