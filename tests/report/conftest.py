"""Two reports that look like real ones: a small residual network, and a deep one with nothing but trouble.

And graphs of networks whose blocks are equal: pictures through a residual network, and a stack of transformer blocks.
"""

import itertools
import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from metaprune.cost.latency import Latency
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import infer
from metaprune.models import MODELS
from metaprune.report.report import Alignment, Arm, AxisRow, Epoch, Figures, LayerRow, Report
from metaprune.report.summary import Wire


def timed(median_ms: float, iqr_ms: float, precision: str = "32-true") -> Latency:
    """A latency on the CPU."""
    return Latency(median_ms, iqr_ms, runs=87, batch=128, device="cpu", precision=precision, threads=2)


def small_report() -> Report:
    """A ResNet-20 at half its MACs: ten axes, a search, a comparison, alignment."""
    rng = random.Random(0)
    widths = {"conv1": (16, 16)}
    for stage, (size, *inner) in enumerate([(16, 8, 8, 16), (32, 24, 24, 16), (64, 40, 56, 32)], start=1):
        widths |= {f"layer{stage}.{i}.conv1": (size, after) for i, after in enumerate(inner)}
        if stage > 1:
            widths[f"layer{stage}.0.shortcut.0"] = (size, {2: 24, 3: 48}[stage])
    axes = [
        AxisRow(
            name=name,
            before=before,
            after=after,
            kept=tuple(sorted(rng.sample(range(before), after))),
            fixed=None,
            members=(f"{name}.weight:0", f"{name.replace('conv', 'bn')}.weight:0", f"{name}.weight:1"),
            macs_share=before / 500,
        )
        for name, (before, after) in widths.items()
    ]
    axes = [
        AxisRow("input.1", 3, 3, (0, 1, 2), "an input of the network", ("conv1.weight:1",), 0.011),
        *axes,
        AxisRow("fc", 10, 10, tuple(range(10)), "an output of the network", ("fc.weight:0", "fc.bias:0"), 0.001),
    ]
    layers = [LayerRow("conv1", "conv2d", 442_368, 442_368)]
    for stage in (1, 2, 3):
        for block in range(3):
            for conv in (1, 2):
                before = 1_179_648 if stage > 1 and block == 0 and conv == 1 else 2_359_296
                after = int(before * rng.uniform(0.3, 0.62))
                layers.append(LayerRow(f"layer{stage}.{block}.conv{conv}", "conv2d", before, after))
        if stage > 1:
            layers.append(LayerRow(f"layer{stage}.0.shortcut.0", "conv2d", 131_072, 60_000))
    layers.append(LayerRow("fc", "linear", 640, 480))
    wires = [Wire("conv1", "conv2d", ("input.1",), ("conv1",))]
    for name in list(widths)[1:]:
        wires += [Wire(name, "conv2d", ("conv1",), (name,)), Wire(f"{name[:-1]}2", "conv2d", (name,), ("conv1",))]
    wires.append(Wire("fc", "linear", ("conv1",), ("fc",)))
    dense = Figures(40_813_184, 272_474, 1_101_112, 85.35, timed(47.3, 1.1))
    pruned = Figures(20_291_584, 150_218, 612_344, 85.02, timed(33.6, 0.9))
    searched: list[tuple[float, float, float]] = [
        (0.5, 81.2, 0.93),
        (1, 79.9, 0.81),
        (1.5, 77.4, 0.66),
        (2, 76.6, 0.55),
        (2.5, 78.2, 0.5),
        (3, 79.6, 0.4972),
    ]
    tuned = [(4, 81.9), (5, 82.7), (6, 83.8), (7, 84.6), (8, 84.88)]
    return Report(
        network="resnet20",
        data="cifar10",
        method="DHP",
        reference="Li et al., DHP: Differentiable Meta Pruning via HyperNetworks, ECCV 2020",
        settings={
            "epochs": "8 (3 search, 5 fine-tuning)",
            "learning rate": "0.1, cosine over all epochs",
            "seed": "0",
        },
        budget="0.50 of the MACs",
        metric_name="accuracy (%)",
        higher_is_better=True,
        split="test",
        dense=dense,
        pruned=pruned,
        before_cut=79.6,
        after_cut=79.58,
        axes=tuple(axes),
        layers=tuple(layers),
        history=(
            *(Epoch(float(e), "search", 0.9 - 0.05 * e, m, s) for e, m, s in searched),
            *(Epoch(float(e), "fine-tuning", 0.6 - 0.03 * e, m) for e, m in tuned),
        ),
        dense_val=85.1,
        dense_epochs=8.0,
        arms=(
            Arm("dense", dense, 8),
            Arm("DHP", pruned, 8),
            Arm("magnitude", Figures(20_377_600, 141_902, 579_080, 85.27, timed(34.0, 1.3)), 8),
            Arm("uniform", Figures(20_401_000, 137_110, 559_912, 83.91, timed(33.1, 0.8)), 8),
        ),
        alignment=Alignment(8, 20_018_944, timed(58.9, 1.4)),
        notes=(
            "layer2.1.conv1: 8 channels went where the budget asked for 5, to end at a multiple of 8.",
            "fc: a cut was tried and undone, because the network's output would have changed its shape.",
        ),
        commands=(
            "metaprune prune resnet20 --data cifar10 --method dhp --macs 0.5 --epochs 8 --seed 0 --out out",
            "metaprune report out",
        ),
        wiring=tuple(wires),
        roles={"conv1": "trunk"},
        environment={"metaprune": "0.1.0", "torch": "2.13.0", "device": "cpu, 2 cores", "date": "2025-11-21"},
    )


def deep_report() -> Report:
    """A 120-axis network: many fixed axes, a metric that should fall and rises, no latency, hostile names."""
    rng = random.Random(1)
    axes, layers = [], []
    for i in range(120):
        size = [16, 24, 96, 144, 192, 320, 576, 960, 1280][min(8, i // 14)]
        name = f"features.{i // 10}.block.{i % 10}.conv"
        fixed = None
        if i % 17 == 0:
            fixed = ["an input of the network", "aten.roll is not understood", "kernel <3 & 5>"][i % 3]
        after = size if fixed or i % 23 == 5 else max(1, int(size * rng.uniform(0.15, 0.85)))
        kept = tuple(sorted(rng.sample(range(size), after)))
        axes.append(AxisRow(name, size, after, kept, fixed, (f"{name}.weight:0", f"{name}.bias:0"), rng.random() / 50))
        before = size * size * rng.randint(300, 9000)
        layers.append(LayerRow(name, "conv2d", before, int(before * (after / size) ** 2)))
    dense = Figures(sum(x.macs_before for x in layers), 25_557_032, 102_470_000, 3.412, None)
    pruned = Figures(sum(x.macs_after for x in layers), 9_012_420, 36_210_000, 3.907, None)
    return Report(
        network="wide<script>alert(1)</script>net",
        data='speech "corpus" & more',
        method="magnitude",
        reference="",
        settings={"norm": "l2 over the group"},
        budget="0.30 of the MACs",
        metric_name="perplexity",
        higher_is_better=False,
        split="val",
        dense=dense,
        pruned=pruned,
        before_cut=3.412,
        after_cut=61.3,
        axes=tuple(axes),
        layers=tuple(layers),
        history=tuple(Epoch(float(e), "fine-tuning", 1.3, 3.907 + 4 / e**2 - 4 / 144) for e in range(1, 13)),
        notes=("features.3.block.1.conv: <b>undone</b>, the cut network did not trace.",),
        wiring=tuple(Wire(b.name, "conv2d", (a.name,), (b.name,)) for a, b in itertools.pairwise(axes)),
        commands=("metaprune prune nets.py:wide --data 'speech' --macs 0.3 && echo \"done\" > log",),
        environment={"torch": "2.13.0"},
    )


@pytest.fixture(params=[small_report, deep_report], ids=["small", "deep"])
def report(request: pytest.FixtureRequest) -> Report:
    """Each of the two."""
    made: Report = request.param()
    return made


@pytest.fixture
def small() -> Report:
    """The residual network."""
    return small_report()


@pytest.fixture
def deep() -> Report:
    """The deep network."""
    return deep_report()


class Attention(nn.Module):
    """Self-attention with three projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP, each added to the trunk."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Stack(nn.Module):
    """A transformer of width 12, with an MLP of each of some sizes."""

    def __init__(self, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.blocks = nn.Sequential(*(Block(12, size) for size in hidden))
        self.head = nn.Linear(12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens)).mean(1))


class Joined(nn.Module):
    """Each layer reads all that came before, from a concatenation."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.layers = nn.ModuleList(nn.Linear(6 + 4 * i, 4) for i in range(depth))
        self.head = nn.Linear(6 + 4 * depth, 5)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, -1)).relu())
        return self.head(torch.cat(seen, -1))


class Stages(nn.Module):
    """Two stages, of blocks of one size, the second one longer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(*(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)) for _ in range(2)))
        self.layer2 = nn.Sequential(*(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.layer1, *self.layer2):
            x = x + block(x)
        return x


class Tables(nn.Module):
    """Each block reads the tokens from a table of its own."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(9, 6) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(6, 4) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        return sum(layer(table(tokens)) for table, layer in zip(self.tables, self.layers, strict=True))


class Gated(nn.Module):
    """A gate that reads and writes one hidden axis, and multiplies; and a sum of layers that read different axes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.squeeze, self.excite = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(2, 8)
        self.down, self.shortcut, self.head = nn.Linear(8, 6), nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        hidden = hidden * (self.excite(self.squeeze(hidden).relu()) + 3).sigmoid()
        return self.head(self.down(hidden) + self.shortcut(x))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "pictures": lambda: (MODELS["resnet20"](), torch.randn(2, 3, 32, 32)),
    "stack": lambda: (Stack((20, 20)), torch.randint(50, (2, 7))),
    "deep stack": lambda: (Stack((20,) * 5), torch.randint(50, (2, 7))),
    "uneven stack": lambda: (Stack((20, 24, 20)), torch.randint(50, (2, 7))),
    "joined": lambda: (Joined(5), torch.randn(2, 3)),
    "tables": lambda: (Tables(4), torch.randint(9, (2, 7))),
    "gated": lambda: (Gated(), torch.randn(2, 3)),
    "stages": lambda: (Stages(), torch.randn(2, 4)),
}


@cache
def graph_of(name: str) -> ChannelGraph:
    """The graph of one of the networks."""
    model, x = NETWORKS[name]()
    return infer(model.eval(), (x,)).graph


@pytest.fixture
def graphs() -> Callable[[str], ChannelGraph]:
    """The graphs of the networks by name."""
    return graph_of
