"""Language models, embeddings, mixers and gates."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tests.zoo.attention import Block, FusedChunkAttention, FusedSplitAttention
from tests.zoo.entry import Entry, Example, floats, pictures, tokens
from tests.zoo.norm import RMSNorm


class Gpt(nn.Module):
    """Token and position embeddings, causal blocks, a head tied to the token embedding."""

    def __init__(self, vocabulary: int = 30, dim: int = 12, depth: int = 2) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(vocabulary, dim)
        self.pos_emb = nn.Embedding(16, dim)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(Block(FusedSplitAttention(dim, 4, 5), dim, 20) for _ in range(depth))
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocabulary, bias=False)
        self.lm_head.weight = self.tok_emb.weight

    def forward(self, idx: Tensor) -> Tensor:
        positions = torch.arange(idx.size(1), device=idx.device)
        x = self.drop(self.tok_emb(idx) + self.pos_emb(positions))
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class SwiGlu(nn.Module):
    """The MLP of Llama."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


def rotate_half(x: Tensor) -> Tensor:
    """Turn the first half of the head against the second."""
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


class RotaryAttention(nn.Module):
    """Grouped queries with rotary positions; the tables are buffers, or made anew in forward."""

    def __init__(self, dim: int, heads: int, kv_heads: int, head_dim: int, tables: bool) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim, self.tables = heads, kv_heads, head_dim, tables
        self.q_proj = nn.Linear(dim, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, dim, bias=False)
        if tables:
            angles = self.angles(16)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def angles(self, length: int) -> Tensor:
        """Angles of shape (length, head_dim)."""
        frequency = 100.0 ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
        return torch.cat((angles, angles), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        if self.tables:
            cos, sin = self.cos[:n], self.sin[:n]
        else:
            cos, sin = self.angles(n).cos(), self.angles(n).sin()
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        k = k.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        v = v.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, -1))


class Llama(nn.Module):
    """RMS norm, rotary positions, grouped queries, SwiGLU."""

    def __init__(self, tables: bool, vocabulary: int = 30, dim: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.norm1, self.norm2, self.norm = RMSNorm(dim), RMSNorm(dim), nn.RMSNorm(dim, eps=1e-6)
        self.attention = RotaryAttention(dim, 4, 2, 10, tables)
        self.mlp = SwiGlu(dim, 18)
        self.output = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.output(self.norm(x))


class TextCnn(nn.Module):
    """Embedding, convolutions of several lengths, maximum over time (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(8, width, length) for width, length in ((5, 2), (6, 3)))
        self.fc = nn.Linear(11, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).transpose(1, 2)
        x = torch.cat([F.relu(conv(x)).max(dim=-1).values for conv in self.convs], dim=1)
        return self.fc(x)


class Factorisation(nn.Module):
    """Users and items, their biases, a product (recommendation)."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(20, 8), nn.Embedding(30, 8)
        self.user_bias, self.item_bias = nn.Embedding(20, 1), nn.Embedding(30, 1)
        self.mlp = nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u, i = self.user(user), self.item(item)
        product = (u * i).sum(dim=-1, keepdim=True)
        return product + self.user_bias(user) + self.item_bias(item) + self.mlp(torch.cat([u, i], dim=-1))


def pairs(generator: Generator) -> Example:
    (user,), _ = tokens(1, 20)(generator)
    (item,), _ = tokens(1, 30)(generator)
    return (user[:, 0], item[:, 0]), {}


class Interactions(nn.Module):
    """DLRM: features and embeddings stacked; their products, below the diagonal, are the features."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(rows, 8) for rows in (10, 12))
        self.top = nn.Sequential(nn.Linear(8 + 3, 14), nn.ReLU(), nn.Linear(14, 1))
        rows, columns = torch.tril_indices(3, 3, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense: Tensor, sparse: list[Tensor]) -> Tensor:
        dense = self.bottom(dense)
        stacked = torch.stack([dense, *(table(ids) for table, ids in zip(self.tables, sparse, strict=True))], dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.rows, self.columns]
        return self.top(torch.cat([dense, products], dim=1))


def dense_and_sparse(generator: Generator) -> Example:
    (dense,), _ = floats((2, 5))(generator)
    return (dense, [torch.randint(rows, (2,), generator=generator) for rows in (10, 12)]), {}


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(9, 6)
        self.bias = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = torch.tanh(self.encoder(x))
        return {
            "reconstruction": F.linear(code, self.encoder.weight.t(), self.bias),
            "energy": code.square().sum(1),
        }


class MixerBlock(nn.Module):
    """An MLP over tokens, an MLP over channels."""

    def __init__(self, tokens: int, dim: int, token_hidden: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(tokens, token_hidden), nn.GELU(), nn.Linear(token_hidden, tokens))
        self.channels = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer on four patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(4, 12, 6, 20), MixerBlock(4, 12, 7, 22))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class SpatialGate(nn.Module):
    """gMLP: half of the channels, mixed over the tokens, gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in = nn.Linear(7, 2 * 10)
        self.norm = nn.LayerNorm(10)
        self.mix = nn.Conv1d(4, 4, 1)
        self.proj_out = nn.Linear(10, 7)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.proj_in(x)).chunk(2, dim=-1)
        return x + self.proj_out(u * self.mix(self.norm(v)))


class GatedConv(nn.Module):
    """nn.GLU over channels (1-D), then a gate by chunk with tanh and sigmoid (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.glu = nn.Conv1d(3, 2 * 8, 3, padding=1), nn.GLU(dim=1)
        self.conv2 = nn.Conv1d(8, 2 * 6, 3, padding=1)
        self.skip = nn.Conv1d(6, 9, 1)
        self.last = nn.Conv1d(9, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.glu(self.conv1(x))
        signal, gate = torch.chunk(self.conv2(x), 2, dim=1)
        return self.last(F.relu(self.skip(torch.tanh(signal) * torch.sigmoid(gate)))).mean(-1)


class AdaptiveNorm(nn.Module):
    """DiT: a condition gives shift, scale and gate of a norm without parameters."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(7, dim)
        self.condition = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3 * dim))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = FusedChunkAttention(dim, 4, 5)
        self.last = nn.Linear(dim, 7)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.embed(x)
        shift, scale, gate = self.condition(condition).unsqueeze(1).chunk(3, dim=-1)
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift)
        return self.last(x)


class BilinearNet(nn.Module):
    """nn.Bilinear between two hidden layers, and a bilinear form by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 8), nn.Linear(6, 9)
        self.bilinear = nn.Bilinear(8, 9, 7)
        self.form = nn.Parameter(torch.empty(8, 9))
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = torch.tanh(self.left(x)), torch.tanh(self.right(y))
        return self.last(F.relu(self.bilinear(x, y))), (torch.einsum("...i,ij->...j", x, self.form) * y).sum(-1)


class GraphConvolution(nn.Module):
    """A dense graph network: neighbours are mixed by the adjacency matrix given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.empty(5, 8)), nn.Parameter(torch.empty(8, 12))
        self.readout = nn.Linear(12, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(adjacency @ (x @ self.first))
        x = F.relu(torch.bmm(adjacency, torch.matmul(x, self.second)))
        return self.readout(x.sum(dim=1))


class Experts(nn.Module):
    """A soft mixture of experts, each with its own hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 9)) for hidden in (8, 10, 12)
        )
        self.last = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(dim=-1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        return self.last(torch.einsum("be,bed->bd", weights, outputs))


GPT = (12, 20, 20, 4, 5, 4, 5)
ENTRIES = (
    Entry("gpt", "embedding", Gpt, tokens(6, 30), GPT, statistics=(12,)),
    Entry("llama", "embedding", lambda: Llama(tables=True), tokens(6, 30), (12, 18, 2, 5), statistics=(12,)),
    Entry(
        "llama_rotary_in_forward",
        "embedding",
        lambda: Llama(tables=False),
        tokens(6, 30),
        (12, 18, 2),
        statistics=(12,),
        undo="the rotary table is made anew from the head size",
    ),
    Entry("text_cnn", "embedding", TextCnn, tokens(7, 30), (8, 5, 6)),
    Entry("factorisation", "embedding", Factorisation, pairs, (8, 10)),
    Entry("interactions", "embedding", Interactions, dense_and_sparse, (8, 9, 14)),
    Entry("tied_autoencoder", "dictionaries", TiedAutoencoder, floats((2, 9)), (6,)),
    Entry("mixer", "MLP-Mixer", Mixer, pictures(), (12, 6, 20, 7, 22), statistics=(12,)),
    Entry("spatial_gate", "GLU", SpatialGate, floats((2, 4, 7)), (10,), statistics=(10,)),
    Entry("gated_conv", "GLU", GatedConv, floats((2, 3, 9)), (8, 6, 9), cnn=True),
    Entry("adaptive_norm", "GLU", AdaptiveNorm, floats((2, 4, 7), (2, 3)), (12, 8, 4, 5), statistics=(12,)),
    Entry("bilinear", "einsum", BilinearNet, floats((2, 5), (2, 6)), (8, 9, 7)),
    Entry("graph_convolution", "einsum", GraphConvolution, floats((2, 4, 5), (2, 4, 4)), (8, 12)),
    Entry("experts", "einsum", Experts, floats((2, 6)), (8, 10, 12, 9)),
)
