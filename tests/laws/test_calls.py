"""The laws of calls: what holds of the evaluation forward holds of every call, the training forward included."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune.surgery.attention import written_out
from metaprune.surgery.still import Still
from metaprune.surgery.values import Judge
from tests.laws import oracle
from tests.laws.case import case
from tests.laws.test_laws import halved
from tests.zoo import networks

every = pytest.mark.parametrize("name", networks())
some = pytest.mark.parametrize("name", networks(families=3))


def answer(model: nn.Module, call: mp.Call) -> Any:
    """What a network gives in a call, with dropout letting everything pass; its mode and its buffers move."""
    model.train(call.training)
    args, kwargs = copy.deepcopy((call.args, dict(call.kwargs)))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), Still():
        return getattr(model, call.method)(*args, **kwargs)


def slice_is_mask(name: str, anew: bool) -> None:
    c, cut = case(name), halved(name)
    assert c.graph.uncaptured is not None or any(call.training for call in c.graph.calls)
    judge = Judge(c.model, c.graph)
    for place, (call, one) in enumerate(zip(c.graph.calls, c.graph.passes, strict=True)):
        if place and (one.like is not None) == anew and not judge.is_random(judge.seen[place]):
            masked = mp.mask(c.model, c.graph, cut.effective)
            assert oracle.distance(answer(copy.deepcopy(cut.small), call), answer(masked, call)) < 1e-10


@every
def test_slice_is_mask_in_every_call_with_operators_of_its_own(name: str) -> None:
    slice_is_mask(name, anew=False)


@some
def test_slice_is_mask_in_calls_that_switch_the_operators_of_others(name: str) -> None:
    """The mask exports those anew; a cut compares what the graph has made of them with what the cut network gives."""
    slice_is_mask(name, anew=True)


def trained(model: nn.Module, args: Any, kwargs: Any) -> dict[str, Tensor]:
    """The gradients of a copy of a network in training mode, by the names of its parameters."""
    model = copy.deepcopy(model).train()
    args, kwargs = copy.deepcopy((args, kwargs))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]
        sum(leaf.square().mean() for leaf in outputs if leaf.requires_grad).backward()  # type: ignore[union-attr]
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@every
def test_the_cut_network_trains(name: str) -> None:
    """One step of training: what had a gradient has one, and it is finite."""
    c, cut = case(name), halved(name)
    if c.graph.uncaptured is not None or not any(parameter.requires_grad for parameter in c.model.parameters()):
        return
    small = trained(cut.small, c.args, c.kwargs)
    assert small
    assert all(gradient.isfinite().all() for gradient in small.values())
    if all(one.seed is None for one in c.graph.passes):  # else it may run something else each time
        dense = trained(written_out(c.model, c.graph.written_out), c.args, c.kwargs)
        assert small.keys() == dense.keys()


@pytest.mark.parametrize("name", ["auxiliary_head", "deep_supervision", "stochastic_depth", "frozen_norm"])
def test_what_only_training_runs_changes_what_it_gives(name: str) -> None:
    """The comparison above means something: the cut network's training forward is another than the dense one's."""
    c, cut = case(name), halved(name)
    [call] = [call for call in c.graph.calls if call.training]
    assert oracle.distance(*(answer(copy.deepcopy(one), call) for one in (cut.small, c.model))) > 1e-6
