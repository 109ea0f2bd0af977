"""Ways of working that people have: each is possible with five public calls beside their own code, or fewer."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    place = Path(__file__).parents[2] / "examples" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits_of_the_examples", place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def batches(digits: ModuleType) -> list[Any]:
    return list(digits.loaders()[0])[:8]


def my_loop(model: nn.Module, batches: list[Any], after: Any = None, loss: Any = None) -> nn.Module:
    """Somebody's own."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        (F.cross_entropy(model(images), labels) + (0 if loss is None else loss())).backward()
        optimizer.step()
        if after is not None:
            after()
    return model.eval()


def test_decide_cut_train_and_save_by_oneself(digits: ModuleType, batches: list[Any], tmp_path: Path) -> None:
    model = my_loop(digits.Net(), batches)
    graph = mp.trace(model, (X,))
    plan = mp.plan(model, (X,), method=mp.Magnitude(), budget=mp.Budget(macs=0.5), graph=graph)
    small = my_loop(mp.slice(model, graph, plan), batches)
    mp.save(tmp_path, small, plan, graph)
    again = mp.load(tmp_path, digits.Net()).eval()
    assert torch.equal(again(X), small(X))
    assert mp.macs(graph, plan) <= 0.5 * mp.macs(graph)
    assert not (tmp_path / "report.json").exists()


def test_layers_that_stay_and_least_widths(digits: ModuleType, batches: list[Any]) -> None:
    train, test = digits.tensors()
    few = [DataLoader(TensorDataset(*(part[:128] for part in one.tensors)), 64) for one in (train, test)]
    task, model = mp.Classification(*few), digits.Net()
    limits = mp.Limits(keep=("stem.*",), least={"body.0": 0.95}, most={"body.3": 0.5})
    budget = mp.Budget(macs=0.7, multiple_of=1)
    decided = mp.plan(model, (X,), method=mp.Magnitude(), budget=budget, limits=limits)
    recipe = mp.Recipe(epochs=1, lr=0.02, precision="32-true")
    result = mp.prune(
        model,
        (X,),
        method=mp.DHP(),
        budget=budget,
        task=task,
        recipe=recipe,
        limits=limits,
        clock=mp.Clock(seconds=0.001),
        progress=False,
    )
    free = mp.plan(model, (X,), method=mp.Magnitude(), budget=budget).widths
    assert free["stem.0"] < 16, "each limit says something that would not be so without it"
    assert free["body.0"] < 0.95 * 32
    assert free["body.3"] > 0.5 * 32
    for plan in (decided, result.plan):
        widths = {name: plan.widths.get(name, axis.size) for name, axis in result.graph.axes.items()}
        assert widths["stem.0"] == 16
        assert widths["body.0"] >= 0.95 * 32
        assert widths["body.3"] <= 0.5 * 32


@pytest.mark.parametrize("step", [8, 4, 1])
@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_the_same_share_of_every_layer(step: int, share: float) -> None:
    model = nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 128), nn.Linear(128, 2)
    )
    graph = mp.trace(model, (torch.randn(2, 8),))
    budget = mp.Budget(macs=share, multiple_of=step)
    plan = mp.plan(model, (torch.randn(2, 8),), method=mp.Uniform(), budget=budget, graph=graph)
    kept = {name: plan.widths.get(name, axis.size) / axis.size for name, axis in graph.free.items()}
    middle = (max(kept.values()) + min(kept.values())) / 2
    assert all(abs(one - middle) * graph.axes[name].size <= step / 2 + 1e-9 for name, one in kept.items())
    assert mp.macs(graph, plan) <= share * mp.macs(graph)


@pytest.mark.slow
def test_what_numbers_a_layer_is_no_size() -> None:
    """The third layer of a cached network has the number 2, and so have its groups of queries before the cut."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=3, **sizes, **special)).eval()
    inputs = {"input_ids": torch.randint(3, 50, (1, 6))}
    graph = mp.trace(model, (), inputs, calls=mp.integrations.transformers.generation_calls(model, (), inputs))
    small: Any = mp.slice(model, graph, mp.Plan({"model.layers.2.self_attn.q_proj[1]": [0]}))
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1, 2]
    words = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    with_cache, without = (small.generate(**inputs, **words, use_cache=cache) for cache in (True, False))
    assert torch.equal(with_cache, without)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.f = nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(2).expand(-1, 2, -1).reshape(len(x), 4, 32)
        return self.f(self.a(rows, rows, rows, need_weights=False)[0].mean(1).repeat(1, 2))


def test_zeros_in_attention_that_stay_in_ones_own_loop(batches: list[Any]) -> None:
    model = Attending()
    sparse = mp.sparsify(model, n=2, m=4, skip=("f",))
    my_loop(sparse.model, batches, sparse.keep)
    fused: Any = sparse.model.get_parameter("a.in_proj_weight")
    assert ((fused.reshape(-1, 4) != 0).sum(1) == 2).all()
    assert "f.weight" in sparse.dense
    assert (sparse.model.get_parameter("f.weight") != 0).all()


def test_time_that_is_measured_elsewhere(digits: ModuleType, batches: list[Any]) -> None:
    """On a board, by its own tool: here what a tool would say is made of the weights."""

    def board(network: nn.Module, args: Any = (), kwargs: Any = None) -> float:
        return 1e-3 * sum(parameter.numel() for parameter in network.parameters())

    train, test = digits.tensors()
    few = [DataLoader(TensorDataset(*(part[:128] for part in one.tensors)), 64) for one in (train, test)]
    model = digits.Net()
    result = mp.prune(
        model,
        (X,),
        method=mp.Magnitude(),
        budget=mp.Budget(latency=0.6 * board(model), multiple_of=1),
        clock=mp.Clock(measure=board),
        task=mp.Classification(*few),
        recipe=mp.Recipe(epochs=1, lr=0.02, precision="32-true"),
        progress=False,
    )
    assert board(result.model) <= 0.6 * board(model)


class Grouped(nn.Module):
    """Norms over channels: a search then runs them over the living ones."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, channels, 3, 1, 1), nn.GroupNorm(1, channels), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.GroupNorm(1, channels), nn.ReLU())
        self.h = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.h(self.b(self.a(x)).mean((2, 3)))


def test_a_loss_on_what_a_hook_stored(batches: list[Any]) -> None:
    model, stored = Grouped(), {}
    model.a.register_forward_hook(lambda module, inputs, output: stored.__setitem__("now", output))
    graph = mp.trace(model, (X,))
    assert not stored, "a trace leaves nothing behind"
    search = mp.DHP().start(model, graph, mp.Budget(macs=0.3, multiple_of=1), steps=len(batches))
    optimizer = torch.optim.AdamW(search.groups(2e-3), 2e-3)
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(search.model(images), labels)
        feature = stored.pop("now")  # of this very step
        assert feature.requires_grad
        (loss + 1e-3 * feature.square().mean()).backward()
        optimizer.step()
        search.step(2e-3)
    cut = search.finish()
    assert mp.macs(graph, cut.plan) <= 0.3 * mp.macs(graph)
