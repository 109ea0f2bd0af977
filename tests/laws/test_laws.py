"""The laws of the design, on every network of the zoo: half of every free axis is cut, in float64."""

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import axes_of
from metaprune.surgery.resized import Resized
from metaprune.surgery.slice import Cut as CutOfPlan
from metaprune.surgery.slice import CutWarning, carve
from tests.laws import oracle
from tests.laws.case import case
from tests.zoo import ZOO, few, networks

every = pytest.mark.parametrize("name", networks())
some = pytest.mark.parametrize("name", networks(families=3))


@dataclass(frozen=True)
class Cut:
    """What became of a plan: all of it, the sliced network, the plan without what was undone, and what was undone."""

    plan: mp.Plan
    done: CutOfPlan
    small: nn.Module
    effective: mp.Plan
    undone: tuple[str, ...]


def counterparts(old: ChannelGraph, plan: mp.Plan, new: ChannelGraph) -> dict[str, str]:
    """Name in the graph of the cut network -> name in the old graph, found by the tensors that hold the axis.

    (Names themselves may change where an axis was cut to one channel, which is no axis any more.)
    """
    widths = plan.widths
    alive: dict[object, list[str]] = {}
    for name, axis in old.axes.items():
        alive.setdefault((frozenset(axis.members), widths.get(name, axis.size)), []).append(name)
    back = {}
    for name, axis in new.axes.items():
        same = alive.get((frozenset(axis.members), axis.size))
        assert same, f"{name!r} of the cut network was no axis before\nbefore:\n{old}\nafter:\n{new}"
        back[name] = same.pop(0)
    return back


def apply(model: nn.Module, graph: ChannelGraph, plan: mp.Plan) -> Cut:
    """Slice, and keep the plan without what was undone."""
    done = carve(model, graph, plan)
    whole = {name: range(graph.axes[name].size) for name in done.undone}
    effective = mp.Plan({**plan.kept, **whole})
    return Cut(plan, done, done.model, effective, tuple(done.undone))


@few
def halved(name: str) -> Cut:
    return apply(case(name).model, case(name).graph, oracle.half(case(name).graph))


@few
def retraced(name: str) -> ChannelGraph:
    return mp.trace(halved(name).small, case(name).args, case(name).kwargs)


@few
def torn(name: str) -> Cut:
    return apply(case(name).model, case(name).graph, oracle.ragged(case(name).graph))


@every
def test_what_must_be_free_is_free(name: str) -> None:
    axes = case(name).graph.axes.values()
    missing = Counter(ZOO[name].free) - Counter(axis.size for axis in axes if axis.fixed is None)
    assert not missing, f"sizes of axes that should be free and are not: {dict(missing)}\n{case(name).graph}"


@every
def test_what_must_stay_is_fixed_with_a_reason(name: str) -> None:
    for axis in case(name).graph.axes.values():
        assert axis.fixed is None or len(axis.fixed) > 5
    for size, word in ZOO[name].fixed.items():
        reasons = [axis.fixed for axis in case(name).graph.axes.values() if axis.size == size]
        assert all(reasons)
        assert any(word in reason for reason in reasons)


@pytest.mark.parametrize("name", [each for each in networks() if ZOO[each.values[0]].cnn])
def test_nearly_all_parameters_of_a_cnn_lie_on_a_free_axis(name: str) -> None:
    assert case(name).graph.free_share() >= 0.95, str(case(name).graph)


@every
def test_the_full_plan_changes_nothing(name: str) -> None:
    c = case(name)
    full = mp.Plan({axis: range(c.graph.axes[axis].size) for axis in c.graph.free})
    same = mp.slice(c.model, c.graph, full)
    assert same is not c.model
    assert oracle.fingerprint(same) == oracle.fingerprint(c.model)
    assert oracle.distance(c.run(c.model), c.run(same)) < 1e-12
    assert oracle.distance(c.run(c.model), c.run(mp.mask(c.model, c.graph, full))) < 1e-12
    assert mp.macs(c.graph, full) == mp.macs(c.graph)
    assert mp.params(c.graph, full) == mp.params(c.graph)


@every
def test_no_cut_is_refused_in_silence(name: str) -> None:
    """What trace calls free can be cut to any width, and is; where the zoo knows better, slice says so.

    (A cut is verified against the graph of the cut network, which holds the widths of the plan.)
    """
    c, cut = case(name), halved(name)
    if c.entry.undo is None:
        assert not cut.undone
        assert not torn(name).undone
    shrunk = [c.graph.axes[axis].size for axis in cut.plan if axis not in cut.undone]
    assert not Counter(c.entry.free) - Counter(shrunk)


@some
def test_what_is_left_is_free_again(name: str) -> None:
    c, cut, after = case(name), halved(name), retraced(name)
    back = counterparts(c.graph, cut.effective, after)
    assert {back[axis]: after.axes[axis].size for axis in after.free} == {
        axis: width for axis, width in cut.effective.widths.items() if width > 1
    }


@every
@pytest.mark.parametrize("how", [halved, torn])
def test_slice_is_mask(name: str, how: Any) -> None:
    c, cut = case(name), how(name)
    masked = c.run(mp.mask(c.model, c.graph, cut.effective))
    assert oracle.distance(c.run(cut.small), masked) < 1e-10


@every
def test_resized_is_slice(name: str) -> None:
    """Called at other widths it computes what the cut network does, unless a scale was made up for; whole again after.

    (A scale that hangs on a size was made up for where weights of the cut network are no crops.)
    """
    c, cut = case(name), halved(name)
    resized = Resized(c.model, c.graph)
    with torch.no_grad():
        called = resized.call(cut.effective, *pytree.tree_map_only(torch.Tensor, torch.clone, (c.args, c.kwargs)))
    copied = resized.copy(cut.effective)
    assert oracle.distance(c.run(copied), called) < 1e-12
    if all(map(torch.equal, copied.state_dict().values(), cut.small.state_dict().values())):
        assert oracle.distance(c.run(cut.small), called) < 1e-10
    else:
        assert c.entry.family == "attention" or any(one.scale or one.computed for one in c.graph.every_operator)
    assert oracle.distance(c.run(c.model), c.run(resized.network)) < 1e-12


@every
def test_slice_is_zeroing(name: str) -> None:
    """The mask has a judge, too: where no statistic runs over channels, zero parameters say the same."""
    c, cut = case(name), halved(name)
    spared = {axis for axis in cut.effective if c.graph.axes[axis].size in c.entry.statistics}
    if spared:
        plan = mp.Plan({axis: kept for axis, kept in cut.effective.kept.items() if axis not in spared})
        cut = apply(c.model, c.graph, plan)
    zeroed = c.run(oracle.zeroed(c.model, c.graph, cut.effective))
    assert oracle.distance(c.run(cut.small), zeroed) < 1e-10


@every
def test_a_cut_that_bites_shows(name: str) -> None:
    """The comparisons above mean something: the cut network computes something else than the dense one."""
    c, cut = case(name), halved(name)
    if mp.params(c.graph, cut.effective) < mp.params(c.graph):
        assert oracle.distance(c.run(c.model), c.run(cut.small)) > 1e-6


@every
def test_predicted_cost_is_counted_cost(name: str) -> None:
    c = case(name)
    for model, plan in ((c.model, mp.Plan({})), (halved(name).small, halved(name).effective)):
        assert mp.params(c.graph, plan) == oracle.counted_params(model)
        if c.entry.count_macs:
            assert mp.macs(c.graph, plan) == oracle.counted_macs(model, c.args, c.kwargs)


@some
def test_tracing_commutes_with_slicing(name: str) -> None:
    """The graph of the cut network is the old one with the new widths: names, freedom, cost forms."""
    c, cut = case(name), halved(name)
    widths = cut.effective.widths
    expected = {axis: widths.get(axis, c.graph.axes[axis].size) for axis in c.graph.axes}
    if min(expected.values()) > 1 and not cut.undone:
        assert {axis: retraced(name).axes[axis].size for axis in retraced(name).axes} == expected
        assert set(retraced(name).free) == set(c.graph.free)
    back = counterparts(c.graph, cut.effective, retraced(name))
    again = oracle.ragged(retraced(name), seed=1)
    both = cut.effective.then(mp.Plan({back[axis]: kept for axis, kept in again.kept.items()}))
    assert mp.params(retraced(name), again) == mp.params(c.graph, both)
    assert mp.macs(retraced(name), again) == mp.macs(c.graph, both)


@some
def test_plans_compose(name: str) -> None:
    c, first = case(name), halved(name)
    back = counterparts(c.graph, first.effective, retraced(name))
    second = apply(first.small, retraced(name), oracle.half(retraced(name), seed=1))
    both = first.effective.then(mp.Plan({back[axis]: kept for axis, kept in second.effective.kept.items()}))
    at_once = apply(c.model, c.graph, both)
    assert not at_once.undone
    assert oracle.distance(c.run(second.small), c.run(at_once.small)) < 1e-10


@every
def test_the_given_model_is_untouched(name: str) -> None:
    """After everything, errors included, it is what its twin is, which was built anew and never traced."""
    c, cut = case(name), halved(name)
    c.run(mp.mask(c.model, c.graph, cut.effective))
    for wrong in (mp.Plan({"no such axis": [0]}), mp.Plan({next(iter(c.graph.axes)): [10**6]})):
        for surgery in (mp.slice, mp.mask):
            with pytest.raises(PlanError):
                surgery(c.model, c.graph, wrong)
    twin, args, kwargs = c.entry.example()
    assert oracle.fingerprint(c.model) == oracle.fingerprint(twin)
    assert all(map(torch.equal, pytree.tree_leaves((c.args, c.kwargs)), pytree.tree_leaves((args, kwargs))))


@pytest.mark.parametrize("name", ["vgg", "functional", "gpt", "attention_timm", "lstm"])
def test_modes_gradients_and_freezing_are_kept(name: str) -> None:
    model, args, kwargs = ZOO[name].example()
    model.train()
    next(model.parameters()).requires_grad_(False)
    if children := list(model.children()):
        children[0].eval()
    before = oracle.fingerprint(model)
    graph = mp.trace(model, args, kwargs)
    small = carve(model, graph, oracle.half(graph)).model
    mp.mask(model, graph, oracle.half(graph))
    assert oracle.fingerprint(model) == before
    assert {path: m.training for path, m in small.named_modules()} == {p: m.training for p, m in model.named_modules()}
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].undo is not None])
def test_what_is_undone_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c, cut = case(name), halved(name)
    monkeypatch.setattr("metaprune.surgery.slice.carve", lambda *given: cut.done)  # which need not be found out again
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = mp.slice(c.model, c.graph, cut.plan)
    said = [str(warning.message) for warning in caught if warning.category is CutWarning]
    assert all(any(repr(axis) in words for words in said) for axis in cut.undone)
    assert len(said) == len(cut.undone)
    assert oracle.counted_params(small) == mp.params(c.graph, cut.effective)


@every
def test_nothing_is_shared_with_the_given_model(name: str) -> None:
    """Training the small network must not move the large one."""
    held = {tensor.untyped_storage().data_ptr() for tensor in case(name).model.state_dict().values()}
    assert not held & {tensor.untyped_storage().data_ptr() for tensor in halved(name).small.state_dict().values()}


@every
def test_a_plan_survives_json(name: str) -> None:
    plan = oracle.ragged(case(name).graph)
    assert mp.Plan.from_json(plan.to_json()) == plan


@every
def test_renumbering_channels_changes_nothing(name: str) -> None:
    """The channels of a free axis have no order: permuted consistently, the network computes the same."""
    c = case(name)
    generator = torch.Generator().manual_seed(0)
    orders = {axis: torch.randperm(c.graph.axes[axis].size, generator=generator).tolist() for axis in c.graph.free}
    permuted = oracle.permute(c.model, c.graph, orders)
    assert oracle.distance(c.run(c.model), c.run(permuted)) < 1e-10


@pytest.mark.parametrize("name", networks(families=6))
def test_tracing_twice_gives_the_same_axes(name: str) -> None:
    c = case(name)
    again = mp.trace(c.model, c.args, c.kwargs)
    assert {axis: (a.size, a.fixed) for axis, a in again.axes.items()} == {
        axis: (a.size, a.fixed) for axis, a in c.graph.axes.items()
    }


@every
def test_an_axis_has_one_name_and_a_name_one_axis(name: str) -> None:
    """But for what is nobody's channel and has none, such as a kernel's extent."""
    graph = case(name).graph
    held = {axis for terms in graph.tensors.values() for term in terms for axis in axes_of(term) if axis.name}
    assert sorted(axis.name for axis in held) == sorted({axis.name for axis in held})
    assert {axis.name: axis.size for axis in held} == {axis.name: graph.axes[axis.name].size for axis in held}


@every
def test_free_axes_hold_parameters(name: str) -> None:
    """What only a buffer or a constant holds is nobody's channel: positions, masks, tables."""
    graph = case(name).graph
    held = {axis.name for tensor in graph.parameters for term in graph.tensors[tensor] for axis in axes_of(term)}
    assert set(graph.free) <= held
