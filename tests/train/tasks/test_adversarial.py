"""Translating pictures: steps by hand, what the discriminator learns, and pruning that goes on after a kill."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.models import BothWays, PatchDiscriminator, ResidualGenerator, UGenerator
from metaprune.report.page import render
from metaprune.train.stepping import Training
from metaprune.train.task import TaskError
from metaprune.train.tasks.adversarial import Critic, adversarial_loss
from metaprune.train.tasks.frechet import frechet, random_features

EXAMPLE = (torch.rand(2, 1, 16, 16),)
RECIPE = mp.Recipe(
    2,
    lr=2e-3,
    optimizer="adamw",
    momentum=0.5,
    weight_decay=0.0,
    precision="32-true",
    device="cpu",
    channels_last=False,
)
BUDGET = mp.Budget(macs=0.5, multiple_of=1)


def pairs(count: int = 12, colours: int = 3, seed: int = 0) -> DataLoader[Any]:
    """Grey pictures and the colours that go with them."""
    generator = torch.Generator().manual_seed(seed)
    grey = F.interpolate(torch.rand(count, 1, 4, 4, generator=generator), 16)
    true = torch.cat([grey, 1 - grey, grey.square()], 1)[:, :colours]
    return DataLoader(TensorDataset(grey, true), batch_size=4)


def generator(inputs: int = 1, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return ResidualGenerator(inputs, outputs, width=8, blocks=1)


def discriminator(channels: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return PatchDiscriminator(channels, width=8, layers=1)


def features(channels: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(channels, 6, 3, 2), nn.ReLU())


def paired(**fields: Any) -> mp.Task:
    return mp.Adversarial(pairs(), pairs(8, seed=1), discriminator=discriminator(), **fields)


def training(task: mp.Task, network: nn.Module, learned: dict[str, Tensor]) -> Training:
    """One in which a partner's loss is noted, and nothing learned."""
    partners = {name: partner.module for name, partner in task.partners.items()}
    return Training(network, network, partners, {}, task, learned.__setitem__)


@pytest.mark.parametrize("loss", ["lsgan", "vanilla"])
def test_a_paired_step_by_hand(loss: Any) -> None:
    task, network, learned = paired(loss=loss, reconstruction=7.0), generator(), {}
    batch = next(iter(task.train))
    assert task.step is not None
    found = task.step(training(task, network, learned), batch)
    given, true = batch
    judge = discriminator()
    made = network(given)
    wrong, right = judge(torch.cat([given, made], 1)), judge(torch.cat([given, true], 1))
    if loss == "lsgan":
        expected = (wrong - 1).square().mean(), (wrong.square().mean() + (right - 1).square().mean()) / 2
    else:
        expected = F.softplus(-wrong).mean(), (F.softplus(wrong).mean() + F.softplus(-right).mean()) / 2
    torch.testing.assert_close(found, expected[0] + 14 * (made - true).abs().mean())
    torch.testing.assert_close(learned["discriminator"], expected[1])


def test_the_generator_learns_nothing_from_the_discriminators_loss() -> None:
    task, network, learned = paired(), generator(), {}
    assert task.step is not None
    task.step(training(task, network, learned), next(iter(task.train)))
    gradients = torch.autograd.grad(learned["discriminator"], list(network.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


@pytest.mark.parametrize("together", [True, False])
def test_an_unpaired_step_by_hand(together: bool) -> None:
    torch.manual_seed(3)
    forth, back = generator(3, 3), ResidualGenerator(3, 3, width=8, blocks=1)
    batches = DataLoader(TensorDataset(torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)), batch_size=2)
    task = mp.Adversarial(
        batches,
        batches,
        discriminator=discriminator(3),
        back="both" if together else back,
        features=features(),
        reconstruction=3.0,
        pool=0,
    )
    network = BothWays(forth, back) if together else forth
    learned: dict[str, Tensor] = {}
    a, b = next(iter(batches))
    assert task.step is not None
    found = task.step(training(task, network, learned), (a, b))
    judge = discriminator(3)
    made_b, made_a = forth(a), back(b)
    again = (back(made_b) - a).abs().mean() + (forth(made_a) - b).abs().mean()
    same = (back(a) - a).abs().mean() + (forth(b) - b).abs().mean()
    fooled = (judge(made_b) - 1).square().mean() + (judge(made_a) - 1).square().mean()
    torch.testing.assert_close(found, fooled + 6 * again + 3 * same)
    for name, true, made in (("discriminator", b, made_b), ("discriminator of the first kind", a, made_a)):
        expected = ((judge(true) - 1).square().mean() + judge(made).square().mean()) / 2
        torch.testing.assert_close(learned[name], expected)


def test_a_critic_remembers() -> None:
    """The first pictures come back as they are; later ones are swapped about half of the time, each kept once."""
    critic = Critic(nn.Identity(), (1, 1, 1), pool=8)
    torch.manual_seed(0)
    came: list[float] = []
    for number in range(400):
        picture = torch.full((1, 1, 1, 1), float(number))
        came.append(critic(picture, mixed=True).item())
    assert came[:8] == list(range(8))
    earlier = [number for number, back in enumerate(came) if back != number]
    assert 150 < len(earlier) < 250
    assert all(came[number] < number for number in earlier)
    assert len(set(came[8:])) == len(came) - 8
    assert critic(torch.ones(1, 1, 1, 1)).item() == 1
    assert Critic(nn.Identity(), (1, 1, 1)).remembered.numel() == 0


def test_the_distance_of_features() -> None:
    """Of Gaussians that are known: the closed form; of one set with itself: nothing."""
    one, other = torch.eye(2).double(), torch.diag(torch.tensor([4.0, 9.0])).double()
    mean = torch.tensor([3.0, 4.0]).double()
    assert frechet(mean, one, 0 * mean, other) == pytest.approx(25 + (1 - 2) ** 2 + (1 - 3) ** 2)
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 3, 3, generator=generator).double()
    one, other = (root @ root.T for root in roots)
    product = torch.linalg.eigvals(one @ other).real.clamp(min=0).sqrt().sum()
    expected = float(one.trace() + other.trace() - 2 * product)
    assert frechet(mean.new_zeros(3), one, mean.new_zeros(3), other) == pytest.approx(expected)
    distance = mp.FeatureDistance(features())
    pictures = torch.rand(9, 3, 8, 8)
    distance.update(pictures, pictures)
    assert distance.compute() == pytest.approx(0, abs=1e-9)
    distance.update(pictures * 0, pictures)
    assert distance.compute() > 1e-4
    distance.reset()
    with pytest.raises(TaskError, match="two pictures or more, got 0"):
        distance.compute()
    by_hand = mp.FeatureDistance(nn.Dropout(0.5))  # in evaluation mode the pictures themselves, whose means count
    by_hand.update(torch.tensor([[0.0, 2.0], [0.5, 0.5]]).view(2, 1, 1, 2), torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    assert by_hand.compute() == pytest.approx(0.5)  # both have the mean 1/2; variances are 0 and 1/2


def test_random_features_halve_pictures_three_times() -> None:
    found = random_features(2)(torch.rand(1, 2, 16, 24))
    assert found.shape == (1, 64, 2, 3)
    assert found.min() == 0 < found.max()


def test_fid_without_its_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distance(nn.Module):
        def __init__(self, normalize: bool) -> None:
            raise ModuleNotFoundError("torch-fidelity is not installed")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", Distance)
    with pytest.raises(TaskError, match="torch-fidelity"):
        mp.FID()


def test_fid_is_asked_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distance(nn.Module):
        def __init__(self, normalize: bool) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def update(self, pictures: Tensor, real: bool) -> None:
            self.seen.append((tuple(pictures.shape), real, float(pictures.max())))

        def compute(self) -> float:
            return 5.0

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", Distance)
    distance = mp.FID()
    distance.update(torch.full((2, 1, 4, 4), 1.5), torch.zeros(2, 3, 4, 4))
    assert distance.distance.seen == [((2, 3, 4, 4), False, 1.0), ((2, 3, 4, 4), True, 0.0)]
    assert distance.compute() == 5.0


@pytest.mark.parametrize("method", [mp.DHP.generator(), mp.Magnitude()], ids=lambda method: method.name)
def test_a_generator_is_pruned_beside_its_discriminator(method: Any) -> None:
    network = generator()
    task = paired(features=features(), pool=4)
    result = mp.prune(network, EXAMPLE, method=method, budget=BUDGET, task=task, recipe=RECIPE, progress=False)
    report = result.report
    assert 0.49 * report.dense.macs <= report.pruned.macs <= 0.5 * report.dense.macs
    assert set(report.pruned.further) == {"L1", "feature distance"}
    assert len(report.samples) == 2
    trained = result.partners["discriminator"].state_dict()
    before = task.partners["discriminator"].module.state_dict()
    assert any(not torch.equal(trained[name], before[name]) for name in before)
    assert int(trained["count"]) == 4
    if method.name == "DHP":
        assert report.after_cut == pytest.approx(report.before_cut, abs=1e-3)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("after", "ema"),
    [pytest.param(5, None, marks=pytest.mark.slow), (5, 0.9), pytest.param(9, 0.9, marks=pytest.mark.slow)],
    ids=["plain", "averaged", "tuned"],
)
def test_killed_it_goes_on_to_the_same_bits(after: int, ema: float | None, tmp_path: Any) -> None:
    """In the search, and in the fine-tuning: generator, discriminator and remembered pictures."""
    recipe = RECIPE if after < 6 else replace(RECIPE, epochs=4)

    steps = 0

    def run(out: Any, die: int | None = None) -> mp.Result:
        nonlocal steps
        steps = 0
        task = paired(pool=4, ema=ema)
        whole = task.step
        assert whole is not None

        def step(training: Any, batch: Any) -> Tensor:
            nonlocal steps
            steps += 1
            if steps == die:
                raise Killed
            return whole(training, batch)

        return mp.prune(
            generator(),
            EXAMPLE,
            method=mp.DHP.generator(),
            budget=BUDGET,
            task=replace(task, step=step),
            recipe=recipe,
            out=out,
            progress=False,
        )

    expected = run(tmp_path / "whole")
    whole = steps
    with pytest.raises(Killed):
        run(tmp_path / "killed", after)
    found = run(tmp_path / "killed")
    assert steps < whole  # it went on, and did not begin again
    assert found.plan == expected.plan
    for ours, theirs in (
        (found.model, expected.model),
        (found.partners["discriminator"], expected.partners["discriminator"]),
    ):
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def test_both_ways_are_pruned_together() -> None:
    network = BothWays(generator(3, 3), copy.deepcopy(generator(3, 3)))
    batches = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16)), batch_size=4)
    task = mp.Adversarial(batches, batches, discriminator=discriminator(3), back="both", features=features())
    example = (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    method = mp.DHP.generator()
    result = mp.prune(network, example, method=method, budget=BUDGET, task=task, recipe=RECIPE, progress=False)
    assert result.report.pruned.macs <= 0.5 * result.report.dense.macs
    assert {axis.split(".")[0] for axis in result.plan.kept} == {"forth", "back"}
    samples = {sample.name: sample for sample in result.report.samples}
    assert set(samples) == {f"image {number}, {way}" for number in (1, 2) for way in ("A to B", "B to A")}
    for sample in samples.values():
        assert [shot.name for shot in sample.shots] == ["the input", "dense", "pruned"]
        assert all(shot.metric is None for shot in sample.shots)
    assert len({shot.png for sample in samples.values() for shot in sample.shots}) == 12
    assert result.report.floor is not None
    assert "A to B" in render(result.report)
    assert int(result.partners["discriminator"].state_dict()["count"]) > 0


def test_one_generator_is_pruned_and_the_one_back_trains_beside_it() -> None:
    batches = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16)), batch_size=4)
    back = generator(3, 3)
    task = mp.Adversarial(batches, batches, discriminator=discriminator(3), back=back, features=features())
    result = mp.prune(
        generator(3, 3),
        (torch.rand(2, 3, 16, 16),),
        method=mp.DHP.generator(),
        budget=BUDGET,
        task=task,
        recipe=RECIPE,
        progress=False,
    )
    trained = result.partners["back"].state_dict()
    assert any(not torch.equal(trained[name], value) for name, value in back.state_dict().items())
    assert result.report.metric_name == "feature distance"


def test_random_features_are_always_the_same_and_tell_pictures_apart() -> None:
    torch.manual_seed(5)
    one = random_features()
    torch.manual_seed(6)
    assert all(map(torch.equal, one.state_dict().values(), random_features().state_dict().values()))
    task = mp.Adversarial(
        pairs(colours=1), pairs(colours=1), discriminator=discriminator(1), back="both", features="random"
    )
    assert set(task.partners) == {"discriminator", "discriminator of the first kind"}
    assert [partner.module.remembered.shape for partner in task.partners.values()] == [(50, 1, 16, 16)] * 2
    assert task.settings["adversarial.reconstruction"] == "10"
    distances = []
    for pictures in (torch.rand(8, 1, 16, 16), torch.rand(8, 1, 16, 16) ** 4):
        distance = copy.deepcopy(task.metric)
        distance.update(pictures, torch.rand(8, 1, 16, 16))  # type: ignore[union-attr]
        distances.append(distance.compute())  # type: ignore[union-attr]
    assert 2 * distances[0] < distances[1]


@pytest.mark.parametrize("loss", ["lsgan", "vanilla"])
def test_the_loss_is_least_where_the_answer_is_right(loss: Any) -> None:
    sure = torch.full((3,), 10.0)
    if loss == "vanilla":
        assert adversarial_loss(sure, True, loss) < adversarial_loss(-sure, True, loss)
        assert adversarial_loss(-sure, False, loss) < adversarial_loss(sure, False, loss)
    else:
        assert adversarial_loss(torch.ones(3), True, loss) == 0
        assert adversarial_loss(torch.zeros(3), False, loss) == 0


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"discriminator": 3}, "expected discriminator as an nn.Module, got 3"),
        ({"loss": "hinge"}, "expected loss as"),
        ({"reconstruction": -1.0}, "expected reconstruction as a weight from 0"),
        ({"back": 7}, "expected back as None, 'both' or a generator, got 7"),
        ({"back": "both"}, "give features="),
        ({"identity": -1.0}, "expected identity as a share from 0"),
        ({"pool": 1.5}, "expected pool as a whole number from 0"),
        ({"ema": 1.0}, "expected ema as a decay"),
        ({"features": "inception"}, "expected features as an nn.Module, or 'random'"),
        ({"rate": 0.0}, "expected lr above 0"),
        ({"train": DataLoader(torch.zeros(3, 2))}, "two tensors of pictures"),
        ({"train": None}, "to read the first training batch failed: TypeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_is_refused(fields: dict[str, Any], word: str) -> None:
    fields = {"train": pairs(), "val": pairs(), "discriminator": discriminator(), **fields}
    with pytest.raises(mp.MetapruneError, match=word):
        mp.Adversarial(fields.pop("train"), fields.pop("val"), **fields)


def test_what_is_usual_for_pairs() -> None:
    """And to look at the first batch draws nothing."""
    shuffled, judge = DataLoader(pairs().dataset, batch_size=4, shuffle=True), discriminator()
    state = torch.get_rng_state()
    task = mp.Adversarial(shuffled, shuffled, discriminator=judge)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name.partition(".")[2]: value for name, value in task.settings.items()} == {
        "loss": "lsgan",
        "reconstruction": "100",
        "pool": "0",
        "discriminator_rate": "0.0002",
    }
    assert task.partners["discriminator"].lr == 2e-4
    assert set(task.further) == {"L1"}


def test_what_is_given_to_the_network() -> None:
    """The first of two kinds; both, where it leads both ways."""
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    kinds = [(a, b)] * 2
    there = mp.Adversarial(kinds, kinds, discriminator=discriminator(3), back=generator(3), features=features())
    both = mp.Adversarial(kinds, kinds, discriminator=discriminator(3), back="both", features=features())
    assert [[id(x) for x in each.inputs((a, b))[0]] for each in (there, both)] == [[id(a)], [id(a), id(b)]]


def test_what_pairs_are_measured_by() -> None:
    """Decibels of what a file of 8 bits would hold, where a picture without an error counts 100; and the mean error."""
    task, true = paired(), torch.full((2, 3, 16, 16), 0.4)
    made = true.clone()
    made[0] += 10.4 / 255
    batch = (torch.rand(2, 1, 16, 16), true)
    total, count = task.metric(made, batch)  # type: ignore[operator]
    assert (float(total), count) == (pytest.approx(20 * math.log10(25.5) + 100), 2)
    total, count = task.further["L1"](made, batch)  # type: ignore[operator]
    assert (float(total), count) == (pytest.approx(10.4 / 255, rel=1e-4), 2)
    assert task.pictures is not None
    shown = task.pictures.floor(batch)  # grey, in as many channels as the true one
    assert torch.equal(shown, batch[0].expand(-1, 3, -1, -1))
    grey = task.pictures.floor((true * torch.tensor([1.0, 2.0, 0.0]).view(3, 1, 1), batch[0]))
    torch.testing.assert_close(grey, torch.full((2, 1, 16, 16), 0.4))


def test_pictures_of_another_shape_are_refused() -> None:
    task = paired()
    with pytest.raises(TaskError, match=r"expected pictures of shape \(4, 3, 16, 16\)"):
        task.loss(torch.rand(4, 1, 16, 16), next(iter(task.train)))


def test_the_papers_networks_have_their_sizes() -> None:
    """Parameters of the authors' networks, but for biases before norms; MACs of the residual one as others count."""
    with torch.device("meta"):
        networks = {
            "residual": (ResidualGenerator(), 11.378e6),
            "u": (UGenerator(), 54.41e6),
            "patch": (PatchDiscriminator(6), 2.769e6),
        }
        for network, published in networks.values():
            found = sum(parameter.numel() for parameter in network.parameters())
            assert found == pytest.approx(published, rel=5e-3)
        assert networks["patch"][0](torch.rand(1, 6, 256, 256)).shape == (1, 1, 30, 30)
        assert networks["u"][0](torch.rand(1, 3, 256, 256)).shape == (1, 3, 256, 256)
        assert networks["residual"][0](torch.rand(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    macs = mp.macs(mp.trace(networks["residual"][0], (torch.rand(1, 3, 64, 64, device="meta"),)))
    transposed = 2 * 64**2 * 9 * 256 * 128  # of two, by their inputs; the published figure counts them by their outputs
    assert 16 * macs + 3 * transposed == pytest.approx(56.8e9, rel=0.01)


def test_the_u_generator_is_cut() -> None:
    torch.manual_seed(0)
    network = UGenerator(1, 2, width=4, depth=3).eval()
    graph = mp.trace(network, (torch.rand(1, 1, 16, 16),))
    assert {name.split(".")[0] for name in graph.free} == {"down", "up"}
    plan = mp.plan(network, (torch.rand(1, 1, 16, 16),), method=mp.Magnitude(), budget=BUDGET)
    assert mp.macs(graph, plan) <= 0.5 * mp.macs(graph)
    mp.slice(network, graph, plan)
