"""Plain convolutional networks: stacks, heads, pooling, super-resolution, autoencoders."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tests.zoo.entry import Entry, Example, floats, pictures


class Vgg(nn.Module):
    """Convolutions, batch norm and maximum pooling; flatten over 2×2 pixels; a classifier of two layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in (8, 12, 16):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
            if width > 8:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(16 * 2 * 2, 20), nn.ReLU(True), nn.Dropout(0.5), nn.Linear(20, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


class FlatView(nn.Module):
    """The flattened size is a number that the module keeps, and `view` reads it."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.num_flat = 12 * (size // 2) * (size // 2)
        self.fc = nn.Linear(self.num_flat, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(x.view(-1, self.num_flat))


class LiteralView(nn.Module):
    """The flattened size is a literal in the code of forward, where no surgeon reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(x.view(-1, 192))


class ChannelsLastFlatten(nn.Module):
    """Flattened with the channels last, as TensorFlow does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2)
        self.conv2 = nn.Conv2d(6, 10, 2)
        self.fc1 = nn.Linear(10 * 2 * 2, 14)
        self.fc2 = nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1)
        return self.fc2(F.relu(self.fc1(x)))


class NotZeroAtZero(nn.Module):
    """No norm, biases, and activations that send zero to something else: a dead channel must be unseen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3, padding=1)
        self.conv2 = nn.Conv2d(7, 9, 3, padding=1)
        self.conv3 = nn.Conv2d(9, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(torch.sigmoid(self.conv1(x)), 2)
        x = torch.exp(-F.softplus(self.conv2(x))) + 1.0
        return self.conv3(x).mean(dim=(2, 3))


class Audio(nn.Module):
    """A 1-D network on raw audio."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 8, 9, stride=4)
        self.bn1 = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 12, 3, dilation=2)
        self.bn2 = nn.BatchNorm1d(12)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        return F.log_softmax(self.fc(self.pool(x).squeeze(-1)), dim=-1)


class Video(nn.Module):
    """A 3-D network on a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 2, 2)))
        self.conv = nn.Conv3d(4, 6, (3, 1, 1), bias=False)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(self.stem(x)))
        return self.fc(F.adaptive_avg_pool3d(x, 1).flatten(1))


class Functional(nn.Module):
    """Weights that are the network's own parameters, used through torch.nn.functional."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(8, 3, 3, 3))
        self.gain = nn.Parameter(torch.ones(8))
        self.shift = nn.Parameter(torch.zeros(8))
        self.register_buffer("running_mean", torch.zeros(8))
        self.register_buffer("running_var", torch.ones(8))
        self.matrix = nn.Parameter(torch.empty(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, padding=1)
        x = F.batch_norm(x, self.running_mean, self.running_var, self.gain, self.shift, training=self.training)
        return F.leaky_relu(x, 0.1).mean((2, 3)) @ self.matrix


class Detector(nn.Module):
    """Several outputs: class scores, boxes, and the features themselves, which must keep their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = nn.Conv2d(8, 11, 1)
        self.scores = nn.Sequential(nn.Conv2d(11, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 1))
        self.boxes = nn.Sequential(nn.Conv2d(11, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 4, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = F.relu(self.neck(self.backbone(x)))
        return self.scores(features), self.boxes(features).flatten(2).transpose(1, 2), features


class Dictionaries(nn.Module):
    """A dictionary comes in, a dictionary goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.meta = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
        self.joint = nn.Linear(8 + 6, 12)
        self.heads = nn.ModuleDict({"age": nn.Linear(12, 1), "kind": nn.Linear(12, 4)})

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        joint = torch.cat([self.image(batch["image"]).flatten(1), self.meta(batch["meta"])], dim=1)
        joint = F.relu(self.joint(joint))
        return {name: head(joint) for name, head in self.heads.items()}


def dictionaries(generator: Generator) -> Example:
    (image, meta), _ = floats((2, 3, 8, 8), (2, 5))(generator)
    return (), {"batch": {"image": image, "meta": meta}}


class PReluNet(nn.Module):
    """PReLU with a slope for each channel, or with one for all."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.act1 = nn.PReLU() if single else nn.PReLU(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2)
        self.act2 = nn.PReLU() if single else nn.PReLU(12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc(x.amax((2, 3)))


class PyramidSegmenter(nn.Module):
    """A feature pyramid: lateral 1×1 convolutions, interpolation, sums, a score for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(6, 10, 3, 2, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.lateral1 = nn.Conv2d(6, 8, 1)
        self.lateral2 = nn.Conv2d(10, 8, 1)
        self.smooth = nn.Conv2d(8, 9, 3, padding=1)
        self.drop = nn.Dropout2d(0.1)
        self.score = nn.Conv2d(9, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = self.lateral2(self.down2(fine))
        up = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        x = self.drop(F.relu(self.smooth(up + self.lateral1(fine))))
        return F.interpolate(self.score(x), scale_factor=2, mode="nearest")


class TwoPools(nn.Module):
    """Average and maximum pooled side by side, then batch norm over both."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())
        self.avg, self.max = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(torch.cat([self.max(x), self.avg(x)], 1))


class Edsr(nn.Module):
    """Super-resolution: residual blocks without norm, pixel shuffle, the mean picture as a buffer."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(True), nn.Conv2d(12, 8, 3, padding=1))
            for _ in range(blocks)
        )
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(8, 6 * 4, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head(x - self.mean)
        x = shallow
        for block in self.blocks:
            x = x + 0.1 * block(x)
        return self.tail(self.up(self.body(x) + shallow)) + self.mean


class PixelUnshuffle(nn.Module):
    """Space to depth, at the input and inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(2)
        self.conv1 = nn.Conv2d(3 * 4, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6 * 4, 10, 1)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(self.fold(x)))
        x = F.relu(self.conv2(F.pixel_unshuffle(x, 2)))
        return self.fc(x.mean((-2, -1)))


class Autoencoder(nn.Module):
    """Transposed convolutions, one of them in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ELU(),
        )
        self.up1 = nn.ConvTranspose2d(12, 20, 4, stride=2, padding=1, groups=4)
        self.bn = nn.BatchNorm2d(20)
        self.up2 = nn.ConvTranspose2d(20, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return torch.sigmoid(self.up2(F.relu(self.bn(self.up1(code)))))


class TransposedAudio(nn.Module):
    """A vocoder's upsampler: 1-D transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.pre = nn.Conv1d(6, 10, 3, padding=1)
        self.up = nn.ConvTranspose1d(10, 7, 4, stride=2, padding=1)
        self.post = nn.Conv1d(7, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.post(F.leaky_relu(self.up(F.leaky_relu(self.pre(x), 0.1)), 0.1)))


class Maxout(nn.Module):
    """Maximum over pieces of a channel."""

    def __init__(self, width: int = 8, pieces: int = 2) -> None:
        super().__init__()
        self.width, self.pieces = width, pieces
        self.conv = nn.Conv2d(3, width * pieces, 3)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, _, h, w = x.shape
        x = x.view(n, self.width, self.pieces, h, w).max(dim=2)[0]
        return self.fc(x.mean((2, 3)))


class WeightStandardised(nn.Conv2d):
    """A convolution whose filters are standardised over their inputs (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def weight_standardised() -> nn.Module:
    return nn.Sequential(
        WeightStandardised(3, 8, 3, padding=1),
        nn.GroupNorm(1, 8),
        nn.ReLU(),
        WeightStandardised(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )


ENTRIES = (
    Entry("vgg", "plain", Vgg, pictures(), (8, 12, 16, 20), cnn=True),
    Entry("flat_view", "flatten", FlatView, pictures(), (6, 12), cnn=True),
    Entry("literal_view", "flatten", LiteralView, pictures(), (6,), undo="view reads a literal"),
    Entry("channels_last_flatten", "flatten", ChannelsLastFlatten, pictures(size=7), (6, 10, 14), cnn=True),
    Entry("not_zero_at_zero", "plain", NotZeroAtZero, pictures(), (7, 9), cnn=True),
    Entry("audio", "1-D", Audio, floats((2, 1, 64)), (8, 12), cnn=True),
    Entry("video", "3-D", Video, floats((2, 1, 4, 4, 4)), (4, 6), cnn=True),
    Entry("functional", "plain", Functional, pictures(), (8,), cnn=True),
    Entry("detector", "multi-output", Detector, pictures(), (8, 6, 7), fixed={11: "output"}, cnn=True),
    Entry("dictionaries", "dictionaries", Dictionaries, dictionaries, (8, 6, 12), cnn=True),
    Entry("prelu", "PReLU", lambda: PReluNet(single=False), pictures(), (8, 12), cnn=True),
    Entry("prelu_single", "PReLU", lambda: PReluNet(single=True), pictures(), (8, 12), cnn=True),
    Entry("pyramid", "interpolate", PyramidSegmenter, pictures(), (6, 10, 8, 9), cnn=True),
    Entry("two_pools", "pooling", TwoPools, pictures(), (8, 12), cnn=True),
    Entry("edsr", "pixel shuffle", Edsr, pictures(size=6), (8, 12, 12, 6), cnn=True),
    Entry("pixel_unshuffle", "pixel shuffle", PixelUnshuffle, pictures(), (6, 10), cnn=True),
    Entry("autoencoder", "transposed convolution", Autoencoder, pictures(), (8, 4, 3, 5), cnn=True),
    Entry("transposed_audio", "transposed convolution", TransposedAudio, floats((2, 6, 8)), (10, 7), cnn=True),
    Entry("maxout", "plain", Maxout, pictures(), (8,), cnn=True, statistics=(2,)),
    Entry("weight_standardised", "plain", weight_standardised, pictures(), (12,), statistics=(8,)),
)
