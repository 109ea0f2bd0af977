"""Laws of fusing, on every network of the zoo: channels that are copies of one another are fused without a trace."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import axes_of
from metaprune.methods.intra_fusion.intra_fusion import IntraFusion
from tests.laws import oracle
from tests.laws.case import Case, case
from tests.zoo import ZOO, networks

EXACT = {
    "default": IntraFusion(),
    "all of it": IntraFusion(consumer="one"),
    "mean": IntraFusion(producer="mean"),
    "mean, nearest": IntraFusion(producer="mean", consumer="one", matching="nearest", norm=1),
}
"""What claims to leave a function as it is whose channels are copies of one another, equally many of each."""

COPIED = ("vgg", "two_pools", "fasternet", "attention_separate", "mixer", "spatial_transformer", "gcn")
"""Networks with axes that no statistic runs over, of several kinds."""


def absorbed(graph: ChannelGraph, counted: bool = True) -> list[str]:
    """Free axes of more than one channel that can be fused; those that statistics run over only where asked."""
    over = {axis.name for one in graph.every_operator for term in one.statistics for axis in axes_of(term)}
    return [name for name in graph.free if name not in graph.unabsorbed and (counted or name not in over)]


def apart(fused: Case, graph: ChannelGraph, originals: Mapping[str, Tensor], method: IntraFusion | None) -> float:
    """How far the network that is left of one with copies lies from it, where the originals alone stay."""
    copies = oracle.doubled(fused.model, graph, originals)
    plan = mp.Plan({axis: sorted(set(original.tolist())) for axis, original in originals.items()})
    whole = copies if method is None else method.fused(copies, graph, plan)
    return oracle.distance(fused.run(copies), fused.run(mp.mask(whole, graph, plan)))


@pytest.mark.parametrize("name", networks(families=4))
def test_copies_are_fused(name: str) -> None:
    """Two of each channel: one of them takes over what both contributed."""
    one = case(name)
    sizes = {axis: one.graph.axes[axis].size for axis in absorbed(one.graph)}
    originals = {axis: torch.arange(size) % (size // 2) for axis, size in sizes.items() if size % 2 == 0}
    if not originals:
        pytest.skip("no axis of an even number of channels can be fused")
    for said, method in EXACT.items():
        assert apart(one, one.graph, originals, method) < 1e-9, said


@pytest.mark.parametrize("name", [n if n in COPIED else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
def test_any_number_of_copies(name: str) -> None:
    """Of one channel more copies than of another: each copy goes to its original, the nearest that stays."""
    one = case(name)
    generator = torch.Generator().manual_seed(1)
    originals = {}
    for axis in absorbed(one.graph, counted=False):
        size = one.graph.axes[axis].size
        stays = -(-size // 2)
        further = torch.randint(stays, (size - stays,), generator=generator)
        originals[axis] = torch.cat([torch.arange(stays), further])
    if not originals:
        pytest.skip("no axis can be fused that no statistic runs over")
    assert apart(one, one.graph, originals, IntraFusion(matching="nearest")) < 1e-9


def test_published_sums_and_drops_change_the_function() -> None:
    """What the laws hold of the default does not hold of dropping, nor of rows and columns that are both summed."""
    one = case("vgg")
    originals = {
        axis: torch.arange(one.graph.axes[axis].size) % (one.graph.axes[axis].size // 2) for axis in one.graph.free
    }
    assert apart(one, one.graph, originals, None) > 0.1
    assert apart(one, one.graph, originals, IntraFusion.published()) > 0.1


def test_the_cut_of_a_fused_copy_is_the_network() -> None:
    """Surgery only slices, over products, concatenations, heads and groups."""
    for name in ("vit", "grouped_upsampler"):
        one = case(name)
        sizes = {axis: one.graph.axes[axis].size for axis in absorbed(one.graph)}
        originals = {axis: torch.arange(size) % (size // 2) for axis, size in sizes.items() if size % 2 == 0}
        copies = oracle.doubled(one.model, one.graph, originals)
        plan = mp.Plan({axis: sorted(set(original.tolist())) for axis, original in originals.items()})
        small = mp.slice(IntraFusion().fused(copies, one.graph, plan), one.graph, plan)
        assert oracle.distance(one.run(copies), one.run(small)) < 1e-9
        assert oracle.counted_params(small) < oracle.counted_params(copies)


@pytest.mark.parametrize("name", networks(families=8))
def test_two_networks_that_differ_by_the_order_of_their_channels_are_one(name: str) -> None:
    """Averaged with a copy whose channels changed places, a network computes what it did; also by another share."""
    one = case(name)
    generator = torch.Generator().manual_seed(2)
    orders = {axis: torch.randperm(found.size, generator=generator).tolist() for axis, found in one.graph.free.items()}
    other = oracle.permute(one.model, one.graph, orders)
    both = mp.fuse(one.model, other, one.args, one.kwargs, graph=one.graph, share=0.3)
    assert oracle.distance(one.run(one.model), one.run(both)) < 1e-9


@pytest.mark.parametrize("name", ["vgg", "vit"])
def test_renumbering_channels_changes_nothing(name: str) -> None:
    """Wherever the channels stand, the same are fused into the same."""
    one = case(name)
    generator = torch.Generator().manual_seed(3)
    orders = {axis: torch.randperm(found.size, generator=generator) for axis, found in one.graph.free.items()}
    other = oracle.permute(one.model, one.graph, {axis: order.tolist() for axis, order in orders.items()})
    plan = oracle.half(one.graph)
    moved = mp.Plan({axis: sorted(orders[axis].argsort()[list(kept)].tolist()) for axis, kept in plan.kept.items()})
    for method in (IntraFusion(), IntraFusion.published()):
        first = one.run(mp.mask(method.fused(one.model, one.graph, plan), one.graph, plan))
        second = one.run(mp.mask(method.fused(other, one.graph, moved), one.graph, moved))
        assert oracle.distance(first, second) < 1e-9
