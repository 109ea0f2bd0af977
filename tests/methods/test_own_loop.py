"""A search in a loop of one's own: the same bits as `mp.prune`, resumed anywhere, and what it refuses."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from tests.laws import oracle
from tests.methods import small

BUDGET = mp.Budget(macs=0.5, multiple_of=4)
EPOCHS = 2
RECIPE = small.recipe(EPOCHS, channels_last=False)
TRAIN = DataLoader(small.pictures(96, 1), batch_size=16)  # in one order, whoever asks


@cache
def dense() -> tuple[nn.Module, ChannelGraph]:
    model = small.network()
    return model, mp.trace(model, small.EXAMPLE)


class Loop:
    """A plain training loop with a search in it."""

    def __init__(self, method: mp.DHP, model: nn.Module, graph: ChannelGraph) -> None:
        self.search = method.start(model, graph, BUDGET, steps=EPOCHS * len(TRAIN), seed=RECIPE.seed)
        self.optimizer = torch.optim.SGD(
            self.search.groups(RECIPE.lr), RECIPE.lr, momentum=0.9, weight_decay=RECIPE.weight_decay, nesterov=True
        )
        self.shares = [group["lr"] / RECIPE.lr for group in self.optimizer.param_groups]

    def run(self, first: int, last: int) -> None:
        self.search.model.train()
        steps = [batch for _ in range(EPOCHS) for batch in TRAIN]
        for step in range(first, last):
            images, labels = steps[step]
            for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
                group["lr"] = share * RECIPE.lr_at((step + 0.5) / len(TRAIN))
            self.optimizer.zero_grad()
            F.cross_entropy(self.search.model(images), labels).backward()
            self.optimizer.step()
            self.search.step(RECIPE.lr_at((step + 1) / len(TRAIN)))


@pytest.mark.parametrize("form", ["gate", "hypernetwork"])
def test_the_same_bits_as_prune(form: Any) -> None:
    model, graph = dense()
    method = mp.DHP(search=1.0, form=form)
    before = oracle.fingerprint(model)
    loop = Loop(method, model, graph)
    loop.run(0, EPOCHS * len(TRAIN))
    cut = loop.search.finish()
    task = mp.Classification(TRAIN, DataLoader(small.pictures(48, 2), batch_size=24))
    result = mp.prune(model, small.EXAMPLE, method=method, budget=BUDGET, task=task, recipe=RECIPE, progress=False)
    assert cut.plan == result.plan
    assert not cut.undone
    ours, theirs = cut.model.state_dict(), result.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert mp.macs(graph, cut.plan) <= 0.5 * mp.macs(graph)
    assert oracle.fingerprint(model) == before


def test_interrupted_between_any_two_steps_it_goes_on() -> None:
    whole, first, second = (Loop(mp.DHP(), *dense()) for _ in range(3))
    half, steps = len(TRAIN) + 3, EPOCHS * len(TRAIN)
    whole.run(0, steps)
    first.run(0, half)
    for part in ("model", "search"):
        ours, theirs = (loop.search if part == "search" else loop.search.model for loop in (first, second))
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.run(half, steps)
    one, other = whole.search.finish(), second.search.finish()
    assert one.plan == other.plan
    assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))


def test_any_optimizer_and_limits() -> None:
    model, graph = dense()
    limited = mp.Limits(keep=["inner"]).on(graph)
    search = mp.DHP().start(model, limited, BUDGET, steps=len(TRAIN))
    optimizer = torch.optim.AdamW(search.groups(1e-3), lr=1e-3)
    for images, labels in TRAIN:
        optimizer.zero_grad()
        F.cross_entropy(search.model(images), labels).backward()
        optimizer.step()
        search.step(1e-3)
    assert search.share <= 0.5
    assert "inner.0" not in search.finish().plan.kept


def test_groups_of_parameters() -> None:
    """Weights decay; norms, biases and latents do not, and latents have a rate of their own. Each is in one group."""
    search = mp.DHP(latent_lr=0.25).start(*dense(), BUDGET, steps=1)
    weights, others, latents = search.groups(2.0)
    assert weights.keys() == {"params"}
    assert all(parameter.ndim >= 2 for parameter in weights["params"])
    assert all(parameter.ndim == 1 for parameter in others["params"])
    assert others.keys() == {"params", "weight_decay"}
    assert set(latents["params"]) == set(search.model.latents.parameters())
    assert (others["weight_decay"], latents["weight_decay"], latents["lr"]) == (0.0, 0.0, 0.5)
    every = [parameter for group in (weights, others, latents) for parameter in group["params"]]
    assert len(every) == len(set(every)) == len(list(search.model.parameters()))


def test_what_it_refuses() -> None:
    model, graph = dense()
    for steps in (0, -1, 2.0, None):
        with pytest.raises(MetapruneError, match="steps as a whole number from 1"):
            mp.DHP().start(model, graph, BUDGET, steps=steps)  # type: ignore[arg-type]
    search = mp.DHP().start(model, graph, BUDGET, steps=1)
    with pytest.raises(MetapruneError, match=r"expected 1 steps before finish\(\), got 0"):
        search.finish()
    search.step(0.1)
    with pytest.raises(MetapruneError, match="all 1 steps"):
        search.step(0.1)
    with pytest.raises(MetapruneError, match="a search of 2 steps, got 1"):
        mp.DHP().start(model, graph, BUDGET, steps=2).load_state_dict(search.state_dict())


@pytest.mark.parametrize("steps", [1, 200])
def test_a_search_that_diverges_says_so(steps: int) -> None:
    """Also between two rankings: it would end with channels that are neither dead nor alive."""
    model, graph = dense()
    search = mp.DHP().start(model, graph, BUDGET, steps=steps)
    name, latent = next(iter(search.search.latents.named().items()))
    with torch.no_grad():
        latent[0] = torch.nan

    def loop() -> None:
        for _ in range(steps):
            search.step(0.1)

    with pytest.raises(MetapruneError, match=rf"(axis|scores of) {name}[:,] .*lower the learning rate"):
        loop()


def test_a_plan_is_looked_at_from_the_last_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that it may cost more; a plan of a search that is done never does."""
    loop = Loop(mp.DHP(), *dense())
    assert loop.search.plan.kept.keys() <= dense()[1].free.keys()
    monkeypatch.setattr(loop.search.search, "plan", lambda: mp.Plan({}))
    assert loop.search.plan == mp.Plan({})
    monkeypatch.setattr(loop.search, "done", loop.search.steps)
    with pytest.raises(MetapruneError, match=r"within 0\.5 of the MACs"):
        _ = loop.search.plan
    assert loop.search.share == 1
