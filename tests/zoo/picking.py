"""Entries picked and written to by position: gather, scatter, index, top-k, masks, windows. The channels pass on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats

CHANNELS = 8


class Picking(nn.Module):
    """Six tokens of 5 features, 8 channels of which tokens are picked, 12 channels, 3 out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, CHANNELS)
        self.after = nn.Linear(CHANNELS, 12)
        self.last = nn.Linear(12, 3)

    def pick(self, x: Tensor) -> Tensor:
        """What happens to the tokens, the second dimension of x."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.after(self.pick(torch.tanh(self.embed(x))))))


class Shuffled(Picking):
    """A masked autoencoder: some tokens are kept, the others become one learned token, all go back to their places."""

    def __init__(self) -> None:
        super().__init__()
        self.rank = nn.Linear(CHANNELS, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, CHANNELS))

    def pick(self, x: Tensor) -> Tensor:
        order = self.rank(x).squeeze(-1).argsort(dim=1)
        kept = torch.gather(x, dim=1, index=order[:, :4].unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        whole = torch.cat([kept, self.token.expand(x.shape[0], 2, -1)], dim=1)
        return whole.gather(1, order.argsort(dim=1).unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Messages(Picking):
    """Messages along the edges of a graph, summed (index_add) and the largest taken (scatter_reduce)."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Linear(CHANNELS, CHANNELS)
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 4, 5, 0]))
        self.register_buffer("target", torch.tensor([1, 2, 0, 0, 3, 5, 4]))

    def pick(self, x: Tensor) -> Tensor:
        messages = self.message(x.index_select(1, self.source))
        total = torch.zeros_like(x).index_add(1, self.target, messages)
        places = self.target[None, :, None].expand_as(messages)
        return total + torch.zeros_like(x).scatter_reduce(1, places, messages, "amax").scatter_add(1, places, messages)


class Routed(Picking):
    """Each token goes through the two experts, of five, that a router chooses; each has seven hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(CHANNELS, 5)
        self.up = nn.Parameter(torch.empty(5, CHANNELS, 7))
        self.down = nn.Parameter(torch.empty(5, 7, CHANNELS))

    def pick(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(dim=-1).topk(2, dim=-1)
        hidden = F.gelu(x[:, :, None, None] @ self.up[chosen])
        return ((hidden @ self.down[chosen]).squeeze(-2) * weights.unsqueeze(-1)).sum(dim=2)


class Apart(Picking):
    """Indices in dimensions that lie apart: what is picked comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor([0, 2, 1, 1]))
        self.register_buffer("columns", torch.tensor([1, 0, 1, 0]))

    def pick(self, x: Tensor) -> Tensor:
        grid = x.unflatten(1, (3, 2)).transpose(2, 3)
        return grid[:, self.rows, :, self.columns].transpose(0, 1)


class Masked(Picking):
    """Tokens that a mask names become a learned one, those that another names become zero; entries by position too."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(CHANNELS))
        self.register_buffer("first", torch.tensor([1, 3]))

    def pick(self, x: Tensor) -> Tensor:
        x, place = x.clone(), torch.arange(x.shape[1], device=x.device)
        x[(place < 2).expand(x.shape[:2])] = self.token
        x[:, ((place > 3) & (place != 4)) | (place == 0)] = 0.0
        x[:, self.first] = torch.tanh(x[:, self.first] * self.token)
        return torch.max(x, x.flip(1))


class Inserted(Picking):
    """Features of another kind go where the mask says, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(5, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        embedded, kept = self.embed(x), torch.arange(x.shape[1], device=x.device) % 3 == 1
        mask = kept[None, :, None].expand(x.shape[0], -1, 1).expand_as(embedded)
        whole = embedded.masked_scatter(mask, torch.tanh(self.other(x[:, :2] ** 2)))
        return self.last(F.relu(self.after(whole)))


class Ordered(Picking):
    """The entries that a mask of their own names are filled one after the other: the channels have an order."""

    def pick(self, x: Tensor) -> Tensor:
        return x.masked_scatter(x > 0, x.flip(1))


class Shifted(Picking):
    """Transformer-XL: distances are turned into positions by laying queries and keys out anew; the heads pass on."""

    def __init__(self, heads: int = 3, head_dim: int = 4, reach: int = 11) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.q, self.k, self.v = (nn.Linear(CHANNELS, heads * head_dim) for _ in range(3))
        self.distances = nn.Parameter(torch.empty(reach, heads, head_dim))
        self.out, self.norm = nn.Linear(heads * head_dim, CHANNELS), nn.BatchNorm1d(CHANNELS)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim)

    def shift(self, x: Tensor) -> Tensor:
        b, h, queries, reach = x.shape
        return x.reshape(b, h, reach, queries)[:, :, 1:].reshape(b, h, queries, reach - 1)[..., :queries]

    def pick(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = torch.einsum("bihd,bjhd->bhij", q, k) + self.shift(torch.einsum("bihd,jhd->bhij", q, self.distances))
        y = self.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), v).flatten(2))
        return x + self.norm(y.flatten(0, 1)).reshape_as(y)


class Windows(nn.Module):
    """Windows of a picture as columns, a linear layer on them, and back; windows of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 1)
        self.mix = nn.Linear(CHANNELS * 4, 6 * 4)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(torch.tanh(self.first(x)), kernel_size=2, stride=2)
        mixed = torch.tanh(self.mix(columns.transpose(1, 2))).transpose(1, 2)
        picture = F.fold(mixed, output_size=x.shape[-2:], kernel_size=2, stride=2)
        return self.last(picture.mean(-1).unfold(-1, 3, 2).sum(-1).transpose(1, 2))


def picking(name: str, build: type[Picking], free: tuple[int, ...] = (), **more: object) -> Entry:
    return Entry(name, "picking", build, floats((2, 6, 5)), (CHANNELS, 12, *free), **more)


ENTRIES = (
    picking("shuffled", Shuffled),
    picking("messages", Messages),
    picking("routed", Routed, (7,), fixed={5: ""}),
    picking("apart", Apart),
    picking("masked", Masked),
    picking("inserted", Inserted),
    picking("shifted", Shifted, (3, 4)),
    Entry("ordered", "picking", Ordered, floats((2, 6, 5)), (12,), fixed={CHANNELS: "in order"}),
    Entry("windows", "picking", Windows, floats((2, 3, 6, 6)), (CHANNELS, 6)),
)
