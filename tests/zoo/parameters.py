"""Parameters in unusual places: bare, sliced, parametrised, frozen, tied; and networks made of products of them."""

import itertools
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.zoo.entry import Entry, Example, floats, pictures, tokens


class Affine(nn.Module):
    """ResMLP's affine map: a bare scale and shift of the last dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class ResMlpBlock(nn.Module):
    """One linear layer over tokens, two over channels, layer scale on both."""

    def __init__(self, dim: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.pre, self.post = Affine(dim), Affine(dim)
        self.token_mix = nn.Linear(tokens, tokens)
        self.ff = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.gamma_1 = nn.Parameter(1e-4 * torch.ones(dim), requires_grad=True)
        self.gamma_2 = nn.Parameter(1e-4 * torch.ones(dim), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma_1 * self.token_mix(self.pre(x).transpose(1, 2)).transpose(1, 2)
        return x + self.gamma_2 * self.ff(self.post(x))


class ResMlp(nn.Module):
    """Tokens with a learned position each, blocks, the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(7, 18)
        self.positions = nn.Parameter(torch.zeros(6, 18))
        self.blocks = nn.ModuleList([ResMlpBlock(18, 4, 24), ResMlpBlock(18, 4, 22)])
        self.affine, self.head = Affine(18), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions[: x.size(1)]
        for block in self.blocks:
            x = block(x)
        return self.head(self.affine(x).mean(dim=1))


class ScaledConvs(nn.Module):
    """Bare gains and shifts of pictures, (1, C, 1, 1), and a learned shift before the activation (ReActNet)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 10, 3, padding=1)
        self.gain, self.shift = nn.Parameter(torch.ones(1, width, 1, 1)), nn.Parameter(torch.zeros(1, width, 1, 1))
        self.move = nn.Parameter(torch.zeros(10))
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x) * self.gain + self.shift)
        x = F.relu(self.conv2(x) - self.move.view(1, -1, 1, 1).expand_as(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class PositionTables(nn.Module):
    """A table for rows and one for columns, embedded by number, added or concatenated, on a feature picture."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 2, 2)
        self.row_embed, self.col_embed = nn.Embedding(5, dim // 2), nn.Embedding(5, dim // 2)
        self.grid = nn.Parameter(torch.zeros(1, dim, 4, 4))
        self.conv1, self.conv2 = nn.Conv2d(dim, 24, 3, padding=1), nn.Conv2d(24, 14, 1)
        self.fc = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h, w = x.shape[-2:]
        columns = self.col_embed(torch.arange(w, device=x.device))
        rows = self.row_embed(torch.arange(h, device=x.device))
        pos = torch.cat([columns.unsqueeze(0).repeat(h, 1, 1), rows.unsqueeze(1).repeat(1, w, 1)], dim=-1)
        pos = pos.permute(2, 0, 1).unsqueeze(0).repeat(x.shape[0], 1, 1, 1)
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x + pos + self.grid)))).mean((2, 3)))


class FunctionalMlp(nn.Module):
    """MAML's network: all weights lie in one list and are used through torch.nn.functional."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(12, 3, 3, 3), (12,), (16, 12, 3, 3), (16,), (10, 16), (10,), (4, 10), (4,)]
        self.vars = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        v = self.vars
        x = F.relu(F.conv2d(x, v[0], v[1], stride=2, padding=1))
        x = F.relu(F.conv2d(x, v[2], v[3]))
        x = F.relu(F.linear(x.mean((2, 3)), v[4], v[5]))
        return F.linear(x, v[6], v[7])


class SuperConv(nn.Conv2d):
    """A once-for-all convolution: the active channels are the first so many of a larger weight."""

    def __init__(self, before: int, after: int, active_in: int, active_out: int) -> None:
        super().__init__(before, after, 3, padding=1)
        self.active_in, self.active_out = active_in, active_out

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[: self.active_out, : self.active_in]
        return F.conv2d(x, weight, self.bias[: self.active_out], self.stride, self.padding)


class SuperNet(nn.Module):
    """Slices of larger weights; what they leave out is nobody's: it is not read, and so it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = SuperConv(3, 21, 3, 20), SuperConv(21, 25, 20, 24)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


class FusedProjection(nn.Module):
    """One weight for three projections, sliced by rows; one number is the size of all three, so they are one axis."""

    def __init__(self, dim: int = 16, inner: int = 10) -> None:
        super().__init__()
        self.inner = inner
        self.embed = nn.Linear(7, dim)
        self.in_proj_weight, self.in_proj_bias = (
            nn.Parameter(torch.zeros(3 * inner, dim)),
            nn.Parameter(torch.zeros(3 * inner)),
        )
        self.out = nn.Linear(inner, dim)
        self.head = nn.Linear(dim, 5)

    def project(self, x: Tensor, start: int) -> Tensor:
        """Rows from start × inner on."""
        rows = slice(start * self.inner, (start + 1) * self.inner)
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (self.project(x, start) for start in range(3))
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) * 0.3, -1) @ v)
        return self.head(F.relu(x))


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A discriminator whose layers are all reparametrised, one of them in groups of one channel."""
    return nn.Sequential(
        norm(nn.Conv2d(3, 12, 3, 2, 1)), nn.LeakyReLU(0.1),
        norm(nn.Conv2d(12, 12, 3, 1, 1, groups=12)), nn.LeakyReLU(0.1),
        norm(nn.Conv2d(12, 16, 3, 2, 1)), nn.LeakyReLU(0.1),
        nn.Flatten(), norm(nn.Linear(64, 14)), nn.ReLU(), nn.Linear(14, 5),
    )  # fmt: skip


def old_weight_norm(module: nn.Module) -> nn.Module:
    """The older form, which many checkpoints still need: a hook before forward sets the weight."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


class Vocoder(nn.Module):
    """HiFi-GAN: weight norm on 1-D and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        norm = parametrizations.weight_norm
        self.pre, self.up = norm(nn.Conv1d(6, 16, 3, padding=1)), norm(nn.ConvTranspose1d(16, 12, 4, 2, 1))
        self.res = nn.ModuleList(norm(nn.Conv1d(12, 12, 3, padding=d, dilation=d)) for d in (1, 2))
        self.post = norm(nn.Conv1d(12, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.leaky_relu(self.pre(x), 0.1))
        for conv in self.res:
            x = x + conv(F.leaky_relu(x, 0.1))
        return torch.tanh(self.post(F.leaky_relu(x)))


class Standardised(nn.Module):
    """Weight standardisation as a parametrisation, with a learned gain (NFNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        mean = weight.mean(dim=(1, 2, 3), keepdim=True)
        var = weight.var(dim=(1, 2, 3), keepdim=True)
        return (weight - mean) * torch.rsqrt(var + 1e-4) * self.gain


class Symmetric(nn.Module):
    """The documentation's example: a symmetric matrix, from its upper triangle."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


class Positive(nn.Module):
    """Weights that cannot be negative."""

    def forward(self, weight: Tensor) -> Tensor:
        return F.softplus(weight)


def standardised() -> nn.Module:
    first, second = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 16, 3, padding=1)
    for conv in (first, second):
        parametrize.register_parametrization(conv, "weight", Standardised(conv.out_channels))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class Monotone(nn.Module):
    """Positive weights, and a symmetric layer, whose triangle knows the order of its channels: it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 24), nn.Linear(24, 32)
        self.mix, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        self.narrow = nn.Linear(32, 4)
        for layer in (self.first, self.second):
            parametrize.register_parametrization(layer, "weight", Positive())
        parametrize.register_parametrization(self.mix, "weight", Symmetric())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.last(self.mix(self.narrow(x)))


def frozen() -> nn.Module:
    """Nothing is to be trained."""
    return transferred().requires_grad_(False)


def transferred() -> nn.Module:
    """A frozen body and a head to be trained."""
    body = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU()
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 5))
    return nn.Sequential(body.requires_grad_(False), head)


class LoraLinear(nn.Module):
    """A frozen linear layer and a low-rank change of it (Hu et al. 2021)."""

    def __init__(self, before: int, after: int, rank: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after).requires_grad_(False)
        self.lora_a, self.lora_b = nn.Parameter(torch.zeros(rank, before)), nn.Parameter(torch.zeros(after, rank))
        self.scaling = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (x @ self.lora_a.transpose(0, 1) @ self.lora_b.transpose(0, 1)) * self.scaling


def lora() -> nn.Module:
    return nn.Sequential(LoraLinear(7, 16, 4), nn.GELU(), LoraLinear(16, 20, 6), nn.GELU(), nn.Linear(20, 5))


class DeepTiedAutoencoder(nn.Module):
    """The decoder is the encoder backwards, with the same matrices, transposed."""

    def __init__(self, sizes: tuple[int, ...] = (5, 32, 16)) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in sizes[:-1]])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        for layer, bias in zip(reversed(self.encoder), reversed(self.biases), strict=True):
            x = F.linear(x, layer.weight.t(), bias)
        return x


class SharedConv(nn.Module):
    """One convolution under several names, and applied at every resolution and every step."""

    def __init__(self, width: int = 14) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        shared = nn.Conv2d(width, width, 3, padding=1)
        self.steps = nn.ModuleList([shared, nn.BatchNorm2d(width), shared, nn.ReLU(), shared])
        self.out = nn.Conv2d(width, width, 3, padding=1)
        self.out.weight = shared.weight
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for step in self.steps:
            x = step(x)
        coarse = self.steps[0](F.avg_pool2d(x, 2))
        return self.fc(self.out(x).mean((2, 3)) + coarse.amax((2, 3)))


class SharedLayers(nn.Module):
    """ALBERT: one block, used at every depth; the embedding is factorised."""

    def __init__(self, dim: int = 14) -> None:
        super().__init__()
        self.embed, self.project = nn.Embedding(30, 8), nn.Linear(8, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = nn.Linear(dim, 10), nn.Linear(dim, 10), nn.Linear(dim, 12)
        self.dense, self.ffn, self.ffn_output = nn.Linear(12, dim), nn.Linear(dim, 20), nn.Linear(20, dim)
        self.last = nn.Linear(dim, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.project(self.embed(ids))
        for _ in range(3):
            scores = self.query(x) @ self.key(x).transpose(1, 2) * 0.3
            x = self.norm1(x + self.dense(scores.softmax(-1) @ self.value(x)))
            x = self.norm2(x + self.ffn_output(F.gelu(self.ffn(x))))
        return self.last(x[:, 0])


class DeepFm(nn.Module):
    """Click prediction: a table for each field, factorisation over fields, and a deep part on all of them flattened."""

    def __init__(self, fields: tuple[int, ...] = (6, 5, 7), dim: int = 10) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(rows, dim) for rows in fields)
        self.first = nn.ModuleList(nn.Embedding(rows, 1) for rows in fields)
        self.embed_output_dim = len(fields) * dim
        self.mlp = nn.Sequential(
            nn.Linear(self.embed_output_dim, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1),
        )  # fmt: skip
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        embedded = torch.stack([table(x[:, i]) for i, table in enumerate(self.embeddings)], dim=1)
        linear = torch.cat([table(x[:, i]) for i, table in enumerate(self.first)], dim=1).sum(1, keepdim=True)
        pairs = embedded.sum(dim=1) ** 2 - (embedded**2).sum(dim=1)
        deep = self.mlp(embedded.view(-1, self.embed_output_dim))
        return torch.sigmoid((self.bias + linear + 0.5 * pairs.sum(1, keepdim=True) + deep).squeeze(1))


def fields(generator: Generator) -> Example:
    return (torch.randint(5, (2, 3), generator=generator),), {}


class DeepCross(nn.Module):
    """DCN v2: crosses of the features with themselves, of low rank, beside a deep part."""

    def __init__(self, dim: int = 14, rank: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(9, dim)
        self.u = nn.ParameterList([nn.Parameter(torch.zeros(rank, dim)) for _ in range(2)])
        self.v = nn.ParameterList([nn.Parameter(torch.zeros(dim, rank)) for _ in range(2)])
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(dim)) for _ in range(2)])
        self.deep = nn.Sequential(nn.Linear(dim, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU())
        self.last = nn.Linear(dim + 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x0 = x = self.embed(x)
        for u, v, bias in zip(self.u, self.v, self.bias, strict=True):
            x = x0 * (F.linear(F.linear(x, u), v) + bias) + x
        return torch.sigmoid(self.last(torch.cat([x, self.deep(x0)], dim=-1)))


class BagOfWords(nn.Module):
    """fastText: the mean of the words' vectors, by nn.EmbeddingBag, and a small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(12, 20)
        self.fc1, self.fc2 = nn.Linear(20, 32), nn.Linear(32, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(self.embedding(ids))))


class Gcn(nn.Module):
    """Kipf's layer: support = x W, then the adjacency, plus a bias; residual in the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight1, self.bias1 = nn.Parameter(torch.zeros(5, 20)), nn.Parameter(torch.zeros(20))
        self.weight2, self.bias2 = nn.Parameter(torch.zeros(20, 20)), nn.Parameter(torch.zeros(20))
        self.weight3 = nn.Parameter(torch.zeros(20, 3))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(torch.matmul(adjacency, torch.matmul(x, self.weight1)) + self.bias1)
        x = x + F.relu(torch.matmul(adjacency, torch.matmul(x, self.weight2)) + self.bias2)
        return F.log_softmax(torch.matmul(adjacency, torch.matmul(x, self.weight3)), dim=-1)


class Gat(nn.Module):
    """Graph attention, dense: a vector for source and one for target, for each head; neighbours by a mask."""

    def __init__(self, heads: int = 3, out: int = 8) -> None:
        super().__init__()
        self.heads, self.out = heads, out
        self.lin = nn.Linear(5, heads * out, bias=False)
        self.att_src, self.att_dst = (
            nn.Parameter(torch.zeros(1, 1, heads, out)),
            nn.Parameter(torch.zeros(1, 1, heads, out)),
        )
        self.last = nn.Linear(heads * out, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        b, n, _ = x.shape
        h = self.lin(x).view(b, n, self.heads, self.out)
        source, target = (h * self.att_src).sum(-1), (h * self.att_dst).sum(-1)
        e = F.leaky_relu(source.unsqueeze(1) + target.unsqueeze(2), 0.2)
        e = e.masked_fill((adjacency < 0).unsqueeze(-1), -1e9)
        out = torch.einsum("bijh,bjhf->bihf", e.softmax(dim=2), h)
        return self.last(F.elu(out.reshape(b, n, -1)))


class EinsumTransformer(nn.Module):
    """As JAX users write it: every projection an einsum with a parameter of three letters."""

    def __init__(self, d: int = 12, h: int = 4, k: int = 6, f: int = 20) -> None:
        super().__init__()
        self.embed = nn.Linear(7, d)
        self.wq, self.wk, self.wv = (nn.Parameter(torch.zeros(d, h, k)) for _ in range(3))
        self.wo = nn.Parameter(torch.zeros(h, k, d))
        self.w1, self.w2 = nn.Parameter(torch.zeros(d, f)), nn.Parameter(torch.zeros(f, d))
        self.last = nn.Parameter(torch.zeros(d, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (self.wq, self.wk, self.wv))
        weights = torch.softmax(torch.einsum("bhtk,bhsk->bhts", q, k) * 0.4, dim=-1)
        x = x + torch.einsum("bhts,bhsk,hkd->btd", weights, v, self.wo)
        x = x + torch.einsum("...f,fd->...d", F.gelu(torch.einsum("...d,df->...f", x, self.w1)), self.w2)
        return torch.einsum("btd,dc->bc", x, self.last)


class BilinearPooling(nn.Module):
    """Two embeddings, a relation between them by a core tensor (Tucker), and a bilinear form of three operands."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 10), nn.Linear(6, 12)
        self.core = nn.Parameter(torch.zeros(10, 12, 8))
        self.form = nn.Parameter(torch.zeros(10, 12))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = torch.tanh(self.left(x)), torch.tanh(self.right(y))
        pooled = torch.einsum("bi,ijo,bj->bo", x, self.core, y)
        return self.last(F.relu(pooled)), torch.einsum("bi,ij,bj->b", x, self.form, y)


class StackedExperts(nn.Module):
    """A soft mixture whose experts' weights are stacked in one tensor: experts, hidden units and trunk are axes."""

    def __init__(self, experts: int = 4, dim: int = 10, hidden: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, dim)
        self.gate = nn.Linear(dim, experts, bias=False)
        self.w1, self.b1 = nn.Parameter(torch.zeros(experts, dim, hidden)), nn.Parameter(torch.zeros(experts, hidden))
        self.w2 = nn.Parameter(torch.zeros(experts, hidden, dim))
        self.last = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights = self.gate(x).softmax(dim=-1)
        hidden = F.gelu(torch.einsum("bd,edh->beh", x, self.w1) + self.b1)
        out = torch.einsum("beh,ehd->bed", hidden, self.w2)
        return self.last(x + (out * weights.unsqueeze(-1)).sum(dim=1))


GRAPH = floats((2, 4, 5), (2, 4, 4))
NORMED = (12, 16, 14)


class FourierFeatures(nn.Module):
    """Time steps as sines of learned frequencies, by an outer product."""

    def __init__(self, frequencies: int = 8, hidden: int = 14) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.rand(frequencies))
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, hidden), nn.SiLU(), nn.Linear(hidden, 5))

    def forward(self, t: Tensor) -> Tensor:
        angles = torch.outer(t, self.frequencies)
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


ENTRIES = (
    Entry("fourier_features", "bare parameters", FourierFeatures, floats((2,)), (8, 14)),
    Entry("res_mlp", "bare parameters", ResMlp, floats((2, 4, 7)), (18, 24, 22)),
    Entry("scaled_convs", "bare parameters", ScaledConvs, pictures(), (12, 10), cnn=True),
    Entry("position_tables", "bare parameters", PositionTables, pictures(), (6, 6, 24, 14), cnn=True),
    Entry("functional_list", "bare parameters", FunctionalMlp, pictures(), (12, 16, 10), cnn=True),
    Entry("sliced_weights", "bare parameters", SuperNet, pictures(), (20, 24)),
    Entry("sliced_projection", "bare parameters", FusedProjection, floats((2, 4, 7)), (16, 10)),
    Entry(
        "weight_norm",
        "parametrised",
        lambda: normed(parametrizations.weight_norm),
        pictures(),
        NORMED,
        cnn=True,
        statistics=NORMED,
    ),
    Entry(
        "weight_norm_by_hook",
        "parametrised",
        lambda: normed(old_weight_norm),
        pictures(),
        NORMED,
        cnn=True,
        statistics=NORMED,
    ),
    Entry("weight_norm_vocoder", "parametrised", Vocoder, floats((2, 6, 8)), (16, 12), cnn=True, statistics=(16, 12)),
    Entry(
        "spectral_norm",
        "parametrised",
        lambda: normed(parametrizations.spectral_norm),
        pictures(),
        NORMED,
        cnn=True,
        count_macs=False,  # PyTorch does not count matrix times vector
    ),
    Entry(
        "weight_standardised_parametrised",
        "parametrised",
        standardised,
        pictures(),
        (12, 16),
        cnn=True,
        statistics=(12,),
    ),
    Entry("monotone", "parametrised", Monotone, floats((2, 6)), (24, 32), fixed={4: "order"}, statistics=(24, 32)),
    Entry("frozen", "frozen", frozen, pictures(), (12, 16, 10), cnn=True),
    Entry("partly_frozen", "frozen", transferred, pictures(), (12, 16, 10), cnn=True),
    Entry("lora", "frozen", lora, floats((2, 7)), (16, 4, 20, 6)),
    Entry("tied_autoencoder_deep", "tied", DeepTiedAutoencoder, floats((2, 5)), (32, 16)),
    Entry("shared_convolution", "tied", SharedConv, pictures(), (14,), cnn=True),
    Entry("shared_layers", "tied", SharedLayers, tokens(5, 30), (8, 14, 10, 12, 20), statistics=(14,)),
    Entry("deep_fm", "recommendation", DeepFm, fields, (10, 24, 16)),
    Entry("deep_cross", "recommendation", DeepCross, floats((2, 9)), (14, 8, 8, 20, 12)),
    Entry("bag_of_words", "recommendation", BagOfWords, tokens(5, 12), (20, 32)),
    Entry("gcn", "graph", Gcn, GRAPH, (20,)),
    Entry("gat", "graph", Gat, GRAPH, (3, 8)),
    Entry("einsum_transformer", "einsum", EinsumTransformer, floats((2, 4, 7)), (12, 4, 6, 6, 20)),
    Entry("tucker", "einsum", BilinearPooling, floats((2, 5), (2, 6)), (10, 12, 8)),
    Entry("stacked_experts", "einsum", StackedExperts, floats((2, 6)), (10, 16, 4), statistics=(4,)),
)
