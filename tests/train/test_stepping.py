"""Steps of one's own, modules that train beside the network, and gradients of several batches in one step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from metaprune.graph.errors import MetapruneError
from metaprune.train import Checkpoint, Partner, Recipe, Task, TaskError, TrainError, Training, evaluate, fit
from metaprune.train.engine import rehearse
from metaprune.train.stepping import asker

Batch = tuple[Tensor, Tensor]


class Margin(nn.Module):
    """The head of an ArcFace loss: a weight for each class, known to the loss alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(features), F.normalize(self.weight)).clamp(-0.99, 0.99)
        widened = torch.cos(cosines.acos() + 0.2 * F.one_hot(labels, 3))
        return F.cross_entropy(8 * widened, labels)


def embedding() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 5))


def recognition(task: Task, **fields: Any) -> Task:
    def step(training: Training, batch: Batch) -> Tensor:
        return training.partners["head"](training.network(batch[0]), batch[1])

    torch.manual_seed(4)
    return replace(task, step=step, partners={"head": Partner(Margin())}, metric=nearest, **fields)


def nearest(features: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Whether the class of the nearest mean of the batch is the right one."""
    means = torch.stack([features[batch[1] == label].mean(0) for label in range(3)])
    return 100.0 * (torch.cdist(features, means).argmin(1) == batch[1]).sum(), len(features)


def state(*modules: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for module in modules for tensor in module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def test_a_head_trains_in_the_networks_own_optimizer(task: Task, recipe: Recipe) -> None:
    network, task = embedding(), recognition(task)
    head = task.partners["head"].module.eval()
    before = state(head)
    history = fit(network, task, replace(recipe, epochs=15), progress=False)
    assert not same(before, state(head))
    assert history.rows[-1].loss < 0.5 * history.rows[0].loss
    assert not head.training
    assert head.weight.grad is None


def adversarial(loader: DataLoader[Any], when: Callable[[], None] = lambda: None) -> Task:
    """A generator that makes pictures bright, and a discriminator with a rate of its own."""

    def step(training: Training, batch: Batch) -> Tensor:
        when()
        true, critic = batch[0], training.partners["critic"]
        made = training.network(true)
        training.update("critic", (critic(true) - 1).square().mean() + critic(made.detach()).square().mean())
        return (critic(made) - 1).square().mean() + F.l1_loss(made, true)

    torch.manual_seed(5)
    critic = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 1)
    )
    return Task(
        loader,
        loader,
        None,
        loss=lambda made, batch: F.l1_loss(made, batch[0]),
        metric=lambda made, batch: ((made - batch[0]).abs().mean((1, 2, 3)).sum(), len(made)),
        higher_is_better=False,
        step=step,
        partners={"critic": Partner(critic, lr=0.02)},
    )


def generator() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


def test_a_discriminator_learns_from_its_own_loss_alone(loader: DataLoader[Any], recipe: Recipe) -> None:
    """As in a loop written by hand, bit for bit."""
    once = DataLoader(loader.dataset, batch_size=8)
    task, made = adversarial(once), generator()
    task.partners["critic"].module[4].p = 0.0
    recipe = replace(recipe, epochs=1, schedule="constant", momentum=0.5)
    ours, theirs = (made, task.partners["critic"].module), copy.deepcopy((made, task.partners["critic"].module))
    fit(made, task, recipe, progress=False)

    network, critic = theirs
    optimizers = []
    for module, lr in ((network, recipe.lr), (critic, 0.02)):
        groups = [[p for p in module.parameters() if (p.dim() >= 2) == decayed] for decayed in (True, False)]
        decays = zip(groups, (recipe.weight_decay, 0.0), strict=True)
        optimizers.append(
            torch.optim.SGD([{"params": g, "weight_decay": w} for g, w in decays], lr, momentum=0.5, nesterov=True)
        )
    for x, _ in once:
        fake = network(x)
        optimizers[1].zero_grad()
        ((critic(x) - 1).square().mean() + critic(fake.detach()).square().mean()).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        ((critic(fake) - 1).square().mean() + F.l1_loss(fake, x)).backward()
        optimizers[0].step()
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b)


class Killed(Exception):
    """Raised where a run is to die."""


@pytest.mark.parametrize(
    ("accumulate", "optimizer"),
    [(1, "sgd"), (4, "adamw"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, "adamw"), (4, "sgd")))],
)
def test_killed_and_resumed_to_the_same_bits(
    loader: DataLoader[Any], recipe: Recipe, accumulate: int, optimizer: Any, tmp_path: Path
) -> None:
    """With a partner, its statistics and momentum; also where gradients of some batches were waiting for others."""
    recipe = replace(recipe, epochs=2, accumulate=accumulate, optimizer=optimizer, warmup=0.5)

    def trained(folder: Path | None, dies: int = -1) -> list[Tensor]:
        def tick() -> None:
            nonlocal dies
            dies -= 1
            if dies == -1:
                raise Killed

        task, network = adversarial(loader, tick), generator()
        checkpoint = Checkpoint(folder, seconds=0) if folder else None
        fit(network, task, recipe, checkpoint=checkpoint, progress=False)
        return state(network, task.partners["critic"].module)

    whole = trained(None, -2)
    for dies in (2, 5, 9):
        folder = tmp_path / str(dies)
        with pytest.raises(MetapruneError, match="the task's step failed: Killed"):
            trained(folder, dies)
        tree = Checkpoint(folder).load()
        assert (tree["epoch"], tree["batch"]) == divmod(dies, 6)
        assert (tree["gradients"] is not None) == bool(dies % accumulate)
        assert same(trained(folder, -2), whole), dies
    assert same(trained(folder, -2), whole)  # which trains nothing any more


def test_a_window_is_one_larger_batch(task: Task, recipe: Recipe) -> None:
    """Also the last one of a phase, which is smaller, and where windows span epochs: 2 · 6 batches in windows of 5."""
    data = task.train.dataset  # type: ignore[attr-defined]
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    twin = copy.deepcopy(network)
    small = DataLoader(data, batch_size=8)
    recipe = replace(recipe, epochs=2, accumulate=5, schedule="constant", weight_decay=0.0)
    fit(network, replace(task, train=small), recipe, progress=False)
    optimizer = torch.optim.SGD(twin.parameters(), recipe.lr, momentum=0.9, nesterov=True)
    batches = [*small, *small]
    for first in (0, 5, 10):
        x, y = (torch.cat(parts) for parts in zip(*batches[first : first + 5], strict=True))
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        optimizer.step()
    torch.testing.assert_close(network[1].weight, twin[1].weight)


def test_reptile_is_a_step(recipe: Recipe) -> None:
    """Sum of theta · (theta - mean of the adapted ones): one plain step at rate 1 is the mean of them."""
    tasks = [[(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(2)] for _ in range(3)]

    def adapted(module: nn.Module, episode: Batch) -> nn.Module:
        inner = copy.deepcopy(module)
        optimizer = torch.optim.SGD(inner.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            F.mse_loss(inner(episode[0]), episode[1]).backward()
            optimizer.step()
        return inner

    def step(training: Training, batch: list[Batch]) -> Tensor:
        inner = [list(adapted(training.module, episode).parameters()) for episode in batch]
        return torch.stack(
            [
                (theta * (theta - torch.stack(list(those)).mean(0)).detach()).sum()
                for theta, *those in zip(training.module.parameters(), *inner, strict=True)
            ]
        ).sum()

    def predict(network: nn.Module, batch: list[Batch]) -> list[Tensor]:
        with torch.enable_grad():
            return [adapted(network.module, episode)(episode[0]).detach() for episode in batch]  # type: ignore[arg-type]

    def metric(outputs: list[Tensor], batch: list[Batch]) -> tuple[Tensor, int]:
        return torch.stack([F.mse_loss(o, y) for o, (_, y) in zip(outputs, batch, strict=True)]).sum(), len(batch)

    task = Task(tasks, tasks, None, lambda o, b: o.sum(), metric, higher_is_better=False, step=step, predict=predict)
    network = nn.Linear(4, 1)
    inner = [adapted(network, episode) for episode in tasks[0]]
    one = replace(recipe, epochs=1, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant")
    fit(network, replace(task, train=tasks[:1]), one, progress=False)
    torch.testing.assert_close(network.weight, torch.stack([each.weight for each in inner]).mean(0))
    before = evaluate(network, tasks, task, recipe)
    fit(network, task, replace(one, epochs=20, lr=0.3), progress=False)
    assert evaluate(network, tasks, task, recipe) < before


def test_the_linear_schedule(recipe: Recipe) -> None:
    recipe = Recipe(epochs=10, lr=0.4, warmup=2.0, schedule="linear")
    assert [recipe.lr_at(epoch) for epoch in (1, 2, 6, 10)] == pytest.approx([0.2, 0.4, 0.2, 0.0])


def test_a_rehearsal_trains_no_partner(loader: DataLoader[Any], recipe: Recipe) -> None:
    task, network = adversarial(loader), generator()
    before = state(network, task.partners["critic"].module)
    rehearse(network, task, recipe)
    assert same(before, state(network, task.partners["critic"].module))


def test_gradients_are_asked_without_training_anything(loader: DataLoader[Any]) -> None:
    task, network = adversarial(loader), generator().eval()
    before = state(network, task.partners["critic"].module)
    asked, batch = asker(network, task), next(iter(loader))
    weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    loss = asked(weights, batch)
    assert torch.equal(loss, asked(weights, batch))  # nothing is dropped
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, [weights["0.weight"], weights["3.weight"]]))
    assert same(before, state(network, task.partners["critic"].module))


def misfits() -> dict[str, tuple[Callable[[Training, Batch], Any], str]]:
    def unknown(training: Training, batch: Batch) -> Tensor:
        training.update("nobody", training.network(batch[0]).sum())
        return training.loss(batch)

    def none_of_its_own(training: Training, batch: Batch) -> Tensor:
        training.update("head", training.partners["head"](training.network(batch[0]), batch[1]))
        return training.loss(batch)

    return {
        "unknown": (unknown, "expected one of the partners with a rate of their own .none., got 'nobody'"),
        "none of its own": (
            none_of_its_own,
            "the loss that the step returns trains the network and the others",
        ),
        "no loss": (lambda training, batch: 3.0, "expected the step's loss as a scalar tensor"),
        "cut off": (lambda training, batch: training.loss(batch).detach(), "does not depend on the network"),
        "an error": (lambda training, batch: {}["x"], "the task's step failed: KeyError"),
    }


@pytest.mark.parametrize("kind", misfits())
def test_steps_that_are_none(kind: str, task: Task, recipe: Recipe) -> None:
    step, words = misfits()[kind]
    task = replace(recognition(task), step=step, loss=lambda output, batch: output.square().mean())
    for go in (rehearse, fit):
        with pytest.raises(MetapruneError, match=words):
            go(embedding(), task, recipe)


def test_partners_that_are_none(task: Task, recipe: Recipe, network: nn.Module) -> None:
    for partners in ({"head": Margin()}, {"network": Partner(Margin())}, {3: Partner(Margin())}, [Partner(Margin())]):
        with pytest.raises(TaskError, match="expected partners by name"):
            replace(task, partners=partners)  # type: ignore[arg-type]
    for lr in (0, -1.0, float("nan"), "fast"):
        with pytest.raises(MetapruneError, match="partner: expected lr above 0"):
            Partner(Margin(), lr)  # type: ignore[arg-type]
    with pytest.raises(MetapruneError, match="partner: expected a module"):
        Partner(Margin)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="'part' shares parameters with 'network'"):
        fit(network, replace(task, partners={"part": Partner(network[5])}), recipe, progress=False)
    frozen = Partner(Margin().requires_grad_(False), lr=0.1)
    with pytest.raises(TrainError, match="the partner 'frozen' has no parameter to train"):
        fit(network, replace(task, partners={"frozen": frozen}), recipe, progress=False)


def test_the_checkpoint_of_another_partner(task: Task, recipe: Recipe, tmp_path: Path) -> None:
    fit(embedding(), recognition(task), recipe, checkpoint=tmp_path, progress=False)
    for name, module in (("head", nn.Linear(5, 2)), ("tail", Margin())):
        other = replace(recognition(task), partners={name: Partner(module)})
        with pytest.raises(MetapruneError, match="of another run"):
            fit(embedding(), other, recipe, checkpoint=tmp_path, progress=False)


def test_a_network_that_computes_its_losses_in_training_mode_is_asked_there(loader: DataLoader[Any]) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor, labels: Tensor) -> Any:
            logits = self.head(self.body(x))
            return {"cls": F.cross_entropy(logits, labels)} if self.training else {"scores": logits.softmax(1)}

    task = Task(
        loader,
        loader,
        None,
        loss=lambda output, batch: sum(output.values()),
        metric=lambda output, batch: (output["scores"].sum(), 8),
        inputs=lambda batch: (tuple(batch), {}),
    )
    network = Detector().eval()
    before = state(network)
    asked, batch = asker(network, task), next(iter(loader))
    weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    losses = [asked(weights, batch) for _ in range(3)]
    expected = F.cross_entropy(network.head(network.body(batch[0])), batch[1])
    assert all(torch.equal(loss, expected) for loss in losses)
    assert same(before, state(network))
    assert not any(module.training for module in network.modules())
    with pytest.raises(TaskError, match="the loss failed"):
        asker(network, replace(task, loss=lambda output, batch: output["nothing"]))(weights, batch)


def test_partners_are_given_back_as_they_were(task: Task, recipe: Recipe) -> None:
    """Layout and modes, of a head with filters."""

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(1, 3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.filters(x).flatten(1)

    seen = Seen().eval()
    strides = seen.filters.weight.stride()
    step: Any = lambda training, batch: training.loss(batch) + training.partners["seen"](batch[0]).square().mean()  # noqa: E731
    pictures = DataLoader(TensorDataset(torch.randn(8, 1, 4, 4), torch.arange(8) % 3), batch_size=4)
    task = replace(task, train=pictures, step=step, partners={"seen": Partner(seen)})
    fit(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), task, replace(recipe, channels_last=True), progress=False)
    assert seen.filters.weight.stride() == strides
    assert not seen.training
