"""Arguments of the public names that are none: one named error of up to three lines, and what was given stays."""

import copy
import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from tests.laws.oracle import fingerprint

X = torch.randn(4, 3)
GOOD = [(X, torch.tensor([0, 1, 2, 0]))] * 2
RECIPE = mp.Recipe(epochs=1, precision="32-true", device="cpu")
OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
TASK = mp.Classification(GOOD, GOOD)


@lru_cache
def made() -> tuple[nn.Module, mp.ChannelGraph]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return model, mp.trace(model, (X,))


Case = Callable[[nn.Module, mp.ChannelGraph], object]


def fields(kind: Callable[..., object], **odd: list[Any]) -> dict[str, Case]:
    """One case for each odd value of each field."""

    def case(name: str, value: Any) -> Case:
        return lambda model, graph: kind(**{name: value})

    return {f"{kind.__name__}({name}={value!r})": case(name, value) for name, some in odd.items() for value in some}


RECIPES = fields(
    mp.Recipe,
    epochs=[0, -1, 1.5, "3", None, True, math.nan],
    lr=[0, -1.0, math.nan, math.inf, "fast", None],
    momentum=[1.0, -0.1, "much", None],
    weight_decay=[-1.0, math.nan, "some", None],
    optimizer=["adam", None, 3],
    schedule=["step", None],
    milestones=[(1.0,), "5,8", None, ("a",), 5],
    warmup=[10.0, -1, "a", None],
    clip_norm=[0, -1.0, "a", math.nan],
    seed=[-1, 2**63, 1.5, "a", None],
    precision=[None, 16],
    device=[None, 0, torch.device("cpu")],
)
METHODS = {
    **fields(mp.DHP, search=[0, 1.5, -0.1, math.nan, "much", None], form=["square", None]),
    **fields(mp.DHP, embedding=[0, -1, "a", None]),
    **fields(mp.Transportation, search=[0, 1.5, math.nan, "much", None], sharpness=[0, math.inf, "a"], solver=[None]),
    **fields(mp.Taylor, batches=[0, -1, "a", None, 1.5]),
    **fields(mp.IntraFusion, producer=["rows", None, 1, []], consumer=["all", 0], matching=["best", None]),
    **fields(mp.IntraFusion, features=["columns", None], norm=[0, 3, "2", None, True], recalibrate=["no", None, 1]),
    **fields(mp.IntraFusion, ranking=["taylor", 1, mp.Taylor, mp.DHP()]),
    **fields(mp.GraphMetanetwork, trial=[-1, "a", None, 1.5], tuning=[-1, "a", None]),
}
BUDGETS = fields(
    mp.Budget,
    macs=[0, -1, math.nan, math.inf, "half", True, 1.5, [0.5], 0.5 + 1j],
    params=[0, -1, math.nan, "half"],
    latency=[0, -1.0, math.inf, "fast", True],
)
CALLS: dict[str, Case] = {
    # tracing
    "trace a state dict": lambda model, graph: mp.trace(model.state_dict(), (X,)),
    "trace without inputs": lambda model, graph: mp.trace(model, ()),
    "trace a tensor": lambda model, graph: mp.trace(model, X),
    "trace None": lambda model, graph: mp.trace(None, (X,)),
    "trace words": lambda model, graph: mp.trace("resnet20", (X,)),
    "trace with words": lambda model, graph: mp.trace(model, ("x",)),
    "trace NumPy": lambda model, graph: mp.trace(model, (X.numpy(),)),
    "trace other sizes": lambda model, graph: mp.trace(model, (X[:, :2],)),
    "trace too many inputs": lambda model, graph: mp.trace(model, (X, X)),
    "trace an unknown keyword": lambda model, graph: mp.trace(model, (X,), {"mask": X}),
    # prices
    "macs of a network": lambda model, graph: mp.macs(model),
    "macs of None": lambda model, graph: mp.macs(None),
    "macs of a dictionary": lambda model, graph: mp.macs(graph, {"0": [0, 1]}),
    "params of a network": lambda model, graph: mp.params(model),
    "params of a stranger's plan": lambda model, graph: mp.params(graph, mp.Plan({"x": [0]})),
    # surgery
    "slice by a dictionary": lambda model, graph: mp.slice(model, graph, {"0": [0, 1]}),
    "slice by None": lambda model, graph: mp.slice(model, graph, None),
    "slice without a graph": lambda model, graph: mp.slice(model, None, mp.Plan({})),
    "slice None": lambda model, graph: mp.slice(None, graph, mp.Plan({})),
    "slice a stranger": lambda model, graph: mp.slice(nn.Linear(3, 3), graph, mp.Plan({"0": [0, 1]})),
    "slice an output": lambda model, graph: mp.slice(model, graph, mp.Plan({"3": [0, 1]})),
    "slice an unknown axis": lambda model, graph: mp.slice(model, graph, mp.Plan({"9": [0, 1]})),
    "mask by a dictionary": lambda model, graph: mp.mask(model, graph, {"0": [0, 1]}),
    "mask without a graph": lambda model, graph: mp.mask(model, None, mp.Plan({})),
    "mask a stranger": lambda model, graph: mp.mask(nn.Linear(3, 3), graph, mp.Plan({"0": [0, 1]})),
    # time
    "latency on a toaster": lambda model, graph: mp.latency(model, (X,), device="toaster"),
    "latency on None": lambda model, graph: mp.latency(model, (X,), device=None),
    "latency in 7 bits": lambda model, graph: mp.latency(model, (X,), precision="7-bit"),
    "latency in no time": lambda model, graph: mp.latency(model, (X,), seconds=0),
    "latency in words": lambda model, graph: mp.latency(model, (X,), seconds="long"),
    "latency on no threads": lambda model, graph: mp.latency(model, (X,), threads=0),
    "latency on half a thread": lambda model, graph: mp.latency(model, (X,), threads=0.5),
    "latency of None": lambda model, graph: mp.latency(None, (X,)),
    "latency of other sizes": lambda model, graph: mp.latency(model, (X[:, :2],), seconds=0.01),
    "latency without inputs": lambda model, graph: mp.latency(model, (), seconds=0.01),
    "latency of a tensor": lambda model, graph: mp.latency(model, X, seconds=0.01),
    # training
    "fit None": lambda model, graph: mp.fit(None, TASK, RECIPE),
    "fit on loaders": lambda model, graph: mp.fit(model, GOOD, RECIPE),
    "fit without a recipe": lambda model, graph: mp.fit(model, TASK, None),
    "fit by a dictionary": lambda model, graph: mp.fit(model, TASK, {"epochs": 1}),
    "fit from the end": lambda model, graph: mp.fit(model, TASK, RECIPE, start=2),
    "fit backwards": lambda model, graph: mp.fit(model, TASK, RECIPE, start=1, stop=0),
    "fit from words": lambda model, graph: mp.fit(model, TASK, RECIPE, start="a"),
    "fit to half an epoch": lambda model, graph: mp.fit(model, TASK, RECIPE, stop=0.5),
    "fit with a number for a folder": lambda model, graph: mp.fit(model, TASK, RECIPE, checkpoint=3),
    "fit what has no parameters": lambda model, graph: mp.fit(nn.ReLU(), TASK, RECIPE),
    "evaluate None": lambda model, graph: mp.evaluate(None, GOOD, TASK, RECIPE),
    "evaluate on None": lambda model, graph: mp.evaluate(model, None, TASK, RECIPE),
    "evaluate on a number": lambda model, graph: mp.evaluate(model, 3, TASK, RECIPE),
    "evaluate on nothing": lambda model, graph: mp.evaluate(model, [], TASK, RECIPE),
    "evaluate a loader as a task": lambda model, graph: mp.evaluate(model, GOOD, GOOD, RECIPE),
    "evaluate by None": lambda model, graph: mp.evaluate(model, GOOD, TASK, None),
    "carry no optimizer": lambda model, graph: mp.carry(None, model, model, graph, mp.Plan({})),
    "carry without a graph": lambda model, graph: mp.carry(OPTIMIZER, model, model, None, None),
    "recalibrate on None": lambda model, graph: mp.recalibrate(model, None),
    "recalibrate on dictionaries": lambda model, graph: mp.recalibrate(model, [{"x": X}]),
    "distil from None": lambda model, graph: mp.distil(TASK, None),
    "distil from a class": lambda model, graph: mp.distil(TASK, nn.Linear),
    "distil no task": lambda model, graph: mp.distil(GOOD, model),
    "distil too much": lambda model, graph: mp.distil(TASK, model, share=2),
    "distil in words": lambda model, graph: mp.distil(TASK, model, share="half"),
    # tasks
    "enlarge once": lambda model, graph: mp.SuperResolution(GOOD, GOOD, scale=1),
    "enlarge by half": lambda model, graph: mp.SuperResolution(GOOD, GOOD, scale=2.5),
    "enlarge in words": lambda model, graph: mp.SuperResolution(GOOD, GOOD, scale="4"),
    "no noise": lambda model, graph: mp.Denoising(GOOD, GOOD, sigma=0),
    "noise in words": lambda model, graph: mp.Denoising(GOOD, GOOD, sigma="much"),
    "noise without an end": lambda model, graph: mp.Denoising(GOOD, GOOD, sigma=math.inf),
    "no training data": lambda model, graph: mp.Classification(None, GOOD),
    "a name for data": lambda model, graph: mp.Classification("digits", GOOD),
    # files
    "save into a file": lambda model, graph: mp.save(__file__, model, mp.Plan({}), graph),
    "save None": lambda model, graph: mp.save("/nowhere/at/all", None, mp.Plan({}), graph),
    "load nothing": lambda model, graph: mp.load("/nowhere/at/all", model),
    "load a file": lambda model, graph: mp.load(__file__, model),
    "load a number": lambda model, graph: mp.load(3, model),
    "load into None": lambda model, graph: mp.load("/nowhere/at/all", None),
    "export to a text": lambda model, graph: mp.export(model, (X,), "m.txt"),
    "export to nowhere": lambda model, graph: mp.export(model, (X,), "/nowhere/at/all/m.pt2"),
    "export to a number": lambda model, graph: mp.export(model, (X,), 3),
    "export None": lambda model, graph: mp.export(None, (X,), "m.pt2"),
    "export a tensor": lambda model, graph: mp.export(model, X, "m.pt2"),
    "export other sizes": lambda model, graph: mp.export(model, (X[:, :2],), "m.pt2"),
    # zeros
    "sparsify to all": lambda model, graph: mp.sparsify(model, 1.5),
    "sparsify to less than none": lambda model, graph: mp.sparsify(model, -0.1),
    "sparsify in words": lambda model, graph: mp.sparsify(model, "most"),
    "sparsify None": lambda model, graph: mp.sparsify(None, 0.5),
    "sparsify 5 of 4": lambda model, graph: mp.sparsify(model, n=5, m=4),
    # the whole
    "prune to a number": lambda model, graph: pruned(model, budget=0.5),
    "prune by a name": lambda model, graph: pruned(model, method="dhp"),
    "prune by a class": lambda model, graph: pruned(model, method=mp.DHP),
    "prune for loaders": lambda model, graph: pruned(model, task=GOOD),
    "prune by a dictionary": lambda model, graph: pruned(model, recipe={"epochs": 1}),
    "prune None": lambda model, graph: pruned(None),
    "prune to too little": lambda model, graph: pruned(model, budget=mp.Budget(macs=1e-4)),
    "prune on a toaster": lambda model, graph: pruned(model, recipe=mp.Recipe(epochs=1, device="toaster")),
    "prune in 7 bits": lambda model, graph: pruned(model, recipe=mp.Recipe(epochs=1, precision="7-bit")),
    "prune into a file": lambda model, graph: pruned(model, out=__file__),
    "prune on other sizes": lambda model, graph: pruned(model, task=mp.Classification([(X[:, :2], X)] * 2, GOOD)),
}


def pruned(model: Any, **change: Any) -> object:
    given: dict[str, Any] = {
        "method": mp.Magnitude(),
        "budget": mp.Budget(macs=0.6, multiple_of=1),
        "task": TASK,
        "recipe": RECIPE,
        "progress": False,
    }
    return mp.prune(model, (X,), **(given | change))


ABOUT = {"fit": "fine-tuning", "enlarge": "super-resolution", "no noise": "denoising", "noise": "denoising"}
ELSEWHERE = {
    "params of a stranger's plan": "plan: the graph has no axis 'x'",
    "slice a stranger": "graph: it is not of this Linear",
    "mask a stranger": "graph: it is not of this Linear",
    "slice an output": "axis '3' must keep its 3 channels",
    "slice an unknown axis": "plan: the graph has no axis '9'",
    "no training data": "task: expected train",
    "a name for data": "task: expected train",
    "prune to too little": "budget: 0.0001 of the MACs cannot be met",
    "prune on a toaster": "device 'toaster'",
    "prune in 7 bits": "Precision '7-bit' is invalid",
    "prune on other sizes": "the network cannot take the batch",
}


def about(kind: str) -> str:
    """What an error speaks of first: the odd field; or who was called."""
    if (field := re.match(r"\w+\((\w+)=", kind)) is not None:
        return rf"\b{field[1]}\b"
    if kind in ELSEWHERE:
        return re.escape(ELSEWHERE[kind])
    who = next((owner for word, owner in ABOUT.items() if kind.startswith(word)), kind.split()[0])
    return rf"^{who}: "


CASES = RECIPES | METHODS | BUDGETS | CALLS


@pytest.mark.parametrize("kind", CASES)
def test_an_odd_argument(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, graph = copy.deepcopy(made()[0]), made()[1]
    before = fingerprint(model)
    with pytest.raises(MetapruneError) as caught:
        CASES[kind](model, graph)
    said = str(caught.value)
    assert re.search(about(kind), said), said
    assert len(said.splitlines()) <= 3
    assert 20 < len(said) < 500
    assert fingerprint(model) == before
    assert list(tmp_path.iterdir()) == []
