"""Families of small networks that look at pictures, each with random sizes in mind; plainly written.

Every function builds one network with fresh weights: `channels` and `classes` are those of the data, the rest is drawn
(`drawn.py`). Pictures may be of any size from 8 pixels.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "leaky": partial(nn.LeakyReLU, 0.1)}


def normed(kind: str, width: int) -> nn.Module:
    """A norm of pictures by its name."""
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(4, width)


def convolved(before: int, width: int, kernel: int, norm: str, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, or divides it by the stride, and its norm."""
    convolution = nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, normed(norm, width)]


def headed(body: Sequence[nn.Module], width: int, classes: int) -> nn.Module:
    """A body of this width, the mean over all places, and a classifier."""
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def plain(
    channels: int, classes: int, widths: Sequence[int], depths: Sequence[int], kernel: int, norm: str, activation: str
) -> nn.Module:
    """Convolutions one after the other, a pool between stages."""
    layers: list[nn.Module] = []
    before = channels
    for width, depth in zip(widths, depths, strict=True):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [*convolved(before, width, kernel, norm), ACTIVATIONS[activation]()]
            before = width
    return headed(layers, before, classes)


class Residual(nn.Module):
    """A branch beside a shortcut, which is a convolution of its own where sizes differ."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """Their sum."""
        return self.after(self.shortcut(x) + self.branch(x))


def shortcut(before: int, width: int, stride: int, norm: str) -> nn.Module:
    """Nothing, or what makes the sizes fit."""
    if stride == 1 and before == width:
        return nn.Identity()
    return nn.Sequential(*convolved(before, width, 1, norm, stride))


def basic_block(before: int, width: int, stride: int, kernel: int, norm: str, activation: str) -> nn.Module:
    """Two convolutions beside a shortcut (He et al. 2016)."""
    act = ACTIVATIONS[activation]
    branch = [*convolved(before, width, kernel, norm, stride), act(), *convolved(width, width, kernel, norm)]
    return Residual(nn.Sequential(*branch), shortcut(before, width, stride, norm), act())


def narrow_block(
    before: int,
    width: int,
    stride: int,
    kernel: int,
    norm: str,
    activation: str,
    narrow: int = 4,
    groups: int = 1,
) -> nn.Module:
    """A narrow convolution, perhaps in groups, between two that squeeze and widen (He et al. 2016; Xie et al. 2017)."""
    act = ACTIVATIONS[activation]
    inner = max(4 * (width // narrow // 4), groups)
    branch = [
        *(*convolved(before, inner, 1, norm), act()),
        *(*convolved(inner, inner, kernel, norm, stride, groups), act()),
        *convolved(inner, width, 1, norm),
    ]
    return Residual(nn.Sequential(*branch), shortcut(before, width, stride, norm), act())


class Before(nn.Module):
    """Norm and activation before the convolutions, and a trunk that is never touched (He et al. 2016b)."""

    def __init__(self, before: int, width: int, stride: int, kernel: int, norm: str, activation: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = normed(norm, before), normed(norm, width)
        self.conv1 = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)
        self.conv2 = nn.Conv2d(width, width, kernel, 1, kernel // 2, bias=False)
        changed = stride > 1 or before != width
        self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False) if changed else None
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut reads what is normed where it is a convolution."""
        y = self.act(self.norm1(x))
        aside = x if self.shortcut is None else self.shortcut(y)
        return aside + self.conv2(self.act(self.norm2(self.conv1(y))))


BLOCKS = {"basic": basic_block, "narrow": narrow_block, "before": Before}


def residual(
    channels: int,
    classes: int,
    block: str,
    widths: Sequence[int],
    depths: Sequence[int],
    kernel: int,
    norm: str,
    activation: str,
    **inner: int,
) -> nn.Module:
    """Residual blocks of one kind; the first of each later stage halves the picture."""
    layers: list[nn.Module] = convolved(channels, widths[0], 3, norm)
    before = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for place in range(depth):
            stride = 2 if stage and not place else 1
            layers.append(BLOCKS[block](before, width, stride, kernel, norm, activation, **inner))
            before = width
    if block == "before":
        layers += [normed(norm, before), ACTIVATIONS[activation]()]
    return headed(layers, before, classes)


class Grown(nn.Module):
    """What was there, and some channels more (Huang et al. 2017)."""

    def __init__(self, before: int, growth: int, kernel: int, activation: str, narrow: int) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = [nn.BatchNorm2d(before), act()]
        if narrow:
            inner = narrow * growth
            layers += [nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), act()]
            before = inner
        layers.append(nn.Conv2d(before, growth, kernel, padding=kernel // 2, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Side by side."""
        return torch.cat([x, self.layers(x)], 1)


def dense(
    channels: int, classes: int, growth: int, depths: Sequence[int], kernel: int, activation: str, narrow: int
) -> nn.Module:
    """Blocks in which every layer sees all before it; halved in width and size between blocks."""
    width = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for stage, depth in enumerate(depths):
        if stage:
            half = width // 2
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, half, 1, bias=False), nn.AvgPool2d(2)]
            width = half
        for _ in range(depth):
            layers.append(Grown(width, growth, kernel, activation, narrow))
            width += growth
    return headed([*layers, nn.BatchNorm2d(width), nn.ReLU()], width, classes)


class Squeezed(nn.Module):
    """Channels weighed by what all places together say (Hu et al. 2018)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        inner = max(width // ratio, 4)
        self.weigh = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Each channel times its weight."""
        return x * self.weigh(F.adaptive_avg_pool2d(x, 1))


def inverted(
    channels: int,
    classes: int,
    widths: Sequence[int],
    depths: Sequence[int],
    expansion: int,
    kernel: int,
    ratio: int,
    activation: str,
) -> nn.Module:
    """Inverted residuals with depthwise kernels, weighed channels where `ratio` is not 0 (Howard et al. 2019)."""
    act = ACTIVATIONS[activation]
    layers: list[nn.Module] = [*convolved(channels, widths[0], 3, "batch"), act()]
    before = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for place in range(depth):
            stride = 2 if stage and not place else 1
            inner = expansion * before
            branch = [*convolved(before, inner, 1, "batch"), act()]
            branch += [*convolved(inner, inner, kernel, "batch", stride, inner), act()]
            branch += [Squeezed(inner, ratio)] if ratio else []
            body = nn.Sequential(*branch, *convolved(inner, width, 1, "batch"))
            same = stride == 1 and before == width
            layers.append(Residual(body, nn.Identity(), nn.Identity()) if same else body)
            before = width
    return headed(layers, before, classes)


class Modern(nn.Module):
    """A wide depthwise kernel, a norm of each place, a perceptron of each place, all scaled (Liu et al. 2022)."""

    def __init__(self, width: int, kernel: int, expansion: int, activation: str) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.act = ACTIVATIONS[activation]()
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Beside a shortcut."""
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(self.act(self.widen(y)))).permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """A layer norm over the channels of each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Of pictures."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def modern(
    channels: int,
    classes: int,
    widths: Sequence[int],
    depths: Sequence[int],
    kernel: int,
    expansion: int,
    patch: int,
    activation: str,
) -> nn.Module:
    """Stages of such blocks between convolutions that tile the picture."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], patch, patch), ChannelNorm(widths[0])]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            layers += [ChannelNorm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, 2)]
        layers += [Modern(width, kernel, expansion, activation) for _ in range(depth)]
    return headed([*layers, ChannelNorm(widths[-1])], widths[-1], classes)


class Hourglass(nn.Module):
    """Down and up again, what was on the way down beside what comes up; noise is what it finds (Ronneberger 2015)."""

    def __init__(
        self, channels: int, widths: Sequence[int], depth: int, kernel: int, norm: str, activation: str
    ) -> None:
        super().__init__()

        def stage(before: int, width: int) -> nn.Module:
            layers: list[nn.Module] = []
            for place in range(depth):
                layers += [*convolved(width if place else before, width, kernel, norm), ACTIVATIONS[activation]()]
            return nn.Sequential(*layers)

        self.first = stage(channels, widths[0])
        self.down = nn.ModuleList(stage(before, width) for before, width in pairwise(widths))
        turned = list(pairwise(widths[::-1]))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(before, width, 2, 2) for before, width in turned)
        self.up = nn.ModuleList(stage(2 * width, width) for _, width in turned)
        self.last = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The picture without its noise."""
        y, kept = self.first(x), []
        for down in self.down:
            kept.append(y)
            y = down(F.max_pool2d(y, 2))
        for rise, up in zip(self.rise, self.up, strict=True):
            y = up(torch.cat([rise(y), kept.pop()], 1))
        return x - self.last(y)
