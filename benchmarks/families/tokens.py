"""Families of small networks whose channels belong to tokens: patches of pictures, or characters of a text."""

import torch
import torch.nn.functional as F
from benchmarks.families.pictures import ACTIVATIONS
from torch import Tensor, nn


class Patches(nn.Module):
    """A picture as patches, each at its place."""

    def __init__(self, channels: int, pixels: int, patch: int, width: int) -> None:
        super().__init__()
        self.count = (pixels // patch) ** 2
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.count, width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, patches, width)."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.positions


class Perceptron(nn.Module):
    """Hidden units, gated by as many others where asked (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, activation: str, gated: bool = False) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Of the last dimension."""
        y = self.act(self.inner(x))
        return self.outer(y if self.gate is None else y * self.gate(x))


class Attention(nn.Module):
    """Heads of any size, whatever the width."""

    def __init__(self, width: int, heads: int, size: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = (nn.Linear(width, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        """All tokens to all, or to those before."""
        n, t, _ = x.shape
        q, k, v = (read(x).view(n, t, self.heads, -1).transpose(1, 2) for read in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        width: int,
        heads: int,
        size: int,
        hidden: int,
        activation: str,
        norm: str,
        gated: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        kind = nn.LayerNorm if norm == "layer" else nn.RMSNorm
        self.norm1, self.norm2 = kind(width), kind(width)
        self.attention = Attention(width, heads, size, causal)
        self.perceptron = Perceptron(width, hidden, activation, gated)

    def forward(self, x: Tensor) -> Tensor:
        """Two residual steps."""
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))


class Transformer(nn.Module):
    """Blocks over patches; the mean of all is classified."""

    def __init__(
        self, channels: int, classes: int, pixels: int, patch: int, width: int, depth: int, **block: int | str | bool
    ) -> None:
        super().__init__()
        self.patches = Patches(channels, pixels, patch, width)
        self.blocks = nn.Sequential(*(Block(width, **block) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.norm(self.blocks(self.patches(x))).mean(1))


class Mixing(nn.Module):
    """A perceptron over the places, and one over the channels (Tolstikhin et al. 2021)."""

    def __init__(self, count: int, width: int, across: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = Perceptron(count, across, activation)
        self.perceptron = Perceptron(width, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Two residual steps."""
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.perceptron(self.norm2(x))


class Mixer(nn.Module):
    """Such blocks over patches."""

    def __init__(
        self, channels: int, classes: int, pixels: int, patch: int, width: int, depth: int, **block: int | str
    ) -> None:
        super().__init__()
        self.patches = Patches(channels, pixels, patch, width)
        self.blocks = nn.Sequential(*(Mixing(self.patches.count, width, **block) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.norm(self.blocks(self.patches(x))).mean(1))


class Language(nn.Module):
    """Blocks over characters, each of which sees those before it."""

    def __init__(self, classes: int, length: int, width: int, depth: int, **block: int | str | bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, causal=True, **block) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what comes next."""
        return self.head(self.norm(self.blocks(self.embed(tokens) + self.positions)))


class Recurrent(nn.Module):
    """Layers that remember."""

    def __init__(self, classes: int, cell: str, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.embed = nn.Embedding(classes, width)
        self.layers = kind(width, hidden, depth, batch_first=True)
        self.out = nn.Linear(hidden, width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what comes next."""
        y, _ = self.layers(self.embed(tokens))
        return self.head(F.gelu(self.out(y)))
