"""Habits of code that hide what a size is of: statistics of weights, empty slices, two names of one module …"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats, pictures


class ByBatchNorm(nn.Conv2d):
    """Weights standardised by batch norm, each output channel a channel of it (BiT, NFNet)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ByVarMean(nn.Conv2d):
    """The same, by both statistics at once (BiT as it was published)."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        return F.conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-8), self.bias, self.stride, self.padding)


class ByLayerNorm(nn.Conv2d):
    """The same, by a layer norm of each filter, and by the largest entry of it."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.layer_norm(self.weight, self.weight.shape[1:])
        return F.conv2d(x, weight / weight.abs().amax((1, 2, 3), keepdim=True), self.bias, padding=self.padding)


def standardised(conv: type[nn.Conv2d]) -> nn.Module:
    """Two standardised convolutions, the first on the picture itself."""
    return nn.Sequential(
        conv(3, 12, 3), nn.SiLU(), conv(12, 10, 3, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(10, 5),
    )  # fmt: skip


class Windows(nn.Module):
    """A mask of shifted windows, written where nothing is shifted; a rotation of a whole head, the rest of it empty."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.window, self.shift, self.heads = 4, shift, 3
        self.q, self.k, self.v = nn.Linear(9, 18), nn.Linear(9, 18), nn.Linear(9, 18)
        self.out = nn.Linear(18, 5)

    def rotate(self, x: Tensor) -> Tensor:
        """The first entries of a head are rotated, the rest (none) passes."""
        size = x.shape[-1]
        turned, rest = x[..., :size], x[..., size:]
        return torch.cat([-turned, rest], -1)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        mask = x.new_zeros((1, 1, length, 1))
        parts = (slice(-self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        for count, part in enumerate(parts):
            mask[:, :, part] = count
        q, k, v = (layer(x).view(batch, length, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v + mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1).relu())


class Block(nn.Module):
    """A convolution and a norm that checks its number of channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(before, after, 3, padding=1), nn.InstanceNorm2d(after, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class TwoNames(nn.Module):
    """Blocks that stand in a list and in the chain that is run (DynUNet)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = Block(3, 12), Block(12, 10)
        self.chain = nn.Sequential(*blocks)
        self.blocks = nn.ModuleList(blocks)
        self.again = self.blocks[1]
        self.out = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.blocks[0](x)) + self.chain(x))


class Lent(nn.Module):
    """Numbers that borrow the type of a tensor, whatever its shape (DeBERTa)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 14), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        floor = torch.tensor(0.1).type_as(y)
        return self.last(torch.where(y > 0, y, floor.to(y)) + torch.tensor([1]).to(x))


class Contracted(nn.Module):
    """Products that name the dimensions to sum over, and those of the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.mix, self.rows = nn.Parameter(torch.randn(10, 12)), nn.Parameter(torch.randn(7, 10))
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tensordot(F.relu(self.first(x)), self.mix, dims=([2], [1]))
        return self.last(F.relu(torch.inner(y, self.rows)))


class Rounded(nn.Module):
    """Quantisation-aware training: weights rounded channel by channel, activations by one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 10, 3), nn.Linear(10, 5)
        for name, channels in (("conv1", 12), ("conv2", 10)):
            self.register_buffer(f"{name}_scale", torch.full((channels,), 0.01))
            self.register_buffer(f"{name}_zero", torch.zeros(channels, dtype=torch.int32))

    def rounded(self, name: str, x: Tensor) -> Tensor:
        """A convolution with rounded weights and outputs."""
        conv, scale, zero = (getattr(self, name + suffix) for suffix in ("", "_scale", "_zero"))
        weight = torch.fake_quantize_per_channel_affine(conv.weight, scale.float(), zero, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(F.relu(F.conv2d(x, weight, conv.bias)), 0.02, 3, 0, 255)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rounded("conv2", self.rounded("conv1", x)).mean((2, 3)))


class ChannelConvolution(nn.Module):
    """ECA: the channels are weighed by a convolution that runs over them, so that their order counts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weigh, self.last = (
            nn.Conv2d(3, 8, 3),
            nn.Conv1d(1, 1, 3, padding=1, bias=False),
            nn.Conv2d(8, 12, 3),
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.weigh(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)
        return self.head(F.relu(self.last(x * gate)).mean((2, 3)))


class Heads(nn.Module):
    """Attention whose heads have the size of the trunk over their number, however its layers are written."""

    def __init__(self, fused: bool, dim: int = 18, heads: int = 3) -> None:
        super().__init__()
        self.fused, self.dim, self.num_heads = fused, dim, heads
        self.layers = nn.ModuleList([nn.Linear(dim, 3 * dim)] if fused else [nn.Linear(dim, dim) for _ in range(3)])
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        if self.fused:
            shape = batch, length, 3, self.num_heads, width // self.num_heads
            q, k, v = self.layers[0](x).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            shape = batch, length, self.num_heads, self.dim // self.num_heads
            q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in self.layers)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, length, -1 if self.fused else width))


class HeadsOfTheTrunk(nn.Module):
    """Two blocks of it on one trunk, one layer for all three products or one for each (CrossViT, CaiT, Swin V2)."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(7, 18), nn.LayerNorm(18)
        self.one, self.two, self.head = Heads(fused), Heads(fused), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.one(self.norm(x))
        return self.head((x + self.two(x)).mean(1))


class PartialBlock(nn.Module):
    """Only the first channels of the trunk attend (SHViT); the others are convolved (FasterNet)."""

    def __init__(self, dim: int, part: int, size: int) -> None:
        super().__init__()
        self.dim, self.part, self.size, self.scale = dim, part, size, size**-0.5
        self.norm, self.qkv = nn.GroupNorm(1, part), nn.Conv2d(part, 2 * size + part, 1)
        self.conv = nn.Conv2d(dim - part, dim - part, 3, padding=1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        one, _ = torch.split(x, [self.part, self.dim - self.part], dim=1)
        two = x[:, self.part - channels :]
        q, k, v = torch.split(self.qkv(self.norm(one)), [self.size, self.size, self.part], dim=1)
        weights = (q.flatten(2).transpose(1, 2) @ k.flatten(2) * self.scale).softmax(-1)
        one = (v.flatten(2) @ weights.transpose(1, 2)).reshape(batch, self.part, height, width)
        return x + self.proj(F.relu(torch.cat([one, self.conv(two)], dim=1)))


class Partial(nn.Module):
    """Two such blocks: one number is the size of a part of the trunk and of the values of each block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 20, 3), nn.Linear(20, 5)
        self.blocks = nn.Sequential(PartialBlock(20, 8, 4), PartialBlock(20, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Uneven(nn.Module):
    """A trunk in three pieces that are not alike, and heads over it (EdgeNeXt): it stays, the rest does not."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.stem, self.conv = nn.Conv2d(3, 22, 3), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.qkv, self.up, self.down = nn.Linear(22, 66), nn.Linear(22, 16), nn.Linear(16, 22)
        self.last, self.head = nn.Conv2d(22, 14, 1), nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        one, two, three = x.chunk(3, dim=1)
        y = torch.cat([self.conv(one), self.conv(one + two), three], 1)
        batch, width, rows, columns = y.shape
        y = y.reshape(batch, width, rows * columns).transpose(1, 2)
        q, k, v = self.qkv(y).reshape(batch, rows * columns, 3, self.heads, -1).permute(2, 0, 3, 4, 1)
        z = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        y = y + z.permute(0, 3, 1, 2).reshape(batch, rows * columns, width)
        y = self.down(F.relu(self.up(y))).transpose(1, 2).reshape(x.shape)
        return self.head(F.relu(self.last(x + y)).mean((2, 3)))


class Interleaved(nn.Module):
    """Every second channel gates the one before it; a head's entries lie in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 20), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y[..., ::2] * y[..., 1::2].sigmoid())


class Tables(nn.Module):
    """Positions in a plain tensor, as old transformers hold them; sizes in tensors (RAFT); a square one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.one, self.two = nn.Linear(6, 14), nn.Linear(14, 10), nn.Linear(14, 10)
        self.mix, self.head = nn.Linear(14, 12), nn.Linear(12, 5)
        self.inner = nn.Module()
        angles = torch.arange(5, dtype=torch.float64)[:, None] / 10 ** torch.linspace(0, 3, 14, dtype=torch.float64)
        self.inner.positions = angles.sin()[None]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.inner.positions.expand(x.shape[0], -1, -1).detach().clone().to(x)
        one, two = self.one(x), self.two(x)
        weights = one @ two.transpose(1, 2) / torch.sqrt(torch.tensor(one.shape[-1]))
        x = weights.softmax(-1) @ x @ (2 * torch.eye(x.shape[-1], dtype=x.dtype))
        return self.head(F.relu(self.mix(x)).mean(1))


class MadeTable(nn.Module):
    """A table that the code makes of a size: another size, another table; so it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 14), nn.Linear(14, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x * torch.tensor([1 / (1 + i) for i in range(x.shape[-1])], dtype=x.dtype)
        return self.head(F.relu(self.mix(x)))


class Radix(nn.Module):
    """ResNeSt's split attention: with one split its code takes another way, so that the splits stay."""

    def __init__(self, channels: int = 12, radix: int = 2) -> None:
        super().__init__()
        self.radix = radix
        self.stem = nn.Conv2d(3, 16, 3)
        self.conv = nn.Conv2d(16, channels * radix, 3, padding=1, groups=radix)
        self.fc1, self.fc2 = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels * radix, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        batch, channels, height, width = x.shape
        if self.radix > 1:
            x = x.reshape(batch, self.radix, channels // self.radix, height, width)
            pooled = x.sum(1).mean((2, 3), keepdim=True)
        else:
            pooled = x.mean((2, 3), keepdim=True)
        weights = self.fc2(F.relu(self.fc1(pooled))).view(batch, 1, self.radix, -1).transpose(1, 2)
        weights = (weights.softmax(1) if self.radix > 1 else weights.sigmoid()).reshape(batch, -1, 1, 1)
        if self.radix > 1:
            x = (x * weights.reshape(batch, self.radix, channels // self.radix, 1, 1)).sum(1)
        else:
            x = x * weights
        return self.head(x.mean((2, 3)))


class AttentionPool(nn.Module):
    """A picture pooled by attention through PyTorch's function, its layers' weights handed over one by one (CLIP).

    The width is that of what comes in, or one that the module holds (WavLM), which the function compares with it.
    """

    def __init__(self, dim: int = 18, heads: int = 3, held: bool = False) -> None:
        super().__init__()
        self.num_heads, self.width, self.held = heads, dim, held
        self.stem, self.positions = nn.Conv2d(3, dim, 3), nn.Parameter(torch.zeros(17, dim))
        self.q, self.k, self.v, self.c = (
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, 10),
        )
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.positions[:, None]
        y, _ = F.multi_head_attention_forward(
            x[:1], x, x, self.width if self.held else x.shape[-1], self.num_heads, None,
            torch.cat([self.q.bias, self.k.bias, self.v.bias]), None, None, False, 0.0, self.c.weight, self.c.bias,
            training=self.training, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
        )  # fmt: skip
        return self.head(F.relu(y[0]))


class SplitHeads(nn.Module):
    """Lays out heads as it was told, and is built anew from what it was told where it is copied (einops)."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        self.lengths = lengths
        self._lengths = tuple(lengths.items())

    def __getstate__(self) -> dict[str, Any]:
        return {"lengths": self.lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["lengths"])  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        [(_, heads)] = self._lengths
        return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


class MadeAnew(nn.Module):
    """Attention with such a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(7, 18), nn.Linear(18, 5)
        self.split = SplitHeads(heads=3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.split(self.query(x))
        y = (q @ q.transpose(2, 3)).softmax(-1) @ q
        return self.out(y.transpose(1, 2).flatten(2))


class Patched(nn.Module):
    """Patches of a picture become channels, twice, by views (Twins): weights hold parts of its sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (27, 40))
        self.layers = nn.ModuleList([nn.Linear(27, 10), nn.Linear(40, 12)])
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        for side, norm, layer in zip((3, 2), self.norms, self.layers, strict=True):
            b, c, h, w = x.shape
            x = x.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5).flatten(3)
            x = F.relu(layer(norm(x))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Transposed(nn.Module):
    """Attention whose one weight is (in, out), as GPT-2 holds it, and whose scale is the operator's own."""

    def __init__(self, dim: int = 18, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.out, self.head = nn.Linear(7, dim), nn.Linear(dim, dim), nn.Linear(dim, 5)
        self.weight, self.bias = nn.Parameter(torch.zeros(dim, 3 * dim)), nn.Parameter(torch.zeros(3 * dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:2], -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in y.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.head(F.relu(x + self.out(y.transpose(1, 2).flatten(2))))


ENTRIES = (
    Entry(
        "standardised_by_batch_norm",
        "habits",
        lambda: standardised(ByBatchNorm),
        pictures(),
        (12, 10),
        statistics=(12,),
    ),
    Entry(
        "standardised_by_var_mean", "habits", lambda: standardised(ByVarMean), pictures(), (12, 10), statistics=(12,)
    ),
    Entry(
        "standardised_by_layer_norm",
        "habits",
        lambda: standardised(ByLayerNorm),
        pictures(),
        (12, 10),
        statistics=(12, 10),
    ),
    Entry("empty_slices", "habits", Windows, floats((2, 7, 9)), (3, 6, 6)),
    Entry("two_names", "habits", TwoNames, pictures(), (12, 10)),
    Entry("lent_types", "habits", Lent, floats((2, 6)), (14,)),
    Entry("contracted", "habits", Contracted, floats((2, 4, 6)), (12, 10, 7)),
    Entry("rounded", "habits", Rounded, pictures(), (12, 10)),
    Entry("channel_convolution", "habits", ChannelConvolution, pictures(), (12,), {8: "kernel"}),
    Entry("heads_of_the_trunk", "habits", lambda: HeadsOfTheTrunk(False), floats((2, 4, 7)), (3, 6), statistics=(3, 6)),
    Entry(
        "heads_of_the_trunk_fused",
        "habits",
        lambda: HeadsOfTheTrunk(True),
        floats((2, 4, 7)),
        (3, 6),
        statistics=(3, 6),
    ),
    Entry("partial", "habits", Partial, pictures(), (8, 12, 4, 6), statistics=(8,)),
    Entry("interleaved", "habits", Interleaved, floats((2, 6)), (10,)),
    Entry("uneven", "habits", Uneven, pictures(), (16, 14), {22: "uneven"}),
    Entry("tables", "habits", Tables, floats((2, 5, 6)), (14, 10, 12)),
    Entry("made_table", "habits", MadeTable, floats((2, 6)), (12,), {14: "habits.py"}),
    Entry("radix", "habits", Radix, pictures(), (8, 12, 6), {2: "aten.mean instead of aten.sum"}, statistics=(2,)),
    Entry("made_anew", "habits", MadeAnew, floats((2, 4, 7)), (3, 6), statistics=(6,)),
    Entry("patched", "habits", Patched, pictures(3, 12), (10, 12), statistics=(10,)),
    Entry("attention_pool", "habits", AttentionPool, pictures(3, 6), (3, 6, 10)),
    Entry("attention_pool_held", "habits", lambda: AttentionPool(held=True), pictures(3, 6), (3, 6, 10)),
    Entry("transposed", "habits", Transposed, floats((2, 4, 7)), (18, 3, 6)),
)
