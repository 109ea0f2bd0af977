"""Detectors, and networks that exchange features between resolutions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.attention import SeparateAttention
from tests.zoo.branching import C2f
from tests.zoo.entry import Entry, pictures


def autopad(k: int, p: int | None = None) -> int:
    """Padding that keeps the picture's size."""
    return k // 2 if p is None else p


class Conv(nn.Module):
    """Convolution, batch norm, activation (Ultralytics)."""

    default_act = nn.SiLU()

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = self.default_act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, with a shortcut where the shapes allow it."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5) -> None:
        super().__init__()
        c_ = int(c2 * e)
        self.cv1 = Conv(c1, c_, 3, 1)
        self.cv2 = Conv(c_, c2, 3, 1)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2fSplit(nn.Module):
    """YOLOv8: the split takes a list of sizes that is made of an attribute; the list of features grows."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, e: float = 0.5) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c, 1, 1)
        self.cv2 = Conv((2 + n) * self.c, c2, 1)
        self.m = nn.ModuleList(Bottleneck(self.c, self.c, shortcut, e=1.0) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x).split((self.c, self.c), 1)
        y = [y[0], y[1]]
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C3(nn.Module):
    """YOLOv5: a chain of bottlenecks beside a 1×1 convolution."""

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5) -> None:
        super().__init__()
        c_ = int(c2 * e)
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c1, c_, 1, 1)
        self.cv3 = Conv(2 * c_, c2, 1)
        self.m = nn.Sequential(*(Bottleneck(c_, c_, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class Sppf(nn.Module):
    """Pyramid pooling, in a row."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        c_ = c1 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c_ * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class Dfl(nn.Module):
    """The expected value of a distribution over distances, by a convolution whose weights are 0, 1, 2 …"""

    def __init__(self, c1: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(c1, dtype=torch.float).view(1, c1, 1, 1)
        self.c1 = c1

    def forward(self, x: Tensor) -> Tensor:
        b, _, a = x.shape
        return self.conv(x.view(b, 4, self.c1, a).transpose(2, 1).softmax(1)).view(b, 4, a)


def make_anchors(feats: list[Tensor], strides: list[int]) -> tuple[Tensor, Tensor]:
    """The centre of each cell, and its stride."""
    points, scales = [], []
    for feat, stride in zip(feats, strides, strict=True):
        _, _, h, w = feat.shape
        sx = torch.arange(end=w, device=feat.device, dtype=feat.dtype) + 0.5
        sy = torch.arange(end=h, device=feat.device, dtype=feat.dtype) + 0.5
        sy, sx = torch.meshgrid(sy, sx, indexing="ij")
        points.append(torch.stack((sx, sy), -1).view(-1, 2))
        scales.append(torch.full((h * w, 1), stride, dtype=feat.dtype, device=feat.device))
    return torch.cat(points), torch.cat(scales)


class Detect(nn.Module):
    """The head of YOLOv8: boxes as distributions and classes at every scale, decoded."""

    def __init__(self, nc: int, ch: tuple[int, ...]) -> None:
        super().__init__()
        self.nc = nc
        self.nl = len(ch)
        self.reg_max = 4
        self.no = nc + self.reg_max * 4
        self.stride = [4, 8]
        c2, c3 = max((8, ch[0] // 4, self.reg_max * 2)), max(ch[0], self.nc)
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(x, c2, 3), Conv(c2, c2, 3), nn.Conv2d(c2, 4 * self.reg_max, 1)) for x in ch
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(Conv(x, x, 3, g=x), Conv(x, c3, 1)),
                nn.Sequential(Conv(c3, c3, 3, g=c3), Conv(c3, c3, 1)),
                nn.Conv2d(c3, self.nc, 1),
            )
            for x in ch
        )
        self.dfl = Dfl(self.reg_max)

    def forward(self, x: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        for i in range(self.nl):
            x[i] = torch.cat((self.cv2[i](x[i]), self.cv3[i](x[i])), 1)
        x_cat = torch.cat([xi.view(x[0].shape[0], self.no, -1) for xi in x], 2)
        box, cls = x_cat.split((self.reg_max * 4, self.nc), 1)
        anchors, strides = make_anchors(x, self.stride)
        lt, rb = self.dfl(box).chunk(2, 1)
        x1y1, x2y2 = anchors.t().unsqueeze(0) - lt, anchors.t().unsqueeze(0) + rb
        boxes = torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * strides.t()
        return torch.cat((boxes, cls.sigmoid()), 1), x


class YoloV8(nn.Module):
    """Two scales, down and up and down again, and the decoupled head."""

    def __init__(self, nc: int = 3) -> None:
        super().__init__()
        self.stem = Conv(3, 8, 3, 2)
        self.down1, self.stage1 = Conv(8, 12, 3, 2), C2fSplit(12, 12, n=2, shortcut=True)
        self.down2, self.stage2 = Conv(12, 16, 3, 2), C2fSplit(16, 16, n=1, shortcut=True)
        self.sppf = Sppf(16, 16)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top = C2fSplit(16 + 12, 14)
        self.down3 = Conv(14, 10, 3, 2)
        self.bottom = C2fSplit(10 + 16, 18)
        self.detect = Detect(nc, (14, 18))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        fine = self.stage1(self.down1(self.stem(x)))
        coarse = self.sppf(self.stage2(self.down2(fine)))
        top = self.top(torch.cat([self.up(coarse), fine], 1))
        bottom = self.bottom(torch.cat([self.down3(top), coarse], 1))
        return self.detect([top, bottom])


class Focus(nn.Module):
    """Space to depth by slices."""

    def __init__(self, c1: int, c2: int, k: int = 1) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1))


class YoloV5(nn.Module):
    """Focus, C3, and the anchor head: view, permute, sigmoid, a grid that the code makes."""

    def __init__(self, nc: int = 2) -> None:
        super().__init__()
        self.nc, self.na, self.no = nc, 3, nc + 5
        self.focus = Focus(3, 8, 3)
        self.body = nn.Sequential(Conv(8, 12, 3, 2), C3(12, 16))
        self.inner = Focus(16, 10)
        self.m = nn.Conv2d(10, self.no * self.na, 1)
        self.register_buffer("anchors", torch.tensor([1.0, 1.5, 2.0, 1.0, 3.0, 2.5]).view(1, 3, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.m(self.inner(self.body(self.focus(x))))
        bs, _, ny, nx = x.shape
        x = x.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
        yv, xv = torch.meshgrid(torch.arange(ny, dtype=x.dtype), torch.arange(nx, dtype=x.dtype), indexing="ij")
        grid = torch.stack((xv, yv), 2).expand(1, self.na, ny, nx, 2) - 0.5
        xy, wh, conf = x.sigmoid().split((2, 2, self.nc + 1), 4)
        xy = (xy * 2 + grid) * 4
        wh = (wh * 2) ** 2 * self.anchors
        return torch.cat((xy, wh, conf), 4).view(bs, self.na * nx * ny, self.no)


class SsdHead(nn.Module):
    """Single-shot: at each scale channels go last and are viewed as (anchors × cells, classes)."""

    def __init__(self, num_classes: int = 3, anchors: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stage1 = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(24, 28, 3, 2, 1), nn.BatchNorm2d(28), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.stage2 = nn.Sequential(
            nn.Conv2d(28, 20, 1), nn.ReLU(inplace=True),
            nn.Conv2d(20, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.loc = nn.ModuleList(nn.Conv2d(width, anchors * 4, 3, padding=1) for width in (28, 32))
        self.conf = nn.ModuleList(nn.Conv2d(width, anchors * num_classes, 3, padding=1) for width in (28, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sources = [self.stage1(x)]
        sources.append(self.stage2(sources[0]))
        loc = [head(source).permute(0, 2, 3, 1).contiguous() for head, source in zip(self.loc, sources, strict=True)]
        conf = [head(source).permute(0, 2, 3, 1).contiguous() for head, source in zip(self.conf, sources, strict=True)]
        loc = torch.cat([o.view(o.size(0), -1) for o in loc], 1)
        conf = torch.cat([o.view(o.size(0), -1) for o in conf], 1)
        return loc.view(loc.size(0), -1, 4), conf.view(conf.size(0), -1, self.num_classes)


class Fcos(nn.Module):
    """A feature pyramid and one tower for all its levels, with group norm and a learned scale for each level."""

    def __init__(self, classes: int = 4, width: int = 12) -> None:
        super().__init__()
        self.c3 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.c4 = nn.Sequential(nn.Conv2d(8, 14, 3, 2, 1), nn.BatchNorm2d(14), nn.ReLU())
        self.inner = nn.ModuleList([nn.Conv2d(8, width, 1), nn.Conv2d(14, width, 1)])
        self.layer = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.tower = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(3, width), nn.ReLU())
        self.logits, self.box = nn.Conv2d(width, classes, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(2)])

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        c3 = self.c3(x)
        c4 = self.c4(c3)
        top = self.inner[1](c4)
        down = self.inner[0](c3) + F.interpolate(top, size=c3.shape[-2:], mode="nearest")
        levels = [self.layer[0](down), self.layer[1](top)]
        logits, boxes = [], []
        for scale, level in zip(self.scales, levels, strict=True):
            features = self.tower(level)
            logits.append(self.logits(features))
            boxes.append(F.relu(self.box(features) * scale))
        return {"logits": logits, "boxes": boxes}


class Detr(nn.Module):
    """DETR's demo: a table of rows and a table of columns make the positions; learned queries read the picture."""

    def __init__(self, hidden_dim: int = 12, num_queries: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.conv = nn.Conv2d(8, hidden_dim, 2, 2)
        self.encoder = SeparateAttention(hidden_dim, 4, 6)
        self.q, self.kv = nn.Linear(hidden_dim, 10), nn.Linear(hidden_dim, 20)
        self.out = nn.Linear(10, hidden_dim)
        self.query_pos = nn.Parameter(torch.rand(num_queries, hidden_dim))
        self.row_embed = nn.Parameter(torch.rand(6, hidden_dim // 2))
        self.col_embed = nn.Parameter(torch.rand(6, hidden_dim // 2))
        self.linear_class, self.linear_bbox = nn.Linear(hidden_dim, classes + 1), nn.Linear(hidden_dim, 4)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        h = self.conv(self.backbone(inputs))
        height, width = h.shape[-2:]
        columns = self.col_embed[:width].unsqueeze(0).repeat(height, 1, 1)
        rows = self.row_embed[:height].unsqueeze(1).repeat(1, width, 1)
        pos = torch.cat([columns, rows], dim=-1).flatten(0, 1).unsqueeze(0)
        memory = h.flatten(2).permute(0, 2, 1) + 0.1 * pos
        memory = memory + self.encoder(memory)
        k, v = self.kv(memory).chunk(2, dim=-1)
        q = self.q(self.query_pos).unsqueeze(0).expand(h.shape[0], -1, -1)
        h = self.query_pos + self.out(F.scaled_dot_product_attention(q, k, v, scale=0.3))
        return {"pred_logits": self.linear_class(h), "pred_boxes": self.linear_bbox(h).sigmoid()}


class HighResolutionModule(nn.Module):
    """HRNet: a branch for each resolution; then each gets the sum of all, brought to its size."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.num_branches = len(channels)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
                nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c),
            )
            for c in channels
        )  # fmt: skip
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.fuse(channels, i, j) for j in range(len(channels))) for i in range(len(channels))
        )
        self.relu = nn.ReLU()

    @staticmethod
    def fuse(channels: tuple[int, ...], i: int, j: int) -> nn.Module | None:
        """From branch j to branch i: up by interpolation, down by strided convolutions."""
        if j == i:
            return None
        if j > i:
            return nn.Sequential(
                nn.Conv2d(channels[j], channels[i], 1, bias=False),
                nn.BatchNorm2d(channels[i]),
                nn.Upsample(scale_factor=2 ** (j - i), mode="nearest"),
            )
        steps: list[nn.Module] = []
        for k in range(i - j):
            after = channels[i] if k == i - j - 1 else channels[j]
            steps += [nn.Conv2d(channels[j], after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*steps[:-1])

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [xi + branch(xi) for xi, branch in zip(x, self.branches, strict=True)]
        x_fuse = []
        for i in range(self.num_branches):
            y = x[0] if i == 0 else self.fuse_layers[i][0](x[0])
            for j in range(1, self.num_branches):
                y = y + x[j] if i == j else y + self.fuse_layers[i][j](x[j])
            x_fuse.append(self.relu(y))
        return x_fuse


class HrNet(nn.Module):
    """Three resolutions, one exchange, all concatenated at the finest for a score at each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.transition = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
                nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU()),
            ]
        )
        self.stage = HighResolutionModule((6, 8, 10))
        self.last_layer = nn.Sequential(
            nn.Conv2d(24, 14, 1), nn.BatchNorm2d(14), nn.ReLU(inplace=True), nn.Conv2d(14, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = [self.stem(x)]
        for transition in self.transition:
            x.append(transition(x[-1]))
        x = self.stage(x)
        size = x[0].shape[-2:]
        up = [F.interpolate(xi, size=size, mode="bilinear", align_corners=False) for xi in x[1:]]
        return self.last_layer(torch.cat([x[0], *up], 1))


class Hourglass(nn.Module):
    """CenterNet: a recursive hourglass, and heads that are kept in a dictionary and found by getattr."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = {"hm": 3, "wh": 2, "reg": 2}
        self.pre = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.up1, self.low1 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.low3 = nn.Conv2d(12, 8, 3, padding=1)
        for head, width in self.heads.items():
            fc = nn.Sequential(
                nn.Conv2d(8, 10, 3, padding=1, bias=True), nn.ReLU(inplace=True), nn.Conv2d(10, width, 1)
            )
            fc[-1].bias.data.fill_(-2.19 if "hm" in head else 0.0)
            setattr(self, head, fc)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        x = self.pre(x)
        x = self.up1(x) + F.interpolate(self.low3(F.relu(self.low1(x))), scale_factor=2)
        return [{head: getattr(self, head)(x) for head in self.heads}]


class SegNet(nn.Module):
    """The positions of the maxima lead the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)
        self.mid = nn.Sequential(nn.Conv2d(10, 14, 3, padding=1), nn.ReLU(), nn.Conv2d(14, 10, 3, padding=1))
        self.dec = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, indices = self.pool(self.enc(x))
        return self.dec(self.unpool(self.mid(x), indices))


class Aspp(nn.Module):
    """DeepLab: dilated convolutions side by side, and a pooled branch brought back to size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(6), nn.ReLU())
            for rate in (1, 2, 3)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 5, 1, bias=False), nn.ReLU())
        self.project = nn.Sequential(nn.Conv2d(3 * 6 + 5, 12, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        x = self.stem(x)
        result = [conv(x) for conv in self.convs]
        result.append(F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        x = self.classifier(self.project(torch.cat(result, dim=1)))
        return {"out": F.interpolate(x, size=size, mode="bilinear", align_corners=False)}


class C2fBackbone(nn.Module):
    """C2f alone, classified; the channels go last before they are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 8, 3, 2)
        self.block = C2f(8, 10)
        self.fc1, self.fc2 = nn.Linear(10 * 4 * 4, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x)).permute(0, 2, 3, 1)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def prior_bias(probability: float = 0.01) -> float:
    """The bias that makes a sigmoid rare."""
    return -math.log((1 - probability) / probability)


class RetinaHead(nn.Module):
    """RetinaNet: towers shared by the levels; scores are viewed as (batch, cells × anchors, classes)."""

    def __init__(self, anchors: int = 2, classes: int = 3, width: int = 10) -> None:
        super().__init__()
        self.num_anchors, self.num_classes = anchors, classes
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Conv2d(width, width, 3, 2, 1)
        self.conv = nn.Sequential(*(m for _ in range(2) for m in (nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())))
        self.cls_logits = nn.Conv2d(width, anchors * classes, 3, padding=1)
        nn.init.constant_(self.cls_logits.bias, prior_bias())

    def forward(self, x: Tensor) -> Tensor:
        fine = self.body(x)
        scores = []
        for features in (fine, self.down(F.relu(fine))):
            logits = self.cls_logits(self.conv(features))
            n, _, h, w = logits.shape
            logits = logits.view(n, -1, self.num_classes, h, w).permute(0, 3, 4, 1, 2)
            scores.append(logits.reshape(n, -1, self.num_classes))
        return torch.cat(scores, dim=1)


YOLO_V8_BODY = (8, 12, 6, 6, 6, 12, 16, 8, 8, 16, 8, 16, 14, 7, 7, 7, 10, 18, 9, 9, 9)
YOLO_V8_HEAD = (8, 8, 8, 8, 14, 14, 14, 14)
ENTRIES = (
    Entry("yolo_v5", "detection", YoloV5, pictures(size=16), (8, 12, 8, 8, 8, 16, 10), cnn=True),
    Entry("ssd", "detection", SsdHead, pictures(), (24, 28, 20, 32), cnn=True),
    Entry("fcos", "detection", Fcos, pictures(), (8, 14, 12, 12, 3, 4), cnn=True, statistics=(4,)),
    Entry("retina_head", "detection", RetinaHead, pictures(), (10, 10, 10), cnn=True),
    Entry("yolo_v8", "detection", YoloV8, pictures(size=16), YOLO_V8_BODY + YOLO_V8_HEAD, cnn=True),
    Entry("detr", "detection", Detr, pictures(), (8, 6, 6, 4, 6, 12, 10)),
    Entry("center_net", "detection", Hourglass, pictures(), (8, 8, 12, 10, 10, 10), cnn=True),
    Entry("hrnet", "multi-resolution", HrNet, pictures(), (6, 6, 6, 8, 8, 10, 10, 14), cnn=True),
    Entry("segnet", "multi-resolution", SegNet, pictures(), (10, 14), cnn=True),
    Entry("deeplab", "multi-resolution", Aspp, pictures(), (8, 6, 6, 6, 5, 12), cnn=True),
    Entry("c2f_channels_last", "split", C2fBackbone, pictures(), (8, 6, 5, 5, 10, 12), cnn=True),
)
