"""Networks for pictures, clips and signals, as their reference code writes them."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tests.zoo.entry import Entry, Example, floats, pictures


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of a time step, computed in forward."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        half = self.dim // 2
        step = math.log(10000) / (half - 1)
        frequencies = torch.exp(torch.arange(half, device=time.device, dtype=time.dtype) * -step)
        angles = time[:, None] * frequencies[None, :]
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class DiffusionBlock(nn.Module):
    """Group norm, activation and convolution, twice; the time embedding is added in between."""

    def __init__(self, before: int, after: int, time: int, groups: int = 8) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before), nn.Conv2d(before, after, 3, padding=1)
        self.time_proj = nn.Linear(time, after)
        self.norm2, self.conv2 = nn.GroupNorm(groups, after), nn.Conv2d(after, after, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + self.skip(x)


class DiffusionAttention(nn.Module):
    """DDPM's attention over pixels: 1×1 convolutions, one head."""

    def __init__(self, width: int, hidden: int, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.q, self.k, self.v = (nn.Conv2d(width, hidden, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(hidden, width, 1)
        self.scale = hidden**-0.5

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        _, _, height, width = q.shape
        q, k, v = q.flatten(2).transpose(1, 2), k.flatten(2), v.flatten(2).transpose(1, 2)
        weights = torch.softmax(torch.bmm(q, k) * self.scale, dim=-1)
        h = torch.bmm(weights, v).transpose(1, 2).unflatten(2, (height, width))
        return x + self.proj_out(h)


class DiffusionUNet(nn.Module):
    """DDPM: blocks that know the time, attention at the bottom, skips that are popped off a list."""

    def __init__(self) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(SinusoidalEmbedding(6), nn.Linear(6, 14), nn.SiLU(), nn.Linear(14, 10))
        self.conv_in = nn.Conv2d(3, 16, 3, padding=1)
        self.down1, self.downsample = DiffusionBlock(16, 16, 10), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.down2 = DiffusionBlock(16, 24, 10)
        self.mid1, self.attention = DiffusionBlock(24, 24, 10), DiffusionAttention(24, 9)
        self.up2 = DiffusionBlock(48, 24, 10)
        self.upsample = nn.Conv2d(24, 16, 3, padding=1)
        self.up1 = DiffusionBlock(32, 16, 10)
        self.norm_out, self.conv_out = nn.GroupNorm(8, 16), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = self.time_mlp(time)
        hs = [self.down1(self.conv_in(x), time)]
        hs.append(self.down2(self.downsample(hs[-1]), time))
        h = self.attention(self.mid1(hs[-1], time))
        h = self.up2(torch.cat([h, hs.pop()], dim=1), time)
        h = self.upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up1(torch.cat([h, hs.pop()], dim=1), time)
        return self.conv_out(F.silu(self.norm_out(h)))


class WindowAttention(nn.Module):
    """Swin's attention, with the table of relative positions built as the reference code builds it."""

    def __init__(self, dim: int, window: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.window_size = (window, window)
        self.scale = (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        coords = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("relative_position_index", relative[..., 0] * (2 * window - 1) + relative[..., 1])
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q * self.scale) @ k.transpose(-2, -1)
        area = self.window_size[0] * self.window_size[1]
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(area, area, -1)
        attn = attn + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attn = attn.view(b // windows, windows, self.num_heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            attn = attn.view(-1, self.num_heads, n, n)
        x = (self.softmax(attn) @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


def window_partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (windows × B, window, window, C)."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, c)


def window_reverse(windows: Tensor, window: int, h: int, w: int) -> Tensor:
    """The way back."""
    b = int(windows.shape[0] / (h * w / window / window))
    x = windows.view(b, h // window, w // window, window, window, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)


class SwinBlock(nn.Module):
    """Windows, shifted in every second block by a cyclic roll and a mask."""

    def __init__(self, dim: int, resolution: int, num_heads: int, hidden: int, shift: int, window: int = 2) -> None:
        super().__init__()
        self.dim, self.input_resolution = dim, (resolution, resolution)
        self.window_size, self.shift_size = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, num_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.register_buffer("attn_mask", self.mask(resolution) if shift else None)

    def mask(self, resolution: int) -> Tensor:
        """Which pixels of a rolled window were neighbours, 0 or -100."""
        img_mask = torch.zeros((1, resolution, resolution, 1))
        slices = (
            slice(0, -self.window_size),
            slice(-self.window_size, -self.shift_size),
            slice(-self.shift_size, None),
        )
        for count, (h, w) in enumerate((h, w) for h in slices for w in slices):
            img_mask[:, h, w, :] = count
        windows = window_partition(img_mask, self.window_size).view(-1, self.window_size**2)
        difference = windows.unsqueeze(1) - windows.unsqueeze(2)
        return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h, w = self.input_resolution
        b, _, c = x.shape
        shortcut = x
        x = self.norm1(x).view(b, h, w, c)
        if self.shift_size > 0:
            x = torch.roll(x, shifts=(-self.shift_size, -self.shift_size), dims=(1, 2))
        windows = window_partition(x, self.window_size).view(-1, self.window_size * self.window_size, c)
        windows = self.attn(windows, self.attn_mask).view(-1, self.window_size, self.window_size, c)
        x = window_reverse(windows, self.window_size, h, w)
        if self.shift_size > 0:
            x = torch.roll(x, shifts=(self.shift_size, self.shift_size), dims=(1, 2))
        x = shortcut + x.view(b, h * w, c)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Every 2×2 pixels become one, by slices."""

    def __init__(self, resolution: int, dim: int, after: int) -> None:
        super().__init__()
        self.input_resolution = (resolution, resolution)
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, w = self.input_resolution
        b, _, c = x.shape
        x = x.view(b, h, w, c)
        x = torch.cat([x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]], -1)
        return self.reduction(self.norm(x.view(b, -1, 4 * c)))


class Swin(nn.Module):
    """Two stages; the head reads the mean of all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.patch_norm = nn.Conv2d(3, 12, 2, stride=2), nn.LayerNorm(12)
        self.stage1 = nn.Sequential(SwinBlock(12, 4, 3, 20, 0), SwinBlock(12, 4, 3, 22, 1))
        self.merge = PatchMerging(4, 12, 16)
        self.stage2 = SwinBlock(16, 2, 4, 24, 0)
        self.norm = nn.LayerNorm(16)
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_norm(self.patch_embed(x).flatten(2).transpose(1, 2))
        x = self.norm(self.stage2(self.merge(self.stage1(x))))
        return self.head(torch.flatten(self.avgpool(x.transpose(1, 2)), 1))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, dim: int, init_values: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(init_values * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TimmAttention(nn.Module):
    """timm's ViT attention: reshape and unbind, query and key norms, the width goes back by the attribute."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.attn_dim = num_heads * self.head_dim
        self.scale = self.head_dim**-0.5
        self.fused_attn = True
        self.qkv = nn.Linear(dim, self.attn_dim * 3)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(self.attn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            attn = (q * self.scale) @ k.transpose(-2, -1)
            x = self.attn_drop(attn.softmax(dim=-1)) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, self.attn_dim))


class TimmBlock(nn.Module):
    """Pre-norm, with layer scale on both branches."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim), TimmAttention(dim, num_heads), LayerScale(dim)
        self.norm2, self.ls2 = nn.LayerNorm(dim), LayerScale(dim)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.fc2(self.act(self.fc1(self.norm2(x)))))


class TimmVit(nn.Module):
    """timm's VisionTransformer: class token, positions, blocks, norm, pooled by the class token."""

    def __init__(self, dim: int = 12, depth: int = 2, num_heads: int = 3) -> None:
        super().__init__()
        self.num_features = self.embed_dim = dim
        self.num_prefix_tokens = 1
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, dim) * 0.02)
        self.blocks = nn.Sequential(*(TimmBlock(dim, num_heads, 20 + 2 * i) for i in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class GmlpBlock(nn.Module):
    """gMLP: half of the hidden units, mixed over the tokens, gate the other half."""

    def __init__(self, dim: int, hidden: int, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel_proj1, self.channel_proj2 = nn.Linear(dim, hidden * 2), nn.Linear(hidden, dim)
        self.gate_norm = nn.LayerNorm(hidden)
        self.spatial_proj = nn.Conv1d(length, length, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.channel_proj1(self.norm(x))).chunk(2, dim=-1)
        return x + self.channel_proj2(u * self.spatial_proj(self.gate_norm(v)))


class MeanOverTokens(nn.Module):
    """(B, N, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def gmlp_head() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 12), GmlpBlock(12, 18, 4), GmlpBlock(12, 16, 4), MeanOverTokens(), nn.Linear(12, 5)
    )


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer(dim: int = 40, depth: int = 2) -> nn.Module:
    """The seven lines of the paper."""
    return nn.Sequential(
        nn.Conv2d(3, dim, 2, stride=2),
        nn.GELU(),
        nn.BatchNorm2d(dim),
        *(
            nn.Sequential(
                Residual(
                    nn.Sequential(nn.Conv2d(dim, dim, 3, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim))
                ),
                nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim),
            )
            for _ in range(depth)
        ),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, 5),
    )  # fmt: skip


class RepVggBlock(nn.Module):
    """Three branches are added: 3×3, 1×1 and batch norm alone."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.groups = before, 1
        self.rbr_identity = nn.BatchNorm2d(before) if before == after and stride == 1 else None
        self.rbr_dense = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
        self.rbr_1x1 = nn.Sequential(nn.Conv2d(before, after, 1, stride, 0, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return F.relu(self.rbr_dense(x) + self.rbr_1x1(x) + identity)


def rep_vgg() -> nn.Module:
    stages = [RepVggBlock(3, 8, 2), RepVggBlock(8, 8), RepVggBlock(8, 12, 2), RepVggBlock(12, 12)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def make_divisible(value: float, divisor: int = 4) -> int:
    """The usual rounding of widths."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class MobileV3SE(nn.Module):
    """MobileNetV3's squeeze-excite: linear layers, hard sigmoid, view."""

    def __init__(self, channel: int, reduction: int = 4) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channel, make_divisible(channel // reduction)), nn.ReLU(inplace=True),
            nn.Linear(make_divisible(channel // reduction), channel), nn.Hardsigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(self.avg_pool(x).view(b, c)).view(b, c, 1, 1)


class MobileV3Block(nn.Module):
    """Widen, depthwise, squeeze-excite, narrow; the first block does not widen."""

    def __init__(self, inp: int, hidden: int, oup: int, k: int, stride: int, se: bool, hs: bool) -> None:
        super().__init__()
        self.identity = stride == 1 and inp == oup
        act = nn.Hardswish if hs else nn.ReLU
        depthwise = [nn.Conv2d(hidden, hidden, k, stride, k // 2, groups=hidden, bias=False), nn.BatchNorm2d(hidden)]
        after = [MobileV3SE(hidden) if se else nn.Identity(), act()]
        last = [nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup)]
        if inp == hidden:
            self.conv = nn.Sequential(*depthwise, act(), MobileV3SE(hidden) if se else nn.Identity(), *last)
        else:
            first = [nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()]
            self.conv = nn.Sequential(*first, *depthwise, *after, *last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class MobileNetV3(nn.Module):
    """Stem, blocks, a last convolution, and a classifier of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish(),
            MobileV3Block(12, 12, 12, 3, 1, True, False), MobileV3Block(12, 20, 16, 5, 2, True, True),
            MobileV3Block(16, 28, 16, 3, 1, False, True),
        )  # fmt: skip
        self.conv = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish())
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Linear(32, 20), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(20, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.conv(self.features(x)))
        return self.classifier(x.view(x.size(0), -1))


class MBConv(nn.Module):
    """EfficientNet (PyTorch port): squeeze-excite on the width before widening, residual with drop connect."""

    def __init__(self, before: int, after: int, expand: int, k: int, s: int, se_ratio: float = 0.25) -> None:
        super().__init__()
        self._expand, self._stride, self._same = expand, s, s == 1 and before == after
        oup = before * expand
        if expand != 1:
            self._expand_conv, self._bn0 = nn.Conv2d(before, oup, 1, bias=False), nn.BatchNorm2d(oup)
        self._depthwise_conv = nn.Conv2d(oup, oup, k, s, k // 2, groups=oup, bias=False)
        self._bn1 = nn.BatchNorm2d(oup)
        squeezed = max(1, int(before * se_ratio))
        self._se_reduce, self._se_expand = nn.Conv2d(oup, squeezed, 1), nn.Conv2d(squeezed, oup, 1)
        self._project_conv, self._bn2 = nn.Conv2d(oup, after, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        if self._expand != 1:
            x = F.silu(self._bn0(self._expand_conv(x)))
        x = F.silu(self._bn1(self._depthwise_conv(x)))
        squeezed = self._se_expand(F.silu(self._se_reduce(F.adaptive_avg_pool2d(x, 1))))
        x = self._bn2(self._project_conv(torch.sigmoid(squeezed) * x))
        return x + inputs if self._same else x


def efficient_net() -> nn.Module:
    stem = [nn.Conv2d(3, 20, 3, 2, 1, bias=False), nn.BatchNorm2d(20), nn.SiLU()]
    blocks = [MBConv(20, 16, 1, 3, 1), MBConv(16, 28, 3, 5, 2), MBConv(28, 28, 2, 3, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(28, 5))


class Res2Block(nn.Module):
    """Res2Net: the channels are split by width; each piece goes through a convolution with the one before added."""

    def __init__(self, inplanes: int, width: int, scale: int = 3) -> None:
        super().__init__()
        self.width, self.nums = width, scale - 1
        self.conv1, self.bn1 = nn.Conv2d(inplanes, width * scale, 1, bias=False), nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(self.nums))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(self.nums))
        self.conv3, self.bn3 = nn.Conv2d(width * scale, inplanes, 1, bias=False), nn.BatchNorm2d(inplanes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        spx = torch.split(out, self.width, 1)
        sp = spx[0]
        for i in range(self.nums):
            if i > 0:
                sp = sp + spx[i]
            sp = F.relu(self.bns[i](self.convs[i](sp)))
            out = sp if i == 0 else torch.cat((out, sp), 1)
        out = torch.cat((out, spx[self.nums]), 1)
        return F.relu(self.bn3(self.conv3(out)) + x)


def res2net() -> nn.Module:
    stem = [nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    blocks = [Res2Block(12, 6), Res2Block(12, 8)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


class SelectiveKernel(nn.Module):
    """SKNet: softmax between two branches, channel by channel; the weights are stacked and taken apart."""

    def __init__(self, features: int = 12, squeezed: int = 6) -> None:
        super().__init__()
        self.features, self.M = features, 2
        self.stem = nn.Sequential(nn.Conv2d(3, features, 3, 2, 1), nn.ReLU())
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, features, 3, 1, 1 + i, dilation=1 + i), nn.BatchNorm2d(features), nn.ReLU()
            )
            for i in range(self.M)
        )
        self.fc = nn.Linear(features, squeezed)
        self.fcs = nn.ModuleList(nn.Linear(squeezed, features) for _ in range(self.M))
        self.last = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        feats = torch.stack([conv(x) for conv in self.convs], dim=1)
        z = self.fc(feats.sum(dim=1).mean(-1).mean(-1))
        vectors = torch.cat([fc(z).unsqueeze(dim=1) for fc in self.fcs], dim=1).softmax(dim=1)
        return self.last((feats * vectors.unsqueeze(-1).unsqueeze(-1)).sum(dim=1).mean((2, 3)))


class CoordinateAttention(nn.Module):
    """Pooled along rows and along columns, concatenated, squeezed, and split again."""

    def __init__(self, width: int = 28, mip: int = 20) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.pool_h, self.pool_w = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.conv1, self.bn1 = nn.Conv2d(width, mip, 1), nn.BatchNorm2d(mip)
        self.conv_h, self.conv_w = nn.Conv2d(mip, width, 1), nn.Conv2d(mip, width, 1)
        self.last = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        _, _, h, w = x.size()
        y = torch.cat([self.pool_h(x), self.pool_w(x).permute(0, 1, 3, 2)], dim=2)
        x_h, x_w = torch.split(F.hardswish(self.bn1(self.conv1(y))), [h, w], dim=2)
        x = x * self.conv_h(x_h).sigmoid() * self.conv_w(x_w.permute(0, 1, 3, 2)).sigmoid()
        return self.last(x.mean((2, 3)))


class SrResNet(nn.Module):
    """Residual blocks with batch norm and PReLU, a long skip, pixel shuffle."""

    def __init__(self, width: int = 12, hidden: int = 10) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(3, width, 5, padding=2), nn.PReLU())
        self.residual = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.PReLU(hidden),
                nn.Conv2d(hidden, width, 3, padding=1), nn.BatchNorm2d(width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.upsample = nn.Sequential(nn.Conv2d(width, 8 * 4, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        self.last = nn.Conv2d(8, 3, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.block1(x)
        x = first
        for block in self.residual:
            x = x + block(x)
        return (torch.tanh(self.last(self.upsample(first + x))) + 1) / 2


def generator(latent: int = 4) -> nn.Module:
    """DCGAN: from noise of shape (latent, 1, 1) to a picture, by transposed convolutions."""
    return nn.Sequential(
        nn.ConvTranspose2d(latent, 18, 4, 1, 0, bias=False), nn.BatchNorm2d(18), nn.ReLU(True),
        nn.ConvTranspose2d(18, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(True),
        nn.ConvTranspose2d(12, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


class Projector(nn.Module):
    """A generator that starts with a linear layer and views it as a picture of channels it keeps."""

    def __init__(self, latent: int = 5, width: int = 14) -> None:
        super().__init__()
        self.width, self.init_size = width, 2
        self.l1 = nn.Linear(latent, width * self.init_size**2)
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(width), nn.Upsample(scale_factor=2),
            nn.Conv2d(width, 12, 3, padding=1), nn.BatchNorm2d(12, 0.8), nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2), nn.Conv2d(12, 3, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        out = self.l1(z)
        return self.conv_blocks(out.view(out.shape[0], self.width, self.init_size, self.init_size))


def discriminator() -> nn.Module:
    """Strided convolutions, leaky activations, one number."""
    return nn.Sequential(
        nn.Conv2d(3, 10, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(10, 14, 4, 2, 1, bias=False), nn.BatchNorm2d(14), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(14, 1, 2, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0),
    )  # fmt: skip


class ConditionalBatchNorm(nn.Module):
    """BigGAN: gain and shift of each channel come from the class."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.bn = nn.BatchNorm2d(num_features, affine=False)
        self.embed = nn.Embedding(num_classes, num_features * 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gamma, beta = self.embed(y).chunk(2, 1)
        return gamma.view(-1, self.num_features, 1, 1) * self.bn(x) + beta.view(-1, self.num_features, 1, 1)


class ConditionalGenerator(nn.Module):
    """Residual up-blocks with conditional batch norm."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12 * 4)
        self.bn1, self.conv1 = ConditionalBatchNorm(12, classes), nn.Conv2d(12, 10, 3, padding=1)
        self.bn2, self.conv2 = ConditionalBatchNorm(10, classes), nn.Conv2d(10, 8, 3, padding=1)
        self.skip = nn.Conv2d(12, 8, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.first(z).view(z.size(0), -1, 2, 2)
        h = self.conv1(F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2))
        h = self.conv2(F.relu(self.bn2(h, y)))
        return torch.tanh(self.last(F.relu(h + self.skip(F.interpolate(x, scale_factor=2)))))


def noise_and_class(generator: Generator) -> Example:
    (noise,), _ = floats((2, 5))(generator)
    return (noise, torch.tensor([1, 3])), {}


class FilmResidual(nn.Module):
    """FiLM (Perez et al. 2018): a question, read by a GRU, modulates each residual block."""

    def __init__(self, width: int = 10, blocks: int = 2) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(12, 8), nn.GRU(8, 14, batch_first=True)
        self.film = nn.Linear(14, 2 * width * blocks)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.conv2 = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.bn = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for _ in range(blocks))
        self.blocks = blocks
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor, question: Tensor) -> Tensor:
        _, state = self.gru(self.embed(question))
        film = self.film(state[-1]).view(x.size(0), self.blocks, 2, -1, 1, 1)
        x = F.relu(self.stem(x))
        for i in range(self.blocks):
            gamma, beta = film[:, i, 0], film[:, i, 1]
            x = F.relu(self.conv1[i](x))
            x = x + F.relu(gamma * self.bn[i](self.conv2[i](x)) + beta)
        return self.last(x.amax((2, 3)))


def picture_and_question(generator: Generator) -> Example:
    (x,), _ = pictures()(generator)
    return (x, torch.randint(12, (2, 4), generator=generator)), {}


class Vae(nn.Module):
    """Mean and log-variance, a sample (the mean, in evaluation), and a decoder; a tuple goes out."""

    def __init__(self, hidden: int = 16, latent: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 10, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(40, hidden),
        )
        self.fc_mu, self.fc_logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder_input = nn.Linear(latent, 40)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (10, 2, 2)),
            nn.ConvTranspose2d(10, 12, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 3, 4, 2, 1),
        )

    def reparameterise(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A sample while training."""
        if self.training:
            return mu + torch.exp(0.5 * logvar) * torch.randn_like(logvar)
        return mu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.encoder(x))
        mu, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)
        divergence = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1)
        return torch.sigmoid(self.decoder(self.decoder_input(self.reparameterise(mu, logvar)))), divergence


class SimSiam(nn.Module):
    """Two views, one encoder, a projector and a predictor; gradients stop at one side."""

    def __init__(self, dim: int = 18, bottleneck: int = 10) -> None:
        super().__init__()
        convolution = [nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()]
        self.encoder = nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(16, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, dim))
        self.predictor = nn.Sequential(nn.Linear(dim, bottleneck), nn.ReLU(), nn.Linear(bottleneck, dim))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        z1, z2 = self.projector(self.encoder(x1)), self.projector(self.encoder(x2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return -(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())) * 0.5


class MultiTask(nn.Module):
    """One trunk; a score for each pixel, a class, and a few numbers, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 12, 3, 2, 1), nn.ReLU()
        )
        self.pixels = nn.Sequential(nn.ConvTranspose2d(12, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 3, 1))
        self.heads = nn.ModuleDict(
            {
                "kind": nn.Sequential(nn.Linear(12, 14), nn.ReLU(), nn.Linear(14, 4)),
                "pose": nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 2)),
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"pixels": self.pixels(x)} | {name: head(pooled) for name, head in self.heads.items()}


class Fire(nn.Module):
    """SqueezeNet: squeeze, then 1×1 and 3×3 side by side."""

    def __init__(self, inplanes: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.inplanes = inplanes
        self.squeeze = nn.Conv2d(inplanes, squeeze, kernel_size=1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, kernel_size=1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def squeezenet() -> nn.Module:
    """The classifier is a convolution, and its pool comes after it."""
    body = [
        nn.Conv2d(3, 10, 3, 2),
        nn.ReLU(True),
        Fire(10, 6, 8, 9),
        nn.MaxPool2d(2, ceil_mode=True),
        Fire(17, 5, 7, 8),
    ]
    return nn.Sequential(
        *body, nn.Dropout(0.5), nn.Conv2d(15, 4, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    )


class UNet3d(nn.Module):
    """Volumes: group norm, maximum pooling, transposed convolution, skip by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU())
        self.enc2 = nn.Sequential(nn.Conv3d(6, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.ReLU())
        self.pool, self.up = nn.MaxPool3d(2), nn.ConvTranspose3d(12, 8, 2, 2)
        self.dec = nn.Sequential(nn.Conv3d(14, 10, 3, padding=1), nn.InstanceNorm3d(10), nn.LeakyReLU())
        self.out = nn.Conv3d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc1(x)
        x = self.up(self.enc2(self.pool(skip)))
        return self.out(self.dec(torch.cat((skip, x), dim=1)))


class Conv2Plus1D(nn.Sequential):
    """R(2+1)D: in space, then in time."""

    def __init__(self, before: int, mid: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(before, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(mid),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid, after, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class VideoResNet(nn.Module):
    """A residual block in space and time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv2Plus1D(3, 7, 8), nn.BatchNorm3d(8), nn.ReLU(inplace=True))
        self.conv1 = nn.Sequential(Conv2Plus1D(8, 10, 12, 2), nn.BatchNorm3d(12), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(Conv2Plus1D(12, 9, 12), nn.BatchNorm3d(12))
        self.downsample = nn.Sequential(nn.Conv3d(8, 12, 1, 2, bias=False), nn.BatchNorm3d(12))
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.conv2(self.conv1(x)) + self.downsample(x))
        return self.fc(F.adaptive_avg_pool3d(x, (1, 1, 1)).flatten(1))


class Chomp1d(nn.Module):
    """The padding at the end goes."""

    def __init__(self, chomp_size: int) -> None:
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalBlock(nn.Module):
    """TCN: causal dilated convolutions, a residual."""

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int, dilation: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(n_inputs, hidden, 3, padding=2 * dilation, dilation=dilation), Chomp1d(2 * dilation), nn.ReLU(),
            nn.Conv1d(hidden, n_outputs, 3, padding=2 * dilation, dilation=dilation), Chomp1d(2 * dilation), nn.ReLU(),
        )  # fmt: skip
        self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None

    def forward(self, x: Tensor) -> Tensor:
        res = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + res)


class Tcn(nn.Module):
    """Two blocks, a linear layer on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.tcn = nn.Sequential(TemporalBlock(3, 8, 10, 1), TemporalBlock(10, 9, 10, 2))
        self.linear = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.tcn(x)[:, :, -1])


class WaveNet(nn.Module):
    """Gated dilated convolutions; residual and skip paths; the skips are summed."""

    def __init__(self, residual: int = 8, gate: int = 6, skip: int = 10, layers: int = 3) -> None:
        super().__init__()
        self.causal = nn.Conv1d(4, residual, 1)
        self.filters = nn.ModuleList(nn.Conv1d(residual, gate, 2, dilation=2**i) for i in range(layers))
        self.gates = nn.ModuleList(nn.Conv1d(residual, gate, 2, dilation=2**i) for i in range(layers))
        self.residuals = nn.ModuleList(nn.Conv1d(gate, residual, 1) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Conv1d(gate, skip, 1) for _ in range(layers))
        self.end1, self.end2 = nn.Conv1d(skip, 12, 1), nn.Conv1d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.causal(x)
        total: Tensor | float = 0.0
        for f, g, r, s in zip(self.filters, self.gates, self.residuals, self.skips, strict=True):
            z = torch.tanh(f(x)) * torch.sigmoid(g(x))
            skip = s(z)
            total = skip if isinstance(total, float) else total[:, :, -skip.size(2) :] + skip
            x = r(z) + x[:, :, -z.size(2) :]
        return self.end2(F.relu(self.end1(F.relu(total))))


class GlobalLayerNorm(nn.Module):
    """Conv-TasNet's norm over channels and time."""

    def __init__(self, channel_size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channel_size, 1))
        self.beta = nn.Parameter(torch.zeros(1, channel_size, 1))

    def forward(self, y: Tensor) -> Tensor:
        mean = y.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        var = (torch.pow(y - mean, 2)).mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        return self.gamma * (y - mean) / torch.pow(var + 1e-8, 0.5) + self.beta


class ConvTasNet(nn.Module):
    """Separation: a learned filter bank, depthwise-separable blocks, masks for each speaker, and the way back."""

    def __init__(self, n: int = 12, b: int = 8, h: int = 14, speakers: int = 2) -> None:
        super().__init__()
        self.speakers, self.n = speakers, n
        self.encoder = nn.Conv1d(1, n, 4, stride=2, bias=False)
        self.norm, self.bottleneck = GlobalLayerNorm(n), nn.Conv1d(n, b, 1, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(b, h, 1, bias=False), nn.PReLU(), GlobalLayerNorm(h),
                nn.Conv1d(h, h, 3, padding=2**i, dilation=2**i, groups=h, bias=False), nn.PReLU(), GlobalLayerNorm(h),
                nn.Conv1d(h, b, 1, bias=False),
            )
            for i in range(2)
        )  # fmt: skip
        self.mask_conv = nn.Conv1d(b, speakers * n, 1, bias=False)
        self.decoder = nn.ConvTranspose1d(n, 1, 4, stride=2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        w = F.relu(self.encoder(mixture))
        x = self.bottleneck(self.norm(w))
        for block in self.blocks:
            x = x + block(x)
        batch, _, steps = w.size()
        mask = F.relu(self.mask_conv(x).view(batch, self.speakers, self.n, steps))
        sources = w.unsqueeze(1) * mask
        return self.decoder(sources.view(batch * self.speakers, self.n, steps)).view(batch, self.speakers, -1)


class TNet(nn.Module):
    """PointNet's transform: a small network predicts a matrix, and the identity is added.

    The reference code views the pooled features by a literal, which no surgeon reaches: that axis stays.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(k, 8, 1), nn.Conv1d(8, 12, 1)
        self.fc1, self.fc2 = nn.Linear(12, 10), nn.Linear(10, k * k)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 12)
        x = self.fc2(F.relu(self.fc1(x)))
        identity = torch.eye(self.k, dtype=x.dtype, device=x.device).flatten().repeat(x.size(0), 1)
        return (x + identity).view(-1, self.k, self.k)


class PointNet(nn.Module):
    """Points, turned; 1-D convolutions; the maximum over points is joined to each point for segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.stn = TNet(3)
        self.conv1, self.bn1 = nn.Conv1d(3, 10, 1), nn.BatchNorm1d(10)
        self.conv2, self.bn2 = nn.Conv1d(10, 16, 1), nn.BatchNorm1d(16)
        self.seg1, self.seg2 = nn.Conv1d(26, 14, 1), nn.Conv1d(14, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        n = x.size(2)
        x = torch.bmm(x.transpose(2, 1), self.stn(x)).transpose(2, 1)
        local = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(local))
        x = torch.max(x, 2, keepdim=True)[0].expand(-1, -1, n)
        return self.seg2(F.relu(self.seg1(torch.cat([x, local], 1))))


class SpatialTransformer(nn.Module):
    """An affine map is predicted, and the features are sampled where it says."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.localisation = nn.Sequential(
            nn.Conv2d(10, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6)
        )
        self.last = nn.Conv2d(10, 12, 3)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        theta = self.localisation(x).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False), align_corners=False)
        return self.fc(F.relu(self.last(x)).mean((2, 3)))


def grouped_upsampler() -> nn.Module:
    """Transposed convolutions in groups, and one for each channel."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(12, 18, 4, 2, 1, groups=3), nn.BatchNorm2d(18), nn.ReLU(),
        nn.ConvTranspose2d(18, 18, 2, 2, groups=18, bias=False), nn.Conv2d(18, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1),
    )  # fmt: skip


def noise_and_time(generator: Generator) -> Example:
    (x,), _ = pictures()(generator)
    return (x, torch.tensor([3.0, 250.0], dtype=torch.float64)), {}


DIFFUSION = (14, 10, 9, 9)
SWIN = (3, 4, 20, 22, 4, 4, 24)
ENTRIES = (
    Entry(
        "diffusion_unet",
        "diffusion",
        DiffusionUNet,
        noise_and_time,
        DIFFUSION,
        cnn=True,
        statistics=(2, 3, 4, 6),
        slow=True,
    ),
    Entry("swin", "ViT", Swin, pictures(), SWIN, statistics=(3, 4)),
    Entry("vit_timm", "ViT", TimmVit, pictures(), (12, 20, 22, 3, 4, 3, 4), statistics=(12,)),
    Entry("gmlp", "MLP-Mixer", gmlp_head, floats((2, 4, 7)), (12, 18, 16), statistics=(12, 16, 18)),
    Entry("conv_mixer", "depthwise", conv_mixer, pictures(), (40, 40, 40), cnn=True),
    Entry("rep_vgg", "residual", rep_vgg, pictures(), (8, 12), cnn=True),
    Entry("mobilenet_v3", "depthwise", MobileNetV3, pictures(), (12, 4, 20, 8, 16, 28, 32, 20), cnn=True),
    Entry("efficient_net", "squeeze-excite", efficient_net, pictures(), (20, 5, 16, 48, 4, 28, 56, 7), cnn=True),
    Entry("res2net", "split", res2net, pictures(), (12, 6, 6, 8, 8), cnn=True),
    Entry("selective_kernel", "gating", SelectiveKernel, pictures(), (12, 12, 6), cnn=True),
    Entry("coordinate_attention", "gating", CoordinateAttention, pictures(), (28, 20), cnn=True),
    Entry("sr_resnet", "pixel shuffle", SrResNet, pictures(size=6), (12, 10, 10, 8), cnn=True),
    Entry("gan_generator", "transposed convolution", generator, floats((2, 4, 1, 1)), (18, 12), cnn=True),
    Entry("gan_projector", "transposed convolution", Projector, floats((2, 5)), (14, 12), cnn=True),
    Entry("gan_discriminator", "plain", discriminator, pictures(), (10, 14), cnn=True),
    Entry("conditional_batch_norm", "conditional", ConditionalGenerator, noise_and_class, (12, 10, 8), cnn=True),
    Entry("film_residual", "conditional", FilmResidual, picture_and_question, (8, 14, 10, 10), cnn=True),
    Entry("vae", "transposed convolution", Vae, pictures(), (8, 10, 16, 4, 10, 12), cnn=True),
    Entry(
        "simsiam", "reuse", SimSiam, floats((2, 3, 8, 8), (2, 3, 8, 8)), (16, 20, 18, 10), cnn=True, statistics=(18,)
    ),
    Entry("multi_task", "multi-output", MultiTask, pictures(), (10, 12, 8, 14, 9), cnn=True),
    Entry("squeezenet", "Inception", squeezenet, pictures(size=12), (10, 6, 8, 9, 5, 7, 8), cnn=True),
    Entry("unet_3d", "3-D", UNet3d, floats((2, 1, 4, 4, 4)), (6, 3, 4, 8, 10), cnn=True, statistics=(4,)),
    Entry("video_resnet", "3-D", VideoResNet, floats((2, 3, 4, 6, 6)), (7, 8, 10, 12, 12, 9), cnn=True),
    Entry("tcn", "1-D", Tcn, floats((2, 3, 9)), (8, 10, 9), cnn=True),
    Entry("wavenet", "1-D", WaveNet, floats((2, 4, 12)), (8, 6, 6, 6, 10, 12), cnn=True),
    Entry("conv_tasnet", "1-D", ConvTasNet, floats((2, 1, 16)), (12, 8, 14, 14), cnn=True, statistics=(12, 14)),
    Entry("pointnet", "1-D", PointNet, floats((2, 3, 7)), (8, 10, 10, 16, 14), cnn=True),
    Entry("spatial_transformer", "sampling", SpatialTransformer, pictures(), (10, 8, 12), cnn=True),
    Entry("grouped_upsampler", "transposed convolution", grouped_upsampler, pictures(size=4), (3, 4, 6, 8), cnn=True),
)
