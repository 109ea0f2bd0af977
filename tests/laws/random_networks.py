"""Random networks: a short program of layers, each of which may read any earlier value.

A program is a list of (kind, a, b). Every program is a network: a layer that does not fit what is there is
left out, so that hypothesis shrinks a failure to the few layers that matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["KINDS", "Program", "RandomNet", "programs"]

Step = tuple[str, int, int]
Shape = tuple[int, int]  # channels, pixels along a side


@dataclass(frozen=True)
class Program:
    """What a random network is made from."""

    steps: tuple[Step, ...]
    width: int
    side: int
    flatten: bool


class Act(nn.Module):
    """An activation, some of them not zero at zero."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.function: Callable[[Tensor], Tensor] = (F.relu, torch.sigmoid, F.gelu, F.softplus, torch.cos)[which % 5]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Add(nn.Module):
    """A residual."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Gate(nn.Module):
    """One value gates another."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * torch.sigmoid(y)


class Cat(nn.Module):
    """Two values, one behind the other."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1)


class ChunkGate(nn.Module):
    """The second half gates the first."""

    def forward(self, x: Tensor) -> Tensor:
        x, y = x.chunk(2, dim=1)
        return x * torch.tanh(y)


class SplitSwap(nn.Module):
    """Two parts of sizes that the module keeps, put together the other way round."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.split_sizes = [first, second]

    def forward(self, x: Tensor) -> Tensor:
        x, y = x.split(self.split_sizes, dim=1)
        return torch.cat([F.silu(y), x], dim=1)


class Shuffle(nn.Module):
    """Channel shuffle by view and transpose."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class SqueezeExcite(nn.Module):
    """Pool, two linear layers, scale."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class ChannelsLast(nn.Module):
    """A layer that wants the channels last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TokenMixer(nn.Module):
    """An MLP over the pixels."""

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(pixels, hidden), nn.Linear(hidden, pixels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(x.flatten(2)))).view_as(x)


class Dense(nn.Module):
    """Flatten everything, a linear layer, and back to a picture of other channels."""

    def __init__(self, width: int, after: int, side: int) -> None:
        super().__init__()
        self.after, self.side = after, side
        self.fc = nn.Linear(width * side * side, after * side * side)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)).view(-1, self.after, self.side, self.side)


class Attention(nn.Module):
    """Pixels attend to one another, by heads."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, size
        self.qkv, self.out = nn.Linear(width, 3 * heads * size), nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(n, h * w, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        return x + self.out(y).transpose(1, 2).unflatten(2, (h, w))


class GroupedQueries(nn.Module):
    """Attention whose keys and values serve several heads each."""

    def __init__(self, width: int, kv_heads: int, group: int, size: int) -> None:
        super().__init__()
        self.kv_heads, self.group, self.size = kv_heads, group, size
        self.q, self.kv = nn.Linear(width, kv_heads * group * size), nn.Linear(width, 2 * kv_heads * size)
        self.out = nn.Linear(kv_heads * group * size, width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.reshape(n, c, h * w).transpose(1, 2)
        q = self.q(tokens).view(n, h * w, self.kv_heads * self.group, self.size).transpose(1, 2)
        k, v = self.kv(tokens).view(n, h * w, 2, self.kv_heads, self.size).permute(2, 0, 3, 1, 4)
        k, v = (y.repeat_interleave(self.group, dim=1) for y in (k, v))
        weights = (q @ k.transpose(-2, -1) / self.size**0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(n, h * w, self.kv_heads * self.group * self.size)
        return x + self.out(y).transpose(1, 2).reshape(n, c, h, w)


class TorchAttention(nn.Module):
    """PyTorch's own attention module over the pixels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return x + self.attention(tokens, tokens, tokens, need_weights=False)[0].mT.view_as(x)


class Rows(nn.Module):
    """A recurrent layer over the pixels; both directions, or stacked."""

    def __init__(self, kind: type[nn.RNNBase], width: int, hidden: int, layers: int, both: bool) -> None:
        super().__init__()
        self.rnn = kind(width, hidden, layers, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class Einsum(nn.Module):
    """A factored linear layer, by letters."""

    def __init__(self, width: int, rank: int, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.empty(width, rank)), nn.Parameter(torch.empty(rank, after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nrhw,ro->nohw", torch.einsum("nchw,cr->nrhw", x, self.first), self.second)


class Bare(nn.Module):
    """Parameters without a layer: a scale per channel, a position table, a matrix for F.linear in two slices."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.half = width // 2
        self.scale, self.table = nn.Parameter(torch.empty(width, 1, 1)), nn.Parameter(torch.empty(1, width, side, side))
        self.matrix = nn.Parameter(torch.empty(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = (x * self.scale + self.table).movedim(1, -1)
        y = torch.cat([F.linear(y, self.matrix[: self.half]), F.linear(y, self.matrix[self.half :])], dim=-1)
        return x + y.movedim(-1, 1)


class PadSlice(nn.Module):
    """A shortcut that pads with empty channels, as CIFAR ResNets have, or drops the last ones."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.more)) if self.more > 0 else x[:, : self.more]


class StackMean(nn.Module):
    """Two views of the value, stacked and averaged."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flip(-1), F.relu(x)], dim=1).mean(1)


class Line(nn.Module):
    """A 1-D convolution over the pixels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2)).unflatten(2, x.shape[2:])


class Centre(nn.Module):
    """Less the mean over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Softmax(nn.Module):
    """Channels compete."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(1)


Made = tuple[nn.Module, Shape] | None  # a layer and what it makes, or None where it does not fit


def conv(c: int, s: int, a: int, b: int) -> Made:
    return nn.Conv2d(c, 4 + a, 1 + 2 * (b % 2), padding=b % 2, bias=b < 4), (4 + a, s)


def grouped(c: int, s: int, a: int, b: int) -> Made:
    groups = divisor(c, a)
    after = groups * (1 + b % 4)
    return (nn.Conv2d(c, after, 3, padding=1, groups=groups), (after, s)) if after <= 24 else None


def depthwise(c: int, s: int, a: int, b: int) -> Made:
    return nn.Conv2d(c, c, 3, padding=1, groups=c, bias=a < 4), (c, s)


def transposed(c: int, s: int, a: int, b: int) -> Made:
    groups = divisor(c, b) if b < 4 else 1
    after = groups * (1 + a % 4)
    return (nn.ConvTranspose2d(c, after, 2, stride=2, groups=groups), (after, 2 * s)) if s <= 4 else None


def norm(c: int, s: int, a: int, b: int) -> Made:
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.BatchNorm2d(c, affine=b < 6),
        lambda: nn.GroupNorm(divisor(c, b), c),
        lambda: nn.InstanceNorm2d(c, affine=b < 4),
        lambda: ChannelsLast(nn.LayerNorm(c, elementwise_affine=b < 6)),
        lambda: ChannelsLast(nn.RMSNorm(c, eps=1e-5)),
        lambda: nn.LayerNorm([c, s, s]),
    ]
    return kinds[a % len(kinds)](), (c, s)


def act(c: int, s: int, a: int, b: int) -> Made:
    return (nn.PReLU(c if b % 2 else 1) if a == 7 else Act(a)), (c, s)


def chunk_gate(c: int, s: int, a: int, b: int) -> Made:
    return None if c % 2 else (nn.GLU(1) if a % 2 else ChunkGate(), (c // 2, s))


def split_swap(c: int, s: int, a: int, b: int) -> Made:
    first = 1 + a % max(c - 1, 1)
    return (SplitSwap(first, c - first), (c, s)) if c > 1 else None


def shuffle(c: int, s: int, a: int, b: int) -> Made:
    groups = divisor(c, a)
    return (nn.ChannelShuffle(groups) if b % 2 else Shuffle(groups)), (c, s)


def squeeze_excite(c: int, s: int, a: int, b: int) -> Made:
    return SqueezeExcite(c, 2 + a), (c, s)


def pixel_shuffle(c: int, s: int, a: int, b: int) -> Made:
    return (nn.PixelShuffle(2), (c // 4, 2 * s)) if c % 4 == 0 and s <= 4 else None


def pixel_unshuffle(c: int, s: int, a: int, b: int) -> Made:
    return (nn.PixelUnshuffle(2), (4 * c, s // 2)) if c <= 6 and s >= 4 else None


def pool(c: int, s: int, a: int, b: int) -> Made:
    layer = (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(s // 2), nn.Upsample(scale_factor=0.5))[a % 4]
    return (layer, (c, s // 2)) if s >= 4 else None


def linear(c: int, s: int, a: int, b: int) -> Made:
    return ChannelsLast(nn.Linear(c, 4 + a, bias=b % 2 == 0)), (4 + a, s)


def mlp(c: int, s: int, a: int, b: int) -> Made:
    return ChannelsLast(nn.Sequential(nn.Linear(c, 4 + a), nn.GELU(), nn.Linear(4 + a, 4 + b))), (4 + b, s)


def token_mixer(c: int, s: int, a: int, b: int) -> Made:
    return TokenMixer(s * s, 4 + a), (c, s)


def dense(c: int, s: int, a: int, b: int) -> Made:
    return (Dense(c, 1 + a, s), (1 + a, s)) if s <= 4 else None


def attention(c: int, s: int, a: int, b: int) -> Made:
    return (Attention(c, 2 + a % 3, 3 + b % 4), (c, s)) if s <= 4 else None


def centre(c: int, s: int, a: int, b: int) -> Made:
    return (Centre() if a % 2 else Softmax()), (c, s)


def grouped_queries(c: int, s: int, a: int, b: int) -> Made:
    return (GroupedQueries(c, 1 + a % 3, 1 + b % 3, 2 + a % 4), (c, s)) if s <= 4 else None


def torch_attention(c: int, s: int, a: int, b: int) -> Made:
    return (TorchAttention(c, divisor(c, a)), (c, s)) if s <= 4 else None


def recurrent(c: int, s: int, a: int, b: int) -> Made:
    kind = (nn.LSTM, nn.GRU, nn.RNN)[b % 3]
    both = bool(a % 2)
    return (Rows(kind, c, 3 + a // 2, 1 + b // 4, both), ((1 + both) * (3 + a // 2), s)) if s <= 4 else None


def einsum(c: int, s: int, a: int, b: int) -> Made:
    return Einsum(c, 2 + a, 3 + b), (3 + b, s)


def bare(c: int, s: int, a: int, b: int) -> Made:
    return (Bare(c, s), (c, s)) if c > 1 else None


def pad_slice(c: int, s: int, a: int, b: int) -> Made:
    more = 1 + a % 4 if b % 2 else -1 - a % 4
    return (PadSlice(more), (c + more, s)) if 2 <= c + more <= 24 else None


def stack_mean(c: int, s: int, a: int, b: int) -> Made:
    return StackMean(), (c, s)


def line(c: int, s: int, a: int, b: int) -> Made:
    groups = divisor(c, b)
    return Line(nn.Conv1d(c, groups * (1 + a % 3), 3, padding=1, groups=groups)), (groups * (1 + a % 3), s)


UNARY: dict[str, Callable[[int, int, int, int], Made]] = {
    made.__name__: made
    for made in (
        conv, act, norm, linear, grouped, depthwise, chunk_gate, split_swap, shuffle, squeeze_excite, pool,
        transposed, pixel_shuffle, pixel_unshuffle, mlp, token_mixer, dense, attention, centre,
        grouped_queries, torch_attention, recurrent, einsum, bare, pad_slice, stack_mean, line,
    )
}  # fmt: skip
BINARY: dict[str, type[nn.Module]] = {"add": Add, "cat": Cat, "gate": Gate}
KINDS = ("conv", "add", "cat", *(kind for kind in UNARY if kind != "conv"), "gate", "again", "back")


def divisor(number: int, choice: int) -> int:
    """One of the divisors of a number."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return divisors[choice % len(divisors)]


@dataclass
class Draft:
    """Layers so far, what each reads, and the shapes of all values (the first is the stem's)."""

    shapes: list[Shape]
    layers: list[nn.Module] = field(default_factory=list)
    reads: list[tuple[int, ...]] = field(default_factory=list)
    convs: list[tuple[nn.Module, Shape, Shape]] = field(default_factory=list)

    def append(self, layer: nn.Module, reads: tuple[int, ...], shape: Shape) -> None:
        self.layers.append(layer)
        self.reads.append(reads)
        self.shapes.append(shape)

    def step(self, kind: str, a: int, b: int) -> None:
        """Add one layer on the last value (and perhaps an earlier one), if it fits."""
        last = len(self.shapes) - 1
        c, s = self.shapes[last]
        if kind == "back":  # go on from an earlier value: a branch
            earlier = a % len(self.shapes)
            self.append(nn.Identity(), (earlier,), self.shapes[earlier])
        elif kind == "again":  # a layer that was used before, once more
            fitting = [(layer, after) for layer, before, after in self.convs if before == (c, s)]
            if fitting:
                layer, after = fitting[a % len(fitting)]
                self.append(layer, (last,), after)
        elif kind in BINARY:
            whole = kind != "cat"
            fitting = [i for i, (d, t) in enumerate(self.shapes) if t == s and (d == c if whole else c + d <= 24)]
            if fitting:
                other = fitting[a % len(fitting)]
                self.append(BINARY[kind](), (last, other), (c, s) if whole else (c + self.shapes[other][0], s))
        elif (made := UNARY[kind](c, s, a, b)) is not None:
            layer, after = made
            self.append(layer, (last,), after)
            if kind == "conv":
                self.convs.append((layer, (c, s), after))


class RandomNet(nn.Module):
    """A stem, the program, a head of 5 outputs; picture of 3 channels in."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        draft = Draft([(program.width, program.side)])
        for step in program.steps:
            draft.step(*step)
        self.stem = nn.Conv2d(3, program.width, 3, padding=1)
        self.layers, self.reads, self.flatten = nn.ModuleList(draft.layers), draft.reads, program.flatten
        width, side = draft.shapes[-1]
        self.head = nn.Linear(width * side * side if program.flatten else width, 5)

    def forward(self, x: Tensor) -> Tensor:
        values = [self.stem(x)]
        for layer, reads in zip(self.layers, self.reads, strict=True):
            values.append(layer(*(values[i] for i in reads)))
        return self.head(values[-1].flatten(1) if self.flatten else values[-1].mean((2, 3)))


def programs() -> st.SearchStrategy[Program]:
    """Programs of one to eight layers."""
    small = st.integers(0, 7)
    steps = st.lists(st.tuples(st.sampled_from(KINDS), small, small), min_size=1, max_size=8).map(tuple)
    return st.builds(Program, steps, st.integers(4, 12), st.sampled_from((4, 8)), st.booleans())
