"""Reports of real runs, short ones: of a convolutional network, a transformer, a restoration, and a run that failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.cost.latency import latencies
from metaprune.methods.method import Method
from metaprune.models import MODELS
from metaprune.models.dncnn import DnCNN
from metaprune.report.report import Arm, Report
from metaprune.train import Recipe

RECIPE = Recipe(epochs=2, lr=0.01, precision="32-true", device="cpu")


@cache
def run(name: str) -> Report:
    """The report of one of `RUNS`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaprune.session.measuring.latencies", partial(latencies, seconds=0.05))
        return RUNS[name]()


def _pruned(
    network: nn.Module,
    x: Tensor,
    task: mp.Task,
    name: str,
    budget: mp.Budget,
    method: Method | None = None,
    recipe: Recipe = RECIPE,
) -> Report:
    method = method or mp.DHP()
    command = f"metaprune prune {name} --data digits --method {method.name.lower()} --macs 0.5 --out runs/{name}"
    return mp.prune(
        network,
        (x,),
        method=method,
        budget=budget,
        task=task,
        recipe=recipe,
        network=name,
        data="made up",
        commands=(command,),
        progress=False,
    ).report


def _labelled(inputs: Tensor, classes: int) -> mp.Task:
    loader = DataLoader(TensorDataset(inputs, torch.arange(len(inputs)) % classes), batch_size=8)
    return mp.Classification(loader, loader, loader)


def convolutional() -> Report:
    """A ResNet-20, with a control beside it."""
    network, x = MODELS["resnet20"](), torch.randn(16, 3, 32, 32)
    task, budget = _labelled(x, 10), mp.Budget(macs=0.5)
    main = _pruned(network, x[:4], task, "resnet20", budget)
    control = _pruned(network, x[:4], task, "resnet20", budget, mp.Uniform())
    arms = [Arm("dense", main.dense, 0), Arm(main.method, main.pruned, 2)]
    return replace(main, arms=(*arms, Arm(control.method, control.pruned, 2, control.dense.latency)))


def transformer() -> Report:
    """A language model's encoder, untrained at first: twelve blocks with long names, a vocabulary, positions."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=30_522,
        hidden_size=48,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=192,
        num_labels=5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = self.bert(tokens).logits
            return logits

    tokens = torch.randint(30_522, (16, 12))
    recipe = replace(RECIPE, epochs=4, lr=3e-3, optimizer="adamw")
    return _pruned(Classifier(), tokens[:4], _labelled(tokens, 5), "bert", mp.Budget(macs=0.5), recipe=recipe)


def restoration() -> Report:
    """A DnCNN that was trained a little, and is of some use."""
    return _restored(noisy=50.0, epochs=30)


def failed() -> Report:
    """A network that is no use, and too slow: noise that is hardly there, and a time that nothing meets."""
    report = _restored(noisy=2.0, epochs=1)
    return replace(report, latency_bound=0.01, budget="0.01 ms")


def _restored(noisy: float, epochs: int) -> Report:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 1, 6, 8, generator=generator)
    true = nn.functional.interpolate(coarse, scale_factor=16, mode="bicubic").clamp(0, 1)
    given = true + noisy / 255 * torch.randn(true.shape, generator=generator)
    pictures = DataLoader(TensorDataset(given, true), batch_size=1)
    task = mp.Denoising(pictures, pictures, pictures, sigma=noisy)
    network = DnCNN(channels=1, width=16, blocks=2)
    recipe = replace(RECIPE, epochs=epochs, lr=2e-3, optimizer="adamw", weight_decay=0.0)
    mp.fit(network, task, recipe, progress=False)
    after = replace(recipe, epochs=1 if epochs == 1 else 8)
    return _pruned(network, given[:1], task, "dncnn", mp.Budget(macs=0.6), recipe=after)


RUNS: dict[str, Callable[[], Report]] = {
    "convolutional": convolutional,
    "transformer": transformer,
    "restoration": restoration,
    "failed": failed,
}
