"""The laws on random networks: 15, and 2,000 slowly."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import metaprune as mp
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.laws.random_networks import Program, RandomNet, programs
from tests.zoo import randomise


def check(program: Program, cuts: list[int]) -> float:
    """Slice the network, and compare with what is known of it; returns the free share of its parameters.

    The first axis loses cuts[0] channels (modulo its size), and so on, over and over.
    """
    model = RandomNet(program).double().eval()
    generator = torch.Generator().manual_seed(0)
    randomise(model, generator)
    args = (torch.randn(2, 3, program.side, program.side, generator=generator, dtype=torch.float64),)
    graph = mp.trace(model, args)
    note(f"{model}\n{graph}")
    dense = oracle.call(model, args, {})
    orders = {axis: torch.randperm(graph.axes[axis].size, generator=generator).tolist() for axis in graph.free}
    assert oracle.distance(dense, oracle.call(oracle.permute(model, graph, orders), args, {})) < 1e-10

    lost = itertools.cycle(cuts)
    plan = oracle.random_plan(graph, generator, lambda size: size - next(lost) % size)
    cut = carve(model, graph, plan)
    note(f"{plan}\nundone: {cut.undone}")
    masked = oracle.call(mp.mask(model, graph, cut.plan), args, {})
    assert oracle.distance(oracle.call(cut.model, args, {}), masked) < 1e-10
    assert mp.params(graph, cut.plan) == oracle.counted_params(cut.model)
    by_letters = any(kind == "einsum" for kind, _, _ in program.steps)
    if not by_letters:  # PyTorch multiplies letters of size 1, and does not count it
        assert mp.macs(graph, cut.plan) == oracle.counted_macs(cut.model, args, {})
    assert not cut.undone
    return graph.free_share()


@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_networks_obey_the_laws(count: int) -> None:
    shares: list[float] = []

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(program=programs(), cuts=st.lists(st.integers(0, 7), min_size=1, max_size=5))
    def laws(program: Program, cuts: list[int]) -> None:
        shares.append(check(program, cuts))

    laws()
    assert sum(shares) / len(shares) > 0.8  # not by fixing everything
