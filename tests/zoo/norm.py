"""Normalisation of every kind, over or beside the channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats, pictures


def normalised(first: nn.Module, second: nn.Module) -> nn.Module:
    """Two convolutions (12 and 16 channels), each with the norm given."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), first, nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1, bias=False), second, nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def group_norm() -> nn.Module:
    return normalised(nn.GroupNorm(3, 12), nn.GroupNorm(4, 16))


def group_norm_plain() -> nn.Module:
    return normalised(nn.GroupNorm(1, 12), nn.GroupNorm(2, 16, affine=False))


def instance_norm() -> nn.Module:
    return normalised(nn.InstanceNorm2d(12), nn.InstanceNorm2d(16, affine=True))


def instance_norm_tracked() -> nn.Module:
    return normalised(nn.InstanceNorm2d(12, affine=True, track_running_stats=True), nn.BatchNorm2d(16, affine=False))


def layer_norm_pictures() -> nn.Module:
    return normalised(nn.LayerNorm([12, 8, 8]), nn.LayerNorm((16, 8, 8), elementwise_affine=False))


class LocalResponse(nn.Module):
    """AlexNet's norm looks at neighbouring channels: their order and number matter, so they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.norm = nn.LocalResponseNorm(5, k=2.0)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.conv1(x)))
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class FlatBatchNorm(nn.Module):
    """Batch norm after flattening: its features are channels × pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm1d(8 * 3 * 3)
        self.fc = nn.Linear(8 * 3 * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(F.relu(self.conv(x)).flatten(1)))


class LayerNormMlp(nn.Module):
    """Layer norm over the hidden units, with and without affine parameters, and L2 normalised features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(6, 12), nn.LayerNorm(12)
        self.fc2, self.norm2 = nn.Linear(12, 14), nn.LayerNorm(14, elementwise_affine=False)
        self.fc3 = nn.Linear(14, 9)
        self.last = nn.Linear(9, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.fc1(x)))
        x = F.gelu(self.norm2(self.fc2(x)), approximate="tanh")
        x = F.normalize(self.fc3(x), dim=-1)
        return F.linear(x, F.normalize(self.last.weight, dim=-1))


class RMSNorm(nn.Module):
    """Root-mean-square norm, written by hand as in Llama."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rms_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 12),
        RMSNorm(12),
        nn.SiLU(),
        nn.Linear(12, 16),
        nn.RMSNorm(16, eps=1e-5),
        nn.SiLU(),
        nn.Linear(16, 3),
    )


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a picture, written by hand (ConvNeXt, channels first)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PermutedLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a picture by permuting there and back."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Depthwise 7×7, layer norm, two linear layers with the channels last, layer scale, residual."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = self.gamma * x
        return residual + x.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Patches, a block, a downsampling with its own norm, a block, a head."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 2, stride=2), norm(12))
        self.stage1 = ConvNextBlock(12, 20)
        self.down = nn.Sequential(norm(12), nn.Conv2d(12, 16, 2, stride=2))
        self.stage2 = ConvNextBlock(16, 24)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))


class Film(nn.Module):
    """Feature-wise modulation (diffusion U-Nets): a condition scales and shifts the normalised channels."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(4, 7), nn.SiLU())
        self.modulation = nn.Linear(7, 2 * 12)
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.GroupNorm(4, 12)
        self.conv2 = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(self.time(time))[:, :, None, None].chunk(2, dim=1)
        return x + self.conv2(F.silu(self.norm(self.conv1(x)) * (scale + 1) + shift))


WIDTHS = (12, 16)
CONVNEXT = (12, 20, 16, 24)
ENTRIES = (
    Entry("group_norm", "group norm", group_norm, pictures(), (3, 4, 4, 4), cnn=True, statistics=(4,)),
    Entry(
        "group_norm_plain",
        "group norm",
        group_norm_plain,
        pictures(),
        (12, 2, 8),
        cnn=True,
        statistics=(12, 8),
    ),
    Entry("instance_norm", "instance norm", instance_norm, pictures(), WIDTHS, cnn=True),
    Entry("instance_norm_tracked", "instance norm", instance_norm_tracked, pictures(), WIDTHS, cnn=True),
    Entry(
        "layer_norm_pictures",
        "layer norm",
        layer_norm_pictures,
        pictures(),
        WIDTHS,
        cnn=True,
        statistics=WIDTHS,
    ),
    Entry("local_response", "not understood", LocalResponse, pictures(), (12,), fixed={8: ""}),
    Entry("flat_batch_norm", "batch norm", FlatBatchNorm, pictures(), (8,), cnn=True),
    Entry("layer_norm_mlp", "layer norm", LayerNormMlp, floats((2, 6)), (12, 14, 9), statistics=(12, 14)),
    Entry("rms_mlp", "RMS norm", rms_mlp, floats((2, 6)), WIDTHS, statistics=WIDTHS),
    Entry(
        "convnext",
        "layer norm",
        lambda: ConvNext(PermutedLayerNorm),
        pictures(),
        CONVNEXT,
        cnn=True,
        statistics=WIDTHS,
    ),
    Entry(
        "convnext_by_hand",
        "layer norm",
        lambda: ConvNext(LayerNorm2d),
        pictures(),
        CONVNEXT,
        cnn=True,
        statistics=WIDTHS,
    ),
    Entry("film", "group norm", Film, floats((2, 3, 8, 8), (2, 4)), (7, 4, 3), cnn=True, statistics=(3,)),
)
