"""Attention in every spelling. Heads, head sizes and the trunk differ in size, so that a mix-up shows."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats, pictures

TRUNK, HEADS, HEAD, HIDDEN = 12, 4, 6, 20


class SeparateAttention(nn.Module):
    """Three linear layers, scaled_dot_product_attention, output projection."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.q_proj = nn.Linear(dim, num_heads * head_dim)
        self.k_proj = nn.Linear(dim, num_heads * head_dim)
        self.v_proj = nn.Linear(dim, num_heads * head_dim)
        self.o_proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, -1))


class ScaledSeparateAttention(nn.Module):
    """By hand; the values have their own head size; the scale and the inner width are kept as attributes."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, value_dim: int = 5) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.value_dim = num_heads, head_dim, value_dim
        self.inner_dim = num_heads * value_dim
        self.scale = head_dim**-0.5
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_k = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_v = nn.Linear(dim, self.inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(self.inner_dim, dim), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.to_q(x).reshape(b, n, self.num_heads, self.head_dim).permute(0, 2, 1, 3)
        k = self.to_k(x).reshape(b, n, self.num_heads, self.head_dim).permute(0, 2, 3, 1)
        v = self.to_v(x).reshape(b, n, self.num_heads, self.value_dim).permute(0, 2, 1, 3)
        weights = torch.softmax(torch.matmul(q, k) * self.scale, dim=-1)
        out = torch.matmul(weights, v).permute(0, 2, 1, 3).reshape(b, n, self.inner_dim)
        return self.to_out(out)


class FusedUnbindAttention(nn.Module):
    """One linear layer for q, k and v; reshape, permute, unbind; softmax by hand."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = num_heads, head_dim, head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        attn = self.attn_drop(attn.softmax(dim=-1))
        return self.proj((attn @ v).transpose(1, 2).flatten(2))


class FusedIndexAttention(nn.Module):
    """Fused with heads first in the linear layer: (heads, 3, head size); q, k and v by index."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.qkv = nn.Linear(dim, num_heads * 3 * head_dim)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, self.num_heads, 3, self.head_dim)
        q, k, v = (qkv[:, :, :, i].transpose(1, 2) for i in range(3))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class FusedChunkAttention(nn.Module):
    """One linear layer for q, k and v; chunk."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.to_qkv = nn.Linear(dim, num_heads * head_dim * 3, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """Split the last dimension into heads and put them before the tokens."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(self.heads, self.to_qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
        return self.to_out(out.transpose(1, 2).flatten(-2))


class FusedSplitAttention(nn.Module):
    """GPT-2's: split in three by the inner width, which the module keeps, with a causal mask in a buffer."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, block_size: int = 16) -> None:
        super().__init__()
        self.n_head, self.n_inner = num_heads, num_heads * head_dim
        self.c_attn = nn.Linear(dim, 3 * self.n_inner)
        self.c_proj = nn.Linear(self.n_inner, dim)
        self.register_buffer("bias", torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.size()
        q, k, v = self.c_attn(x).split(self.n_inner, dim=2)
        q = q.view(b, t, self.n_head, self.n_inner // self.n_head).transpose(1, 2)
        k = k.view(b, t, self.n_head, self.n_inner // self.n_head).transpose(1, 2)
        v = v.view(b, t, self.n_head, self.n_inner // self.n_head).transpose(1, 2)
        att = q @ k.transpose(-2, -1) * 0.4
        att = F.softmax(att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf")), dim=-1)
        return self.c_proj((att @ v).transpose(1, 2).contiguous().view(b, t, self.n_inner))


class TimmAttention(nn.Module):
    """The trunk's width, read from the input, is also heads × head size: their cuts depend on one another."""

    def __init__(self, dim: int, num_heads: int, head_dim: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


class ScaleFromShapeAttention(nn.Module):
    """One head; the scale is computed from the shape in forward: cutting would change the function."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, width) for width in (head_dim, head_dim, 5))
        self.out = nn.Linear(5, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.size(-1))
        return self.out(torch.bmm(F.softmax(scores, dim=2), self.v(x)))


class EinsumAttention(nn.Module):
    """Contractions by einsum."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.q, self.k = nn.Linear(dim, num_heads * head_dim), nn.Linear(dim, num_heads * head_dim)
        self.v = nn.Linear(dim, num_heads * head_dim)
        self.out = nn.Parameter(torch.empty(num_heads, head_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.num_heads, self.head_dim)) for f in (self.q, self.k, self.v))
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).mul(0.3).softmax(-1)
        out = torch.einsum("bhnm,bmhd->bnhd", weights, v)
        return torch.einsum("bnhd,hdc->bnc", out, self.out)


class LinearAttention(nn.Module):
    """Kernel attention (Katharopoulos et al. 2020): elu + 1 makes a dead channel 1, not 0."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k = nn.Linear(dim, num_heads * head_dim), nn.Linear(dim, num_heads * head_dim)
        self.v = nn.Linear(dim, num_heads * head_dim)
        self.out = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        context = k.transpose(-2, -1) @ v
        out = (q @ context) / (q * k.sum(dim=2, keepdim=True)).sum(-1, keepdim=True)
        return self.out(out.transpose(1, 2).flatten(2))


class CrossCovarianceAttention(nn.Module):
    """XCiT and Restormer attend across channels: softmax runs over the head size of k."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, num_heads * head_dim * 3)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 4, 1)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attn = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.proj((attn @ v).permute(0, 3, 1, 2).flatten(2))


class RelativeBiasAttention(nn.Module):
    """Swin: a table of biases, one column for each head, indexed by relative position."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, tokens: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.tokens = num_heads, head_dim, tokens
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim)
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.table = nn.Parameter(torch.empty(2 * tokens - 1, num_heads))
        self.register_buffer("index", torch.arange(tokens)[:, None] - torch.arange(tokens)[None] + tokens - 1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        out = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias)
        return self.proj(out.transpose(1, 2).reshape(b, n, -1))


class NormedQueryAttention(nn.Module):
    """q and k are normalised before they meet; nothing linear stands between the norm and the product."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k = nn.Linear(dim, num_heads * head_dim), nn.Linear(dim, num_heads * head_dim)
        self.v, self.out = nn.Linear(dim, num_heads * 5), nn.Linear(num_heads * 5, dim)
        self.q_norm, self.k_norm = nn.RMSNorm(head_dim, eps=1e-6), nn.LayerNorm(head_dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q_norm(self.q(x).view(b, n, self.num_heads, -1)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(b, n, self.num_heads, -1)).transpose(1, 2)
        v = self.v(x).view(b, n, self.num_heads, -1).transpose(1, 2)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class UnprojectedAttention(nn.Module):
    """Attention of the tokens on themselves, without any projection: the trunk is the head size."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class GroupedRepeat(nn.Module):
    """Grouped queries: keys and values repeated by repeat_interleave."""

    kv_heads = 2

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.num_kv_heads, self.num_groups = self.kv_heads, num_heads // self.kv_heads
        self.wq = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.wk = nn.Linear(dim, self.num_kv_heads * head_dim, bias=False)
        self.wv = nn.Linear(dim, self.num_kv_heads * head_dim, bias=False)
        self.wo = nn.Linear(num_heads * head_dim, dim, bias=False)

    def repeat(self, x: Tensor) -> Tensor:
        """Give every query head its key or value head; x is (batch, heads, tokens, size)."""
        return x.repeat_interleave(self.num_groups, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.wq(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(b, n, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(b, n, self.num_kv_heads, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, self.repeat(k), self.repeat(v), is_causal=True)
        return self.wo(out.transpose(1, 2).contiguous().view(b, n, -1))


class GroupedExpand(GroupedRepeat):
    """Grouped queries: keys and values repeated by expand and reshape, as Hugging Face does."""

    def repeat(self, x: Tensor) -> Tensor:
        b, h, n, d = x.shape
        x = x[:, :, None, :, :].expand(b, h, self.num_groups, n, d)
        return x.reshape(b, h * self.num_groups, n, d)


class GroupedSdpa(GroupedRepeat):
    """Grouped queries inside of scaled_dot_product_attention."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.wq(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.wo(out.transpose(1, 2).flatten(2))


class MultiQuery(GroupedRepeat):
    """All query heads share one key and value head, by broadcasting."""

    kv_heads = 1

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.wq(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = self.wk(x), self.wv(x)
        scores = q @ k[:, None].transpose(-2, -1) * 0.4
        return self.wo((scores.softmax(-1) @ v.unsqueeze(1)).transpose(1, 2).reshape(b, n, -1))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, attention: nn.Module, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = attention
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenNet(nn.Module):
    """Tokens of 7 features through one block: the frame for every kind of attention."""

    def __init__(self, attention: Callable[[int, int, int], nn.Module], heads: int = HEADS, head: int = HEAD) -> None:
        super().__init__()
        self.embed = nn.Linear(7, TRUNK)
        self.block = Block(attention(TRUNK, heads, head), TRUNK, HIDDEN)
        self.head = nn.Linear(TRUNK, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)))


class Vit(nn.Module):
    """Patches by convolution, class token, learned positions, layer scale, head on the class token."""

    def __init__(self, attention: Callable[[int, int, int], nn.Module], depth: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, TRUNK, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, TRUNK))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, TRUNK))
        self.blocks = nn.ModuleList(Block(attention(TRUNK, HEADS, HEAD), TRUNK, HIDDEN + i) for i in range(depth))
        self.gamma = nn.Parameter(torch.ones(TRUNK))
        self.norm = nn.LayerNorm(TRUNK)
        self.head = nn.Linear(TRUNK, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x * self.gamma)[:, 0])


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another, passed by name."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.norm = nn.LayerNorm(TRUNK)
        self.embed, self.memory = nn.Linear(7, TRUNK), nn.Linear(9, 10)
        self.to_q = nn.Linear(TRUNK, 24, bias=False)
        self.to_kv = nn.Linear(10, 48, bias=False)
        self.to_out = nn.Linear(24, TRUNK)
        self.last = nn.Linear(TRUNK, 3)

    def forward(self, x: Tensor, *, context: Tensor) -> Tensor:
        x, context = self.embed(x), self.memory(context)
        b, n, _ = x.shape
        q = self.to_q(self.norm(x)).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.to_kv(context).view(b, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.last(x)


def cross_inputs(generator: torch.Generator) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    (x, context), _ = floats((2, 4, 7), (2, 6, 9))(generator)
    return (x,), {"context": context}


class Perceiver(nn.Module):
    """Learned latents read the input; their number is nobody's size but their own."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(5, TRUNK))
        self.q, self.kv = nn.Linear(TRUNK, 8), nn.Linear(7, 8 + 9)
        self.split_sizes = [8, 9]
        self.out = nn.Linear(9, TRUNK)
        self.head = nn.Linear(TRUNK, 3)

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.expand(x.shape[0], -1, -1)
        k, v = self.kv(x).split(self.split_sizes, dim=-1)
        weights = torch.softmax(self.q(latents) @ k.mT, dim=-1)
        latents = latents + self.out(weights @ v)
        return self.head(latents.mean(dim=1))


class NonLocal(nn.Module):
    """The non-local block on pictures (Wang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.inter_channels = 6
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.theta, self.phi, self.g = (nn.Conv2d(12, 6, 1) for _ in range(3))
        self.w = nn.Sequential(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12))
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        n = x.size(0)
        g = self.g(x).view(n, self.inter_channels, -1).permute(0, 2, 1)
        theta = self.theta(x).view(n, self.inter_channels, -1).permute(0, 2, 1)
        phi = self.phi(x).view(n, self.inter_channels, -1)
        y = torch.matmul(F.softmax(torch.matmul(theta, phi), dim=-1), g)
        y = y.permute(0, 2, 1).contiguous().view(n, self.inter_channels, *x.size()[2:])
        return self.fc((x + self.w(y)).mean((2, 3)))


class TorchTransformer(nn.Module):
    """PyTorch's own encoder layer, whose attention is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(7, 12)
        self.layer = nn.TransformerEncoderLayer(12, 3, HIDDEN, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)))


class SelfAttentionModule(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(7, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(x)
        y, weights = self.attention(x, x, x)
        return self.head(x + y), weights


TOKENS = floats((2, 4, 7))
USUAL = (TRUNK, HIDDEN, HEADS, HEAD)
VIT = (*USUAL, HIDDEN + 1, HEADS, HEAD)


def block(
    name: str,
    attention: Callable[[int, int, int], nn.Module],
    free: tuple[int, ...],
    statistics: tuple[int, ...] = (),
    undo: str | None = None,
) -> Entry:
    statistics = (TRUNK, *statistics)
    return Entry(name, "attention", lambda: TokenNet(attention), TOKENS, free, undo=undo, statistics=statistics)


ENTRIES = (
    block("attention_separate", SeparateAttention, USUAL),
    block("attention_scaled", ScaledSeparateAttention, (*USUAL, 5)),
    block("attention_unbind", FusedUnbindAttention, USUAL),
    block("attention_index", FusedIndexAttention, USUAL),
    block("attention_chunk", FusedChunkAttention, USUAL),
    block("attention_split", FusedSplitAttention, USUAL),
    block(
        "attention_timm",
        TimmAttention,
        (HEADS, 3, HIDDEN),  # reshape reads the width of the trunk for heads × head size: so that is what it is
        statistics=(HEADS, 3),
    ),
    block(
        "attention_scale_from_shape",
        ScaleFromShapeAttention,
        (TRUNK, HIDDEN, 6, 5),
    ),
    block("attention_einsum", EinsumAttention, USUAL),
    block("attention_linear", LinearAttention, USUAL, (HEAD,)),
    block("attention_across_channels", CrossCovarianceAttention, (TRUNK, HIDDEN, HEADS), (HEAD,)),
    block("attention_relative_bias", RelativeBiasAttention, USUAL),
    block("attention_normed", NormedQueryAttention, (TRUNK, HIDDEN, HEADS, 5), (HEAD,)),
    block("attention_unprojected", UnprojectedAttention, (HIDDEN,)),
    block("grouped_query_repeat", GroupedRepeat, (TRUNK, HIDDEN, 2, HEAD)),
    block("grouped_query_expand", GroupedExpand, (TRUNK, HIDDEN, 2, HEAD)),
    block("grouped_query_sdpa", GroupedSdpa, (TRUNK, HIDDEN, 2, 2, HEAD)),
    block("multi_query", MultiQuery, USUAL),
    Entry(
        "attention_equal_sizes",
        "attention",
        lambda: TokenNet(FusedUnbindAttention, 4, 4),
        TOKENS,
        (TRUNK, HIDDEN, 4, 4),
        statistics=(TRUNK,),
    ),
    Entry("vit", "ViT", lambda: Vit(SeparateAttention), pictures(), VIT, statistics=(TRUNK,)),
    Entry("vit_fused", "ViT", lambda: Vit(FusedUnbindAttention), pictures(), VIT, statistics=(TRUNK,)),
    Entry("cross_attention", "attention", CrossAttention, cross_inputs, (TRUNK, 10, 4, 6), statistics=(TRUNK,)),
    Entry("perceiver", "attention", Perceiver, TOKENS, (TRUNK, 8, 9), statistics=(5,)),
    Entry("non_local", "attention", NonLocal, pictures(), (12, 6), cnn=True),
    Entry(
        "torch_transformer",
        "attention",
        TorchTransformer,
        TOKENS,
        (TRUNK, 3, 4, 4, HIDDEN),
        statistics=(TRUNK,),
    ),
    Entry(
        "torch_attention",
        "attention",
        SelfAttentionModule,
        TOKENS,
        (TRUNK, 3, 4, 4, HIDDEN),
        statistics=(3,),
    ),
)
