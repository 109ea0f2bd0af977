"""Depthwise and grouped convolution, channel shuffle, squeeze-excite."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, pictures


def pool_and_classify(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def separable(before: int, after: int, stride: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
        nn.BatchNorm2d(before),
        nn.ReLU6(inplace=True),
        nn.Conv2d(before, after, 1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU6(inplace=True),
    )


def mobilenet_v1() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    return nn.Sequential(*stem, separable(8, 12, 2), separable(12, 16, 1), *pool_and_classify(16))


class SqueezeExciteConv(nn.Module):
    """Squeeze-excite of 1×1 convolutions, with a hard sigmoid."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(self.avgpool(x)))))


class SqueezeExciteLinear(nn.Module):
    """Squeeze-excite of linear layers, as in the paper's code: view, scale, expand."""

    def __init__(self, channel: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channel, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; with a residual where the shapes allow it."""

    def __init__(self, before: int, hidden: int, after: int, stride: int, squeezed: int | None = None) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and before == after
        layers: list[nn.Module] = [
            nn.Conv2d(before, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
        ]
        layers += [nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)]
        layers += [nn.Hardswish()] if squeezed is None else [SqueezeExciteConv(hidden, squeezed), nn.SiLU()]
        layers += [nn.Conv2d(hidden, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


def mobilenet_v2() -> nn.Module:
    blocks = [InvertedResidual(8, 16, 8, 1), InvertedResidual(8, 20, 12, 2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU6(), *blocks, *pool_and_classify(12))


def efficientnet() -> nn.Module:
    blocks = [InvertedResidual(8, 16, 8, 1, squeezed=4), InvertedResidual(8, 20, 12, 2, squeezed=5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.SiLU(), *blocks, *pool_and_classify(12))


def squeeze_excite_linear() -> nn.Module:
    layers = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), SqueezeExciteLinear(12, 5)]
    return nn.Sequential(*layers, *pool_and_classify(12))


class ResNeXt(nn.Module):
    """Residual blocks whose 3×3 convolution runs in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 20, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(20), nn.ReLU(),
                nn.Conv2d(20, 12, 1, bias=False), nn.BatchNorm2d(12),
            )
            for _ in range(2)
        )  # fmt: skip
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.fc(x.mean((2, 3)))


def grouped_chain() -> nn.Module:
    """Two grouped convolutions in a row whose groups do not line up: 12 = 3×4 = 2×6."""
    layers = [nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 8, 1, groups=2)]
    return nn.Sequential(*layers, *pool_and_classify(8))


def depth_multiplier() -> nn.Module:
    """A depthwise convolution that makes three channels of each."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 24, 3, groups=8), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers, *pool_and_classify(24))


class ShuffleUnitV1(nn.Module):
    """Grouped 1×1, shuffle, depthwise, grouped 1×1, residual (Zhang et al. 2017)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv1 = nn.Conv2d(width, width, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.conv2 = nn.Conv2d(width, width, 1, groups=groups, bias=False)

    def shuffle(self, x: Tensor) -> Tensor:
        """Deal the channels of each group out to all groups."""
        n, c, h, w = x.size()
        x = x.view(n, self.groups, c // self.groups, h, w)
        return x.transpose(1, 2).contiguous().view(n, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        out = self.shuffle(F.relu(self.bn1(self.conv1(x))))
        return F.relu(x + self.conv2(self.depthwise(out)))


def shufflenet_v1(width: int, groups: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), ShuffleUnitV1(width, groups), *pool_and_classify(width))


class ShuffleUnitV2(nn.Module):
    """Half of the channels pass, the other half are transformed, then they are shuffled (Ma et al. 2018)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            nn.Conv2d(hidden, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = torch.cat((x1, self.branch(x2)), dim=1)
        batch, channels, height, width = out.size()
        out = out.view(batch, 2, channels // 2, height, width)
        return torch.transpose(out, 1, 2).contiguous().view(batch, channels, height, width)


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), ShuffleUnitV2(16, 6), ShuffleUnitV2(16, 5), *pool_and_classify(16))


def channel_shuffle() -> nn.Module:
    layers = [
        nn.Conv2d(3, 16, 3),
        nn.Conv2d(16, 16, 1, groups=2),
        nn.ChannelShuffle(2),
        nn.Conv2d(16, 12, 3, groups=2),
    ]
    return nn.Sequential(*layers, nn.ReLU(), *pool_and_classify(12))


class SpatialAttention(nn.Module):
    """CBAM: the mean and the maximum over channels make a gate for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)
        self.conv = nn.Conv2d(8, 12, 3)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        seen = torch.cat([torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)[0]], dim=1)
        x = x * torch.sigmoid(self.gate(seen))
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


class Blurred(nn.Module):
    """Down and up by a fixed kernel for each channel, whose number goes by a name of its own (Zhang 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (line[:, None] * line).expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The picture at half its size beside itself made smaller and larger again."""
        small = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), self.kernel, stride=2, groups=self.channels)
        return x + F.conv_transpose2d(small, self.kernel, None, 2, 1, 1, self.channels)


def blur_pool() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Blurred(8), nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*layers, Blurred(12), *pool_and_classify(12))


ENTRIES = (
    Entry("mobilenet_v1", "depthwise", mobilenet_v1, pictures(), (8, 12, 16), cnn=True),
    Entry("mobilenet_v2", "depthwise", mobilenet_v2, pictures(), (8, 16, 20, 12), cnn=True),
    Entry("blur_pool", "depthwise", blur_pool, pictures(), (8, 12)),
    Entry("efficientnet", "squeeze-excite", efficientnet, pictures(), (8, 16, 4, 20, 5, 12), cnn=True),
    Entry("squeeze_excite_linear", "squeeze-excite", squeeze_excite_linear, pictures(), (12, 5), cnn=True),
    Entry("resnext", "grouped", ResNeXt, pictures(), (12, 4, 2, 5, 4, 2, 5), cnn=True),
    Entry("grouped_chain", "grouped", grouped_chain, pictures(), (4,)),
    Entry("depth_multiplier", "grouped", depth_multiplier, pictures(), (8, 3), cnn=True),
    Entry("shufflenet_v1", "channel shuffle", lambda: shufflenet_v1(16, 2), pictures(), (4,), cnn=True),
    Entry("shufflenet_v1_odd", "channel shuffle", lambda: shufflenet_v1(12, 3), pictures(), ()),
    Entry("shufflenet_v2", "channel shuffle", shufflenet_v2, pictures(), (6, 5), cnn=True),
    Entry("channel_shuffle", "channel shuffle", channel_shuffle, pictures(), (6,), cnn=True),
    Entry("spatial_attention", "gating", SpatialAttention, pictures(), (12,), statistics=(8,)),
)
