"""Zeros that come and go: their number at each step, what they are, cuts, kills."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.graph.graph import WidthLimits
from metaprune.surgery.slice import carve
from metaprune.zeros import sparsity
from metaprune.zeros.sparsity import Phase, Zeros, silent
from tests.breaking import Breaks
from tests.laws import oracle
from tests.methods import small


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))


def trained(model: nn.Module, zeros: Zeros, steps: int, look: Any = lambda done: None) -> None:
    """With momentum and decay, which would move zeros."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 6, generator=generator)).square().mean().backward()
        optimizer.step()
        zeros.after_step(step, steps)
        look(step + 1)


SETTINGS: dict[str, dict[str, Any]] = {
    "dsd": {"schedule": "dsd"},
    "dsd_late": {"schedule": "dsd", "begin": 0.5, "end": 1.0},
    "iht": {"schedule": "iht"},
    "iht_fine": {"schedule": "iht", "begin": 0.1, "interval": 0.1, "first": 0.2, "sparse": 0.5},
    "iht_once": {"schedule": "iht", "interval": 0.8},
    "random": {"schedule": "iht", "random": 3},
}


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_number_of_zeros_is_the_schedules(name: str, steps: int) -> None:
    """At each step, weight by weight; the first weight and biases are never touched."""
    model, settings = network(), mp.Sparsity(0.5, **SETTINGS[name])
    zeros = settings.on(model)
    assert zeros.weights == ("2.weight", "4.weight")
    seen = []

    def look(done: int) -> None:
        phase = settings.phase(done, steps)
        share = 0.0 if phase is None else phase.share
        seen.append(share)
        weights = dict(model.named_parameters())
        for name, weight in weights.items():
            expected = round(share * weight.numel()) if name in zeros.weights else 0
            assert int((weight == 0).sum()) == expected, (name, done)
        assert zeros.sparsity == pytest.approx(share, abs=0.03)

    trained(model, zeros, steps, look)
    assert max(seen) == 0.5
    assert seen[0] == 0.0
    assert (seen[-1] == 0.0) == (name == "dsd")  # the others end sparse


def test_phases_by_hand() -> None:
    dsd = mp.Sparsity(0.4, "dsd")
    assert [dsd.phase(done, 10) for done in (2, 3, 8, 9)] == [None, Phase(0, 0.4), Phase(0, 0.4), None]
    iht = mp.Sparsity(0.5, "iht")  # four intervals of 20 steps, 15 of each sparse
    shares = [None if (phase := iht.phase(done, 100)) is None else round(phase.share, 4) for done in range(101)]
    rising = [0.1, 0.2333, 0.3667, 0.5]
    assert shares[:20] == [None] * 20
    for place, share in enumerate(rising[:3]):
        assert shares[20 + 20 * place : 40 + 20 * place] == [share] * 15 + [None] * 5
    assert shares[80:] == [0.5] * 21
    assert mp.Sparsity(0.05, "iht").phase(30, 100) == Phase(0, 0.05)  # never above what was asked for


def test_the_smallest_are_zero_and_iterative_thresholding_looks_again() -> None:
    model = network()
    zeros = mp.Sparsity(0.5, "dsd", begin=0.0, end=1.0).on(model)
    before = model[2].weight.detach().abs().clone()
    zeros.after_step(0, 10)
    gone = model[2].weight == 0
    assert before[gone].max() <= before[~gone].min()
    with torch.no_grad():
        model[2].weight.fill_(1.0)
    zeros.after_step(1, 10)
    assert torch.equal(model[2].weight == 0, gone)  # the mask of the phase
    again = mp.Sparsity(0.5, "iht", begin=0.0, interval=0.5, first=0.5).on(model)
    again.after_step(0, 10)
    first = model[2].weight == 0
    with torch.no_grad():
        model[2].weight.copy_(torch.where(first, 2.0, 1.0))  # the others are the smallest now
    again.after_step(4, 10)
    assert not (model[2].weight == 0)[first].any()


def test_a_control_takes_them_at_random() -> None:
    masks = []
    for seed in (None, 1, 1, 2):
        zeros = mp.Sparsity(0.5, "dsd", begin=0.0, random=seed).on(network())
        zeros.after_step(0, 10)
        masks.append(zeros.masks["2.weight"])
    assert torch.equal(masks[1], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[3])
    alike = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    zeros = mp.Sparsity(0.5, "dsd", begin=0.0, random=0).on(alike)
    zeros.after_step(0, 10)
    assert not torch.equal(zeros.masks["1.weight"], zeros.masks["2.weight"]), "each weight has zeros of its own"


@pytest.mark.parametrize("channels", [False, True])
def test_zeros_do_not_hang_on_the_default_device(traced: Any, channels: bool) -> None:
    """What a network that lies on the CPU is given does not depend on what else is made elsewhere."""
    model = copy.deepcopy(traced[0]) if channels else network()
    zeros = mp.Sparsity(0.5, "dsd", traced[1] if channels else None, begin=0.0, random=None if channels else 1).on(
        model
    )
    with torch.device("meta"):
        zeros.after_step(0, 10)
    assert {mask.device.type for mask in zeros.masks.values()} == {"cpu"}
    assert zeros.sparsity > 0.3
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in zeros.masks.items())


def test_what_stays_dense() -> None:
    assert mp.Sparsity(0.5, spare_first=False).on(network()).weights == ("0.weight", "2.weight", "4.weight")
    assert mp.Sparsity(0.5, skip=["4.*"]).on(network()).weights == ("2.weight",)
    assert mp.Sparsity(0.5).on(nn.Linear(4, 3)).weights == ("weight",)  # the first, and the only one
    with pytest.raises(MetapruneError, match="fits no weight"):
        mp.Sparsity(0.5, skip=["head"]).on(network())
    with pytest.raises(MetapruneError, match="weights that multiply"):
        mp.Sparsity(0.5).on(nn.BatchNorm1d(3))


@pytest.fixture(scope="module")
def traced() -> tuple[small.Small, mp.ChannelGraph]:
    torch.manual_seed(0)
    model = small.Small().double()
    return model, mp.trace(model, (small.EXAMPLE[0].double(),))


def test_channels_of_zeros_are_cut_without_a_change(traced: Any) -> None:
    """With norms, a trunk and a depthwise layer, after training with momentum: masked = cut."""
    model, graph = copy.deepcopy(traced[0]), traced[1]
    zeros = mp.Sparsity(0.5, "iht", graph).on(model)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    counts = []
    for step in range(20):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=generator)).square().mean().backward()
        optimizer.step()
        zeros.after_step(step, 20)
        phase = zeros.settings.phase(step + 1, 20)
        alive = model.stem.weight.flatten(1).abs().sum(1) > 0
        counts.append(int((~alive).sum()))
        assert counts[-1] == (0 if phase is None else int(phase.share * 16))
    assert zeros.plan.widths == {name: axis.size - axis.size // 2 for name, axis in graph.free.items()}
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=generator)
    cut = carve(model.eval(), graph, zeros.plan)
    assert not cut.undone
    assert oracle.distance(model(x).detach(), cut.model.eval()(x).detach()) < 1e-10


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.up, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.norm(self.embed(x))).relu())


def test_what_the_norm_of_a_weight_counts_stays_whole() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), nn.Linear(6, 3))
    graph = mp.trace(model, (torch.zeros(2, 5),))
    assert {graph.axes[name].size for name in graph.free} == {8, 6}
    assert silent(graph) == ()  # the weight is normed over its columns, and its rows cannot be zero


def test_what_a_norm_counts_stays_whole() -> None:
    model = Normed()
    graph = mp.trace(model, (torch.zeros(2, 5),))
    assert {graph.axes[name].size for name in graph.free} == {8, 12}
    zeros = mp.Sparsity(0.5, "dsd", graph, begin=0.0).on(model)
    assert [graph.axes[name].size for name in zeros.axes] == [12]
    zeros.after_step(0, 10)
    assert list(zeros.plan.widths.values()) == [6]


def test_limits_are_obeyed(traced: Any) -> None:
    model, graph = copy.deepcopy(traced[0]), traced[1]
    stem, inner, wide = graph.free
    limits = WidthLimits(least={stem: 12}, most={wide: 8})
    zeros = mp.Sparsity(0.5, "dsd", replace(graph, limits=limits), begin=0.0).on(model)
    zeros.after_step(0, 10)
    assert zeros.plan.widths == {stem: 12, inner: 6, wide: 8}


def test_axes_alike_keep_the_same_channels() -> None:
    """Those that are largest on the average; of equals, the last ones stay."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    graph = mp.trace(model, (torch.zeros(2, 3),))
    assert list(graph.free) == ["0", "1"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[0].weight[0], model[2].weight[:, 1] = 3.0, 3.0
    apart = mp.Sparsity(0.5, "dsd", graph, begin=0.0).on(model)
    apart.after_step(0, 10)
    assert apart.plan.kept == {"0": (0, 3), "1": (1, 3)}
    with torch.no_grad():  # what is zero by now is large again
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[0].weight.mul_(torch.tensor([[6.0], [3.0], [1.0], [1.0]]))
        model[2].weight.mul_(torch.tensor([0.1, 2.0, 1.0, 1.0]))
    limits = WidthLimits(alike_channels=(("0", "1"),))
    alike = mp.Sparsity(0.75, "dsd", replace(graph, limits=limits), begin=0.0).on(model)
    alike.after_step(0, 10)
    assert alike.plan.kept == {"0": (1,), "1": (1,)}


def test_a_channel_is_as_large_as_its_share_of_each_weight() -> None:
    """Whatever the scales of the weights that hold it: 10 of 10 and 11, and 2 of 2 and 1, is the larger one."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    graph = mp.trace(model, (torch.zeros(2, 1),))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[10.0], [11.0]]))
        model[1].weight.copy_(torch.tensor([[0.02, 0.01]]))
    zeros = mp.Sparsity(0.5, "dsd", graph, begin=0.0).on(model)
    zeros.after_step(0, 10)
    assert zeros.plan.kept == {"0": (0,)}


def test_widths_are_those_that_operators_take(traced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph = copy.deepcopy(traced[0]), traced[1]
    monkeypatch.setattr(sparsity, "steps_of_operators", lambda graph: dict(zip(graph.free, (5, 8, 12), strict=True)))
    zeros = mp.Sparsity(0.5, "dsd", graph, begin=0.0).on(model)
    zeros.after_step(0, 10)
    assert list(zeros.plan.widths.values()) == [10, 8, 12]  # of 8, 6 and 12


def test_a_state_goes_on_with_the_zeros_of_its_phase() -> None:
    zeros = mp.Sparsity(0.5, "dsd", begin=0.0).on(network())
    zeros.after_step(0, 10)
    gone = ~zeros.masks["2.weight"]
    model = network()
    nn.init.ones_(model[2].weight)
    again = mp.Sparsity(0.5, "dsd", begin=0.0).on(model)
    again.load_state_dict(copy.deepcopy(zeros.state_dict()))
    assert torch.equal(model[2].weight == 0, gone)
    with torch.no_grad():
        model[2].weight.copy_(torch.where(gone, 2.0, 1.0))  # the others are the smallest now
    again.after_step(1, 10)
    assert torch.equal(model[2].weight == 0, gone)


def test_a_state_of_other_weights_is_refused() -> None:
    zeros = mp.Sparsity(0.5, "dsd", begin=0.0).on(network())
    zeros.after_step(0, 10)
    other = mp.Sparsity(0.5, skip=["2.*"]).on(network())
    with pytest.raises(MetapruneError, match="expected a state of this network's weights, got others"):
        other.load_state_dict(zeros.state_dict())
    assert other.masks == {}


def test_a_graph_of_another_network_is_refused(traced: Any) -> None:
    with pytest.raises(PlanError, match="not of this"):
        mp.Sparsity(0.5, graph=traced[1]).on(network())
    with pytest.raises(MetapruneError, match="skip belongs to weights"):
        mp.Sparsity(0.5, graph=traced[1], skip=["stem"])


@pytest.mark.parametrize(
    ("channels", "stop"), [(False, 13), (False, 25), (True, 25)]
)  # in a relaxed phase, in a sparse one
def test_killed_it_goes_on_to_the_same_bits(tmp_path: Path, traced: Any, channels: bool, stop: int) -> None:
    graph = traced[1] if channels else None
    task, recipe = small.task(), small.recipe(3)

    def run(task: mp.Task, checkpoint: Path | None) -> tuple[dict[str, Tensor], Zeros]:
        torch.manual_seed(0)
        model = small.Small()
        zeros = mp.Sparsity(0.5, "iht", graph).on(model)
        mp.fit(model, task, recipe, during=[zeros], checkpoint=checkpoint, progress=False)
        return model.state_dict(), zeros

    whole, before = run(task, None)
    with pytest.raises(KeyboardInterrupt):
        run(replace(task, train=Breaks(task.train, stop)), tmp_path)
    again, after = run(task, tmp_path)
    assert all(map(torch.equal, whole.values(), again.values()))
    assert after.plan == before.plan
    assert all(torch.equal(mask, after.masks[name]) for name, mask in before.masks.items())
    assert after.sparsity == before.sparsity > 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"share": 1.0}, "share"),
        ({"share": -0.1}, "share"),
        ({"share": 0.5, "schedule": "never"}, "'dsd' or 'iht'"),
        ({"share": 0.5, "interval": 0.0}, "interval"),
        ({"share": 0.5, "sparse": 1.5}, "sparse"),
        ({"share": 0.5, "begin": 1.0}, "begin"),
        ({"share": 0.5, "begin": -0.1}, "begin"),
        ({"share": 0.5, "first": 1.0}, "first"),
        ({"share": 0.5, "end": 1.1}, "end"),
        ({"share": 0.5, "skip": "head"}, "skip"),
        ({"share": 0.5, "random": 0.5}, "random"),
    ],
)
def test_bad_settings(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MetapruneError, match=f"sparsity: expected .*{words}"):
        mp.Sparsity(**fields)
