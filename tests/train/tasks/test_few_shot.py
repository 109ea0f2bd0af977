"""Few-shot learning: episodes, Reptile against its interpolation, adaptation, statistics of the queries or without."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.breaking import Breaks
from torch import Tensor, nn

import metaprune as mp
from metaprune.methods.saliency import gate_gradients
from metaprune.train.scores import scores
from metaprune.train.stepping import Training
from metaprune.train.task import First, TaskError
from metaprune.train.tasks.few_shot import Episodes, Inner, interval, predicted, reptile

INNER = Inner(steps=4, batch=3, lr=0.02)


@dataclass(frozen=True)
class Clouds:
    """Classes of points about centres of their own."""

    train: list[Tensor]
    val: list[Tensor]
    test: list[Tensor]


def clouds() -> Clouds:
    """What tells classes apart lies along one direction; along the others there is noise, which can be learned."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.tensor([0.1, 2.0, 2.0, 2.0])

    def classes(count: int) -> list[Tensor]:
        centres = torch.randn(count, generator=generator)
        return [
            F.pad(centre.expand(12, 1), (0, 3)) + noise * torch.randn(12, 4, generator=generator) for centre in centres
        ]

    return Clouds(classes(12), classes(6), classes(6))


class Net(nn.Module):
    """With a batch norm and dropout; counts its calls."""

    def __init__(self, ways: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(16, ways)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def net(**fields: Any) -> Net:
    torch.manual_seed(0)
    return Net(**fields)


def recipe(epochs: int = 2, lr: float = 1.0, **fields: Any) -> mp.Recipe:
    plain: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "schedule": "linear"} | fields
    return mp.Recipe(epochs, lr=lr, precision="32-true", device="cpu", **plain)


def task(**fields: Any) -> mp.Task:
    settings: dict[str, Any] = {
        "ways": 3,
        "shots": 2,
        "tasks": 2,
        "steps": 6,
        "train_shots": 4,
        "queries": 3,
        "episodes": 8,
        "val_episodes": 4,
        "inner": INNER,
        "testing": Inner(6, 3, 0.05),
    }
    return mp.FewShot(clouds(), **(settings | fields))


def test_episodes() -> None:
    """Other classes each time, no query among the examples; with a seed, the same in each pass."""
    marked = [torch.tensor([[100.0 * one + each] for each in range(7)]) for one in range(5)]
    episodes = Episodes(marked, ways=3, shots=2, queries=4, tasks=2, count=6, seed=1)
    first, again = list(episodes), list(episodes)
    assert len(first) == len(episodes) == 6
    groups = set()
    for (shown, labels, asked, wanted), same in zip(first, again, strict=True):
        assert torch.equal(shown, same[0])
        assert shown.shape == (2, 6, 1)
        assert asked.shape == (2, 12, 1)
        for row in range(2):
            classes = [int(x) // 100 for x in shown[row, :, 0]]
            assert [classes[labels[row].tolist().index(label)] for label in range(3)] == classes[::2]
            assert all(
                int(x) // 100 == classes[::2][label] for x, label in zip(asked[row, :, 0], wanted[row], strict=True)
            )
            assert not set(shown[row].flatten().tolist()) & set(asked[row].flatten().tolist())
            assert len(set(classes)) == 3
            groups.add(tuple(classes))
    assert len(groups) > 6
    free = replace(episodes, seed=None)
    torch.manual_seed(5)
    one = next(iter(free))
    torch.manual_seed(5)
    assert torch.equal(next(iter(free))[0], one[0])
    assert not torch.equal(next(iter(free))[0], one[0])


def in_turn(module: nn.Module, examples: Tensor, labels: Tensor, inner: Inner) -> tuple[dict[str, Tensor], Tensor]:
    """The same steps by PyTorch's Adam, on a copy; and the loss of the last."""
    twin = copy.deepcopy(module)
    optimizer = torch.optim.Adam(twin.parameters(), lr=inner.lr, betas=(0.0, 0.999))
    order: list[int] = []
    loss = torch.zeros(())
    for step in range(inner.steps):
        if len(order) <= step * inner.batch:
            order += torch.randperm(len(examples)).tolist()
        chosen = order[step * inner.batch : (step + 1) * inner.batch]
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(examples[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in twin.named_parameters()}, loss.detach()


def test_a_step_of_sgd_is_the_interpolation() -> None:
    """theta <- theta - e (theta - mean theta_b), with theta_b by PyTorch's own Adam."""
    model = net().double().train()
    batch = [part.double() if part.is_floating_point() else part for part in next(iter(task().train))]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(7)
    ended = [in_turn(model, examples, labels, INNER) for examples, labels in zip(*batch[:2], strict=True)]
    torch.manual_seed(7)
    loss = reptile(Training(model, model, {}, {}, task()), batch, inner=INNER)
    expected = sum(last for _, last in ended) / 2  # what the tasks' last steps lost
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    rate = 0.3
    for name, parameter in model.named_parameters():
        mean = torch.stack([one[name] for one, _ in ended]).mean(0)
        assert parameter.grad is not None
        moved = before[name] - rate * parameter.grad
        torch.testing.assert_close(moved, before[name] + rate * (mean - before[name]), rtol=0, atol=1e-7)
        assert torch.equal(parameter, before[name])
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_frozen_weights_do_not_adapt() -> None:
    model = net()
    model.head.weight.requires_grad_(False)
    loss = reptile(Training(model, model, {}, {}, task()), next(iter(task().train)), inner=INNER)
    loss.backward()
    assert model.head.weight.grad is None
    assert model.head.bias.grad is not None


def test_weights_are_projected_before_each_inner_step() -> None:
    seen = []

    def project(weights: dict[str, Tensor]) -> None:
        seen.append(weights["head.weight"].clone())
        weights["head.weight"].detach().zero_()

    model = net()
    INNER.adapted(model, dict(model.named_parameters()), torch.randn(6, 4), torch.arange(6) % 3, project)
    assert len(seen) == INNER.steps
    assert all(value.any() for value in seen)
    assert all(value.abs().max() <= 2 * INNER.lr for value in seen[1:])  # one step from zero


def test_without_the_queries_statistics_each_answer_stands_alone() -> None:
    """Transductive answers hang on the other queries, and say so in the settings."""
    batch = next(iter(task().test))
    model = net(dropout=0.5).eval()
    for transductive in (False, True):
        answers = []
        for queries in (batch[2], batch[2][:, :2]):
            torch.manual_seed(3)
            answers.append(predicted(model, (*batch[:2], queries), inner=INNER, transductive=transductive))
        alone = torch.allclose(answers[0][:, :2], answers[1], atol=1e-5)
        assert alone != transductive
        words = task(transductive=transductive).settings["few_shot"]
        assert ("not transductive" in words) != transductive
    assert not model.training
    assert model.body[1].num_batches_tracked == 0
    assert model.body[1].momentum == 0.1


def test_statistics_are_the_examples() -> None:
    """By hand: the adapted network, its norm told the mean and variance of what it sees of the examples."""
    model, batch = net().eval(), next(iter(task().test))
    torch.manual_seed(3)
    answer = predicted(model, batch, inner=INNER, transductive=False)[0]
    torch.manual_seed(3)
    ended, _ = in_turn(model.train(), batch[0][0], batch[1][0], INNER)
    twin = net()
    twin.load_state_dict(ended, strict=False)
    with torch.no_grad():
        seen = twin.body[0](batch[0][0])
        twin.body[1].running_mean.copy_(seen.mean(0))
        twin.body[1].running_var.copy_(seen.var(0))
        expected = twin.eval()(batch[2][0])
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_does_not_adapt() -> None:
    model, batch = net().eval(), next(iter(task().test))
    model.head.requires_grad_(False)
    torch.manual_seed(3)
    answer = predicted(model, batch, inner=INNER, transductive=True)
    seen: list[set[str]] = []
    torch.manual_seed(3)
    again = predicted(model, batch, inner=INNER, transductive=True, project=lambda weights: seen.append(set(weights)))
    assert torch.equal(answer, again)
    assert all(names == {"body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"} for names in seen)
    assert len(seen) > 0


def test_it_learns_to_learn() -> None:
    """Above chance and above where it began, with an interval beside it."""
    inner = Inner(8, 6, 0.03)
    model, to_do = net(), task(shots=4, train_shots=8, tasks=3, steps=25, episodes=40, inner=inner, testing=inner)
    before = scores(model, to_do.test, to_do, recipe())
    mp.fit(model, to_do, recipe(2), progress=False)
    after = scores(model, to_do.test, to_do, recipe())
    assert before.metric > 40  # chance is a third
    assert after.metric > before.metric + 2 * after.further["± (95 %)"]
    some = First(to_do.val, 8)
    again = scores(model, some, to_do, recipe())
    torch.rand(3)  # what it draws to adapt hangs on the recipe alone
    assert scores(model, some, to_do, recipe()) == again


def test_an_interval_by_hand() -> None:
    assert interval([50.0, 70.0]) == pytest.approx(1.96 * math.sqrt(200) / math.sqrt(2))
    assert interval([50.0]) == 0.0
    beside: Any = task().further["± (95 %)"]
    answers, labels = F.one_hot(torch.tensor([[0, 1], [1, 1], [0, 1]])).float(), torch.tensor([[0, 1], [0, 1], [0, 1]])
    for some in (slice(0, 1), slice(1, 3)):
        beside.update(answers[some], labels[some])
    assert beside.compute() == pytest.approx(interval([100.0, 50.0, 100.0]))


def test_the_parts_of_a_task() -> None:
    """To learn from: several tasks a step, and one query of each class; to measure on: one task at a time."""
    to_do = task(train_shots=None)
    sizes = [(len(part), *next(iter(part))[0].shape[:2], *next(iter(part))[2].shape[:2]) for part in parts(to_do)]
    assert sizes == [(6, 2, 6, 2, 3), (4, 1, 6, 1, 9), (8, 1, 6, 1, 9)]
    assert next(iter(task().train))[0].shape[:2] == (2, 12)
    known = [clouds().train, clouds().val, clouds().test]
    for part, classes in zip(parts(to_do), known, strict=True):
        shown = next(iter(part))[0].flatten(0, 1)
        assert all(any((example == each).all(1).any() for each in classes) for example in shown)
    val, again, other = ([batch[0] for batch in part] for part in (to_do.val, task().val, task(seed=1).val))
    assert all(map(torch.equal, val, again))
    assert not any(map(torch.equal, val, other))
    tested = Episodes(clouds().test, 3, 2, 9, 1, 8, seed=1)  # that of the validation data, and one
    assert all(torch.equal(batch[0], again[0]) for batch, again in zip(to_do.test or (), tested, strict=True))


def test_the_loss_is_that_of_all_examples_shown() -> None:
    """Of all tasks of a batch, as one batch: what trains where no step does."""
    to_do, network = task(), net()
    batch = next(iter(to_do.train))
    args, kwargs = to_do.inputs(batch)
    answers = network(*args, **kwargs)
    shown, labels = batch[0].reshape(-1, 4), batch[1].reshape(-1)
    torch.testing.assert_close(to_do.loss(answers, batch), F.cross_entropy(net()(shown), labels))


def test_inner_steps_are_small_unless_told() -> None:
    usual = mp.FewShot(clouds(), ways=3, shots=2, queries=3).settings
    assert usual["few_shot.training"] == "2 shots, 5 tasks, Inner(steps=8, batch=10, lr=0.001)"
    assert usual["few_shot.testing"] == "3 queries, Inner(steps=50, batch=5, lr=0.001)"


def parts(to_do: mp.Task) -> tuple[Any, Any, Any]:
    return to_do.train, to_do.val, to_do.test


def test_killed_with_zeros_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Zeros hold in the inner steps and after the outer one; what is adapted to a test is sparse too."""

    def run(broken: int | None, checkpoint: Path | None) -> tuple[dict[str, Tensor], float]:
        model = net()
        zeros = mp.Sparsity(0.5, "iht", begin=0.1, spare_first=False).on(model)
        to_do = task(project=zeros.project)
        shown = to_do if broken is None else replace(to_do, train=Breaks(to_do.train, broken))
        mp.fit(model, shown, recipe(2), during=[zeros], checkpoint=checkpoint, progress=False)
        assert int((model.body[0].weight == 0).sum()) == 32
        return model.state_dict(), mp.evaluate(model, to_do.val, to_do, recipe())

    whole = run(None, None)
    with pytest.raises(KeyboardInterrupt):
        run(8, tmp_path)
    again = run(None, tmp_path)
    assert all(map(torch.equal, whole[0].values(), again[0].values()))
    assert whole[1] == again[1]


def test_a_learner_is_pruned() -> None:
    """The whole way: traced, cut, tuned by Reptile, measured by adaptation."""
    result = mp.prune(
        net(),
        (torch.zeros(2, 4),),
        method=mp.Magnitude(),
        budget=mp.Budget(macs=0.6, multiple_of=1),
        task=task(),
        recipe=recipe(1),
        progress=False,
    )
    assert result.report.pruned.macs <= 0.6 * result.report.dense.macs
    assert "± (95 %)" in result.report.pruned.further


def test_rankings_ask_for_the_loss_of_tasks() -> None:
    """Their gates have gradients: those of the mean loss before anybody adapts, by hand."""
    model, to_do = net().eval(), task()
    graph = mp.trace(model, (torch.zeros(2, 4),))
    batches = [next(iter(to_do.train))]
    (axis,) = graph.free
    found = gate_gradients(model, graph, replace(to_do, train=batches), 1, held=True)[axis]
    tasks = zip(*batches[0][:2], strict=True)
    torch.stack([F.cross_entropy(model(shown), labels) for shown, labels in tasks]).mean().backward()
    expected = torch.zeros(16)
    for name, parameter in model.named_parameters():
        for dim, term in enumerate(graph.tensors[name]):
            if getattr(term, "name", "") == axis:
                assert parameter.grad is not None
                change = (parameter * parameter.grad).detach().movedim(dim, 0)
                expected += change.reshape(16, -1).sum(1)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found[0].float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ways": 1}, "ways"),
        ({"shots": 0}, "shots"),
        ({"ways": 7}, "7 classes"),
        ({"queries": 11}, "13 examples"),
        ({"train_shots": 12}, "13 examples or more to train"),
        ({"episodes": 2.5}, "episodes"),
    ],
)
def test_bad_settings(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=f"few-shot: expected .*{words}"):
        task(**fields)


@pytest.mark.parametrize("classes", [None, [torch.zeros(9, 4)] * 9, "omniglot"])
def test_classes_that_are_in_no_parts(classes: Any) -> None:
    with pytest.raises(TaskError, match=r"expected classes in three parts \(train, val, test\)"):
        mp.FewShot(classes)


@pytest.mark.parametrize("values", [(0, 3, 0.1), (3, 0, 0.1), (3, 3, 0.0), (3, 3, math.inf)])
def test_bad_inner_steps(values: Any) -> None:
    with pytest.raises(TaskError, match="steps and batch from 1 and a rate above 0"):
        Inner(*values)
