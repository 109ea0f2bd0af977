"""How many processes there are, by what a recipe says and by who started them."""

import os
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.train.processes import apart
from metaprune.train.several.launching import (
    OURS,
    _environment,
    _nodes,
    _own_place,
    _size,
    _told_by_us,
    is_alone,
)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says that so many were started, and on how many of them a machine has; as `torchrun` says it."""
    for name in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def say(size: int, here: int | None = None) -> None:
        monkeypatch.setenv("WORLD_SIZE", str(size))
        monkeypatch.setenv("LOCAL_RANK", "0")
        if here is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))

    return say


def recipe(**fields: Any) -> mp.Recipe:
    return mp.Recipe(device="cpu", **fields)


def test_nobody_started_any(there: Any) -> None:
    """Then it is as many as the recipe says; a CPU is one device."""
    assert [_size(recipe(devices=n), "cpu") for n in (1, 3, "auto")] == [1, 3, 1]
    assert [_size(recipe(devices=n, nodes=2), "cpu") for n in (1, 3, "auto")] == [2, 6, 2]
    assert [is_alone(each) for each in (recipe(), recipe(devices=2), recipe(nodes=2))] == [True, False, False]


def test_somebody_started_them(there: Any) -> None:
    """Then a recipe says as many, or nothing; what one of them does apart it does alone."""
    there(4)
    given = (recipe(), recipe(devices="auto"), recipe(devices=4), recipe(devices=2, nodes=2))
    assert [_size(each, "cpu") for each in given] == [4] * 4
    for odd in (recipe(devices=3), recipe(devices=4, nodes=2)):
        with pytest.raises(mp.MetapruneError, match="4 processes were started, and devices="):
            _size(odd, "cpu")
    assert not is_alone(recipe())
    with apart():
        assert is_alone(recipe(devices=2))
        assert _size(recipe(devices=2), "cpu") == 1
    there(1)
    assert is_alone(recipe())


def test_each_of_several_that_work_alone_for_now_has_a_device_of_its_own(
    there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    there(4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert _own_place("auto") == ""  # Lightning gives them out
    with apart():
        assert [_own_place(kind) for kind in ("auto", "cuda", "cpu")] == ["1", "1", ""]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert _own_place("auto") == ""
        monkeypatch.delenv("LOCAL_RANK")
        assert _own_place("cuda") == ""


def test_on_how_many_machines(there: Any) -> None:
    assert [_nodes(recipe(nodes=n), 6) for n in (1, 3)] == [1, 3]
    there(6, here=2)
    assert [_nodes(recipe(nodes=n), 6) for n in (1, 2)] == [3, 2]
    there(6, here=8)
    assert _nodes(recipe(), 6) == 1


def test_processes_that_somebody_joined_are_asked_who_they_are(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    assert _environment() is None
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    found = _environment()
    assert (found.global_rank(), found.local_rank(), found.world_size()) == (1, 1, 3)
    assert found.creates_processes_externally
    there(3)
    assert _environment() is None  # Lightning can tell by itself


def test_what_a_launcher_said_is_said_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LT_DEVICES", "7")

    def broken() -> None:
        with _told_by_us():
            assert "LT_DEVICES" not in os.environ
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert os.environ["LT_DEVICES"] == "7"
    assert "LT_STRATEGY" not in os.environ


def test_a_recipe_s_device_and_precision_are_fabric_s(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaprune.train.engine import device_of
    from metaprune.train.several.launching import fabric_of

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert [
        fabric_of(recipe(precision=each)).strategy.precision.precision for each in ("auto", "32-true", "64-true")
    ] == [
        "bf16-mixed",
        "32-true",
        "64-true",
    ]
    assert device_of(recipe()) == torch.device("cpu")
