"""Residual networks with every shortcut people use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats, pictures


class Projection(nn.Sequential):
    """Option B: a strided 1×1 convolution with batch norm."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))


class PadShortcut(nn.Module):
    """Option A: every second pixel, and zero channels on both sides; the module keeps the numbers of them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, (after - before) // 2, (after - before) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], self.padding)


class PadEvenly(nn.Module):
    """Option A where one number stands for the zero channels on both sides."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.pad = (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class PadBehind(nn.Module):
    """Option A with average pooling and all zero channels behind, made by a concatenation."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.extra = after - before
        self.pool = nn.AvgPool2d(1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return torch.cat([x, x.new_zeros(x.size(0), self.extra, x.size(2), x.size(3))], dim=1)


class Lambda(nn.Module):
    """A function as a module, as in a well-known CIFAR ResNet."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def closure_shortcut(before: int, after: int) -> nn.Module:
    """Option A where the number of zero channels lives in a closure."""
    return Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, after // 4, after // 4), "constant", 0))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, before: int, hidden: int, after: int, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, hidden, 3, stride=1 if shortcut is None else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """Two stages of basic blocks; the second is twice as wide."""

    def __init__(self, shortcut: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = BasicBlock(8, 6, 8)
        self.layer2 = nn.Sequential(BasicBlock(8, 12, 16, shortcut(8, 16)), BasicBlock(16, 14, 16))
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, with the widening of torchvision."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class BottleneckResNet(nn.Module):
    """Stem with maximum pooling, two bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        down = nn.Sequential(nn.Conv2d(6, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.layers = nn.Sequential(Bottleneck(6, 4, downsample=down), Bottleneck(16, 4))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.layers(self.stem(x)), 1).flatten(1))


class PreActBlock(nn.Module):
    """Norm and activation before each convolution; the shortcut starts after the first (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        if stride != 1 or before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        return self.conv2(F.relu(self.bn2(out))) + shortcut


class PreActResNet(nn.Module):
    """Pre-activation blocks, and a last norm before the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(PreActBlock(8, 8, 1), PreActBlock(8, 12, 2))
        self.bn = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.bn(self.blocks(self.conv(x)))).mean([2, 3]))


class ResidualMlp(nn.Module):
    """A residual network of linear layers (tabular data) with a learned scalar on each branch (ReZero)."""

    def __init__(self, features: int = 7, width: int = 12, hidden: int = 10, depth: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, width))
            for _ in range(depth)
        )
        self.alpha = nn.Parameter(torch.zeros(depth))
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x = x + self.alpha[i] * block(x)
        return self.last(F.relu(x)).squeeze(-1)


class RecurrentBlock(nn.Module):
    """One block, applied three times: its input and its output are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 8, 3, padding=1),
            nn.Tanh(),
        )
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x)
        return self.fc(x.mean((2, 3)))


class Siamese(nn.Module):
    """One encoder, two pictures, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 9, 12),
        )
        self.compare = nn.Linear(12, 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        one, two = self.encoder(first), self.encoder(second)
        return torch.sigmoid(self.compare(torch.abs(one - two))), F.cosine_similarity(one, two)


RESNET = (8, 6, 12, 14)
ENTRIES = (
    Entry("resnet", "residual", lambda: ResNet(Projection), pictures(), (*RESNET, 16), cnn=True),
    Entry("resnet_pad", "residual", lambda: ResNet(PadShortcut), pictures(), (*RESNET, 4, 4), cnn=True),
    Entry("resnet_pad_evenly", "residual", lambda: ResNet(PadEvenly), pictures(), RESNET, cnn=True),
    Entry("resnet_pad_behind", "residual", lambda: ResNet(PadBehind), pictures(), RESNET, cnn=True),
    Entry(
        "resnet_closure",
        "residual",
        lambda: ResNet(closure_shortcut),
        pictures(),
        RESNET,
        cnn=True,
        undo="the padding is a number in a closure",
    ),
    Entry("resnet_bottleneck", "residual", BottleneckResNet, pictures(), (6, 16, 4, 4, 4, 4), cnn=True),
    Entry("resnet_preact", "residual", PreActResNet, pictures(), (8, 8, 12, 12), cnn=True),
    Entry("residual_mlp", "residual", ResidualMlp, floats((2, 7)), (12, 10, 10)),
    Entry("recurrent_block", "reuse", RecurrentBlock, pictures(), (8, 12), cnn=True),
    Entry("siamese", "reuse", Siamese, floats((2, 3, 8, 8), (2, 3, 8, 8)), (8, 12), cnn=True),
)
