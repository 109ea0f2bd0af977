"""Networks that concatenate and split."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, pictures


class DenseLayer(nn.Module):
    """Norm, 1×1, norm, 3×3; the new features go behind the old ones."""

    def __init__(self, before: int, hidden: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat([x, new], 1)


class DenseNet(nn.Module):
    """Two dense blocks with a transition between them."""

    def __init__(self, growth: int = 4, hidden: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(DenseLayer(8, hidden, growth), DenseLayer(12, hidden, growth))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 10, 1, bias=False), nn.AvgPool2d(2)
        )
        self.block2 = nn.Sequential(DenseLayer(10, hidden, growth), DenseLayer(14, hidden, growth))
        self.norm = nn.BatchNorm2d(18)
        self.classifier = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.transition(self.block1(self.stem(x))))
        return self.classifier(F.adaptive_avg_pool2d(F.relu(self.norm(x)), (1, 1)).flatten(1))


class DenseList(nn.Module):
    """DenseNet as some write it: a growing list, concatenated anew for each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)])
        self.out = nn.Conv2d(14, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(F.silu(layer(torch.cat(features, dim=1))))
        return self.out(torch.cat(features, dim=-3))


def conv_bn_relu(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Down with maximum pooling, up with transposed convolution, skips by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = conv_bn_relu(3, 6)
        self.down2 = conv_bn_relu(6, 12)
        self.bottom = conv_bn_relu(12, 16)
        self.up2 = nn.ConvTranspose2d(16, 10, 2, stride=2)
        self.dec2 = conv_bn_relu(12 + 10, 11)
        self.up1 = nn.ConvTranspose2d(11, 5, 2, stride=2)
        self.dec1 = conv_bn_relu(6 + 5, 7)
        self.out = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.dec2(torch.cat([two, self.up2(x)], dim=1))
        x = self.dec1(torch.cat([one, self.up1(x)], dim=1))
        return self.out(x)


class UNetBilinear(nn.Module):
    """Up by interpolation, with the padding that makes odd sizes fit."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn_relu(3, 6)
        self.bottom = conv_bn_relu(6, 10)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dec = conv_bn_relu(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(skip, 2)))
        rows, columns = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.out(self.dec(torch.cat([skip, x], 1)))


class Inception(nn.Module):
    """Three branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 8)
        self.branch1 = nn.Conv2d(8, 4, 1)
        self.branch2 = nn.Sequential(nn.Conv2d(8, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 3, padding=1))
        self.branch3 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(8, 5, 1))
        self.bn = nn.BatchNorm2d(15)
        self.last = nn.Conv2d(15, 7, 3)
        self.fc = nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.bn(torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], 1)))
        return self.fc(F.relu(self.last(x)).mean((2, 3)))


class C2f(nn.Module):
    """The YOLOv8 block: split in two, a chain on the second half, everything concatenated."""

    def __init__(self, before: int, after: int, hidden: int = 6, depth: int = 2) -> None:
        super().__init__()
        self.c = hidden
        self.cv1 = nn.Conv2d(before, 2 * self.c, 1)
        self.cv2 = nn.Conv2d((2 + depth) * self.c, after, 1)
        self.m = nn.ModuleList(
            nn.Sequential(nn.Conv2d(hidden, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, hidden, 3, padding=1))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        for m in self.m:
            y.append(y[-1] + m(y[-1]))
        return self.cv2(torch.cat(y, 1))


class Yolo(nn.Module):
    """A detector's body with C2f, and pyramid pooling (SPPF)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 8)
        self.c2f = C2f(8, 10)
        self.sppf = nn.Conv2d(10, 4, 1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.out = nn.Conv2d(4 * 3, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sppf(F.silu(self.c2f(self.stem(x))))
        y = self.pool(x)
        return self.out(torch.cat((x, y, self.pool(y)), 1))


class PartialConv(nn.Module):
    """FasterNet: convolve some channels, leave the others alone."""

    def __init__(self, dim: int = 12, parts: int = 4, hidden: int = 10) -> None:
        super().__init__()
        self.dim_conv = dim // parts
        self.dim_untouched = dim - self.dim_conv
        self.conv = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1, bias=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, dim, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = torch.split(x, [self.dim_conv, self.dim_untouched], dim=1)
        return x + self.mlp(torch.cat((self.conv(x1), x2), 1))


class FasterNet(nn.Module):
    """A stem, a partial convolution, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.block = PartialConv()
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class Csp(nn.Module):
    """Cross-stage partial: two halves by chunk; one is transformed, then they are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.part = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.Mish(), nn.Conv2d(6, 9, 1))
        self.out = nn.Conv2d(8 + 9, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, x = self.stem(x).chunk(2, dim=1)
        return self.out(torch.cat([self.part(x), kept], 1)).amax((2, 3))


class Ghost(nn.Module):
    """GhostNet: half of the features are cheap functions of the other half; surplus ones are dropped."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.oup = after
        half = -(-after // 2)
        self.primary = nn.Sequential(nn.Conv2d(before, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.cheap = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary(x)
        x2 = self.cheap(x1)
        return torch.cat([x1, x2], dim=1)[:, : self.oup]


def ghost() -> nn.Module:
    return nn.Sequential(Ghost(3, 12), Ghost(12, 10), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10))


ENTRIES = (
    Entry("densenet", "DenseNet", DenseNet, pictures(), (8, 10, 6, 4, 6, 4, 6, 4, 6, 4), cnn=True),
    Entry("dense_list", "DenseNet", DenseList, pictures(), (5, 6), cnn=True),
    Entry("unet", "U-Net", UNet, pictures(), (6, 12, 16, 10, 11, 5, 7), cnn=True),
    Entry("unet_bilinear", "U-Net", UNetBilinear, pictures(size=7), (6, 10, 8), cnn=True),
    Entry("inception", "Inception", Inception, pictures(), (8, 4, 3, 6, 5, 7), cnn=True),
    Entry("yolo", "Inception", Yolo, pictures(), (8, 6, 5, 5, 10, 4), cnn=True),
    Entry("fasternet", "split", FasterNet, pictures(), (3, 9, 10), cnn=True),
    Entry("csp", "split", Csp, pictures(), (8, 6, 9), cnn=True),
    Entry("ghost", "split", ghost, pictures(), (6, 5), cnn=True),
)
