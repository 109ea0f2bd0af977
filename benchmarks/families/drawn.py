"""Which families there are, and how a network of one is drawn, trained and tuned."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.families import pictures, tokens
from torch import nn

import metaprune as mp

CONVOLUTIONAL = mp.Recipe(10, lr=0.1, warmup=0.5)
ADAPTIVE = mp.Recipe(10, lr=2e-3, warmup=0.5, weight_decay=0.02, optimizer="adamw", clip_norm=1.0)

Sizes = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        build: Makes one, of what the data say and what was drawn.
        draw: Random sizes.
        data: What its networks learn, unless another is asked for.
        recipe: How they are trained.
        told: What of the data's shape the builder takes.
    """

    build: Callable[..., nn.Module]
    draw: Callable[[random.Random], Sizes]
    data: str = "cifar10"
    recipe: mp.Recipe = field(default=CONVOLUTIONAL)
    told: tuple[str, ...] = ("channels", "classes")


def tuned(recipe: mp.Recipe, epochs: int) -> mp.Recipe:
    """How a network is tuned after a cut: from half the rate, for so many epochs."""
    return mp.Recipe(
        epochs,
        lr=recipe.lr / 2,
        weight_decay=recipe.weight_decay,
        optimizer=recipe.optimizer,
        clip_norm=recipe.clip_norm,
    )


def staged(
    rng: random.Random, widths: tuple[int, int], growth: tuple[float, float], deepest: int, least: int = 3
) -> Sizes:
    """Two or three stages, each wider than the one before, in multiples of four, of so many blocks in all."""
    width, found = float(rng.randint(*widths)), []
    for _ in range(rng.choice((2, 3, 3))):
        found.append(4 * round(width / 4))
        width *= rng.uniform(*growth)
    depths = [rng.randint(1, deepest) for _ in found]
    while sum(depths) < least:
        depths[rng.randrange(len(depths))] += 1
    return {"widths": found, "depths": depths}


def looks(rng: random.Random) -> Sizes:
    """Kernel, norm and activation."""
    return {
        "kernel": rng.choice((3, 3, 3, 5)),
        "norm": rng.choice(("batch", "batch", "batch", "group")),
        "activation": rng.choice(("relu", "relu", "gelu", "silu", "leaky")),
    }


def draw_plain(rng: random.Random) -> Sizes:
    """Of convolutions one after the other."""
    return staged(rng, (20, 32), (1.3, 2.0), 3, least=5) | looks(rng)


def drawing_residual(block: str) -> Callable[[random.Random], Sizes]:
    """Of residual blocks of a kind."""
    return lambda rng: staged(rng, (14, 26), (1.3, 2.0), 2) | looks(rng) | {"block": block}


def draw_narrow(rng: random.Random) -> Sizes:
    """Of bottlenecks."""
    return staged(rng, (32, 56), (1.4, 2.0), 2) | looks(rng) | {"block": "narrow", "narrow": rng.choice((2, 4))}


def draw_grouped(rng: random.Random) -> Sizes:
    """Of bottlenecks with groups, whose widths the groups divide."""
    found = staged(rng, (32, 56), (1.4, 2.0), 2)
    groups = rng.choice((2, 4, 4))
    widths = [16 * round(width / 16) for width in found["widths"]]
    return found | looks(rng) | {"widths": widths, "block": "narrow", "narrow": 2, "groups": groups}


def draw_dense(rng: random.Random) -> Sizes:
    """Of growing blocks."""
    return {
        "growth": rng.choice((8, 10, 12, 16)),
        "depths": [rng.randint(2, 4) for _ in range(rng.choice((2, 3)))],
        "kernel": 3,
        "activation": rng.choice(("relu", "silu")),
        "narrow": rng.choice((0, 2)),
    }


def draw_inverted(rng: random.Random) -> Sizes:
    """Of inverted residuals."""
    return staged(rng, (12, 18), (1.3, 1.9), 2) | {
        "expansion": rng.choice((2, 3, 4)),
        "kernel": rng.choice((3, 5)),
        "ratio": rng.choice((0, 4, 8)),
        "activation": rng.choice(("relu", "silu")),
    }


def draw_modern(rng: random.Random) -> Sizes:
    """Of depthwise kernels and perceptrons."""
    return staged(rng, (24, 40), (1.3, 1.9), 2) | {
        "kernel": rng.choice((3, 5, 7)),
        "expansion": rng.choice((2, 3, 4)),
        "patch": rng.choice((1, 2, 2)),
        "activation": rng.choice(("gelu", "silu")),
    }


def draw_mixer(rng: random.Random) -> Sizes:
    """Of perceptrons across places and channels."""
    width = rng.choice((48, 64, 80, 96))
    return {
        "patch": rng.choice((2, 2, 4)),
        "width": width,
        "depth": rng.randint(2, 5),
        "across": rng.choice((24, 32, 48, 64)),
        "hidden": width * rng.choice((1, 2, 3)),
        "activation": "gelu",
    }


def attending(rng: random.Random) -> Sizes:
    """Sizes of blocks with attention."""
    width, heads = rng.choice((32, 48, 64)), rng.choice((2, 3, 4, 6))
    return {
        "width": width,
        "depth": rng.randint(2, 4),
        "heads": heads,
        "size": rng.choice((8, 12, 16, 24) if heads < 4 else (8, 12)),
        "hidden": width * rng.choice((1, 2, 3)),
        "activation": rng.choice(("gelu", "silu")),
        "norm": rng.choice(("layer", "root")),
        "gated": rng.random() < 0.3,
    }


def draw_transformer(rng: random.Random) -> Sizes:
    """Of attention over patches."""
    return {"patch": rng.choice((2, 4))} | attending(rng)


def draw_hourglass(rng: random.Random) -> Sizes:
    """Of a way down and up."""
    width, levels = rng.choice((8, 12, 16)), rng.choice((2, 3))
    growth = rng.uniform(1.4, 2.0)
    widths = [4 * round(width * growth**level / 4) for level in range(levels)]
    return {"widths": widths, "depth": rng.choice((1, 2))} | looks(rng) | {"kernel": 3}


def draw_recurrent(rng: random.Random) -> Sizes:
    """Of cells that remember."""
    sizes = {"cell": rng.choice(("lstm", "gru")), "width": rng.choice((32, 48, 64)), "depth": rng.choice((1, 2))}
    return sizes | {"hidden": rng.choice((64, 96, 128))}


IMAGE, SIZED, TEXT = ("channels", "classes"), ("channels", "classes", "pixels"), ("classes",)

FAMILIES: Mapping[str, Family] = {
    "plain": Family(pictures.plain, draw_plain),
    "basic": Family(pictures.residual, drawing_residual("basic")),
    "bottleneck": Family(pictures.residual, draw_narrow),
    "preactivation": Family(pictures.residual, drawing_residual("before")),
    "inverted": Family(pictures.inverted, draw_inverted),
    "grouped": Family(pictures.residual, draw_grouped),
    "modern": Family(pictures.modern, draw_modern, recipe=ADAPTIVE),
    "attention": Family(tokens.Transformer, draw_transformer, recipe=ADAPTIVE, told=SIZED),
    "language": Family(tokens.Language, attending, "text", ADAPTIVE, ("classes", "length")),
    "dense": Family(pictures.dense, draw_dense),
    "mixer": Family(tokens.Mixer, draw_mixer, recipe=ADAPTIVE, told=SIZED),
    "hourglass": Family(pictures.Hourglass, draw_hourglass, "bsds500", ADAPTIVE, ("channels",)),
    "recurrent": Family(tokens.Recurrent, draw_recurrent, "text", ADAPTIVE, TEXT),
}
"""In the order in which they are worked on."""

APART = ("dense", "mixer", "hourglass", "recurrent")
"""Families that nothing is learned from and nothing chosen by; they are looked at once."""

DATA_APART = ("omniglot", "digits")
"""Data that nothing is learned from and nothing chosen by."""

KNOWN = tuple(name for name in FAMILIES if name not in APART)


def built(family: str, shape: Mapping[str, int], seed: int) -> nn.Module:
    """The network of a family that a seed draws; its weights are from torch's global random numbers."""
    kind = FAMILIES[family]
    return kind.build(**{name: shape[name] for name in kind.told}, **kind.draw(random.Random(f"{family} {seed}")))
