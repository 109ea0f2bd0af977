"""Networks with something that nobody can cut through: fixed, with a reason, and never wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats


class Opaque(nn.Module):
    """Eleven features in, 8 channels that something strange happens to, 12 channels, 3 out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(11, 8)
        self.after = nn.Linear(8, 12)
        self.last = nn.Linear(12, 3)

    def strange(self, x: Tensor) -> Tensor:
        """What happens to the 8 channels, the last dimension of x."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.after(self.strange(F.relu(self.first(x))))))


class Fourier(Opaque):
    """A transform along the channels (FNet)."""

    def strange(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, dim=-1).real


class Sorted(Opaque):
    """The channels are sorted for each example."""

    def strange(self, x: Tensor) -> Tensor:
        return torch.sort(x, dim=-1).values


class TopK(Opaque):
    """Only the largest channels pass."""

    def strange(self, x: Tensor) -> Tensor:
        threshold = x.topk(3, dim=-1).values[..., -1:]
        return x * (x >= threshold)


class Cumulative(Opaque):
    """A running sum over the channels, and a flip."""

    def strange(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, dim=-1).flip(-1)


class Rolled(Opaque):
    """Every channel meets its neighbour."""

    def strange(self, x: Tensor) -> Tensor:
        return x + x.roll(1, dims=-1)


class Strided(Opaque):
    """Even channels gate odd ones."""

    def strange(self, x: Tensor) -> Tensor:
        x = x[..., ::2] * torch.sigmoid(x[..., 1::2])
        return torch.cat([x, -x], dim=-1)


class Picked(Opaque):
    """The channels in an order that a buffer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 4, 5]))

    def strange(self, x: Tensor) -> Tensor:
        return x + x[..., self.order]


class OneChannel(Opaque):
    """One channel gates all."""

    def strange(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x[..., 2:3]) + x.select(-1, 5).unsqueeze(-1)


class Ranked(Opaque):
    """The number of the strongest channel is a number to compute with."""

    def strange(self, x: Tensor) -> Tensor:
        return x + 0.1 * x.argmax(dim=-1, keepdim=True).to(x.dtype)


class Windowed(Opaque):
    """A window slides over the channels (ECA: a 1-D convolution along them)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def strange(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.unsqueeze(-2)).squeeze(-2))


class Counted(Opaque):
    """The number of channels is a number to compute with."""

    def strange(self, x: Tensor) -> Tensor:
        return x / x.shape[-1] + x.size(-1) ** 0.5


def opaque(name: str, build: type[Opaque], reason: str) -> Entry:
    return Entry(name, "not understood", build, floats((2, 11)), (12,), fixed={8: reason})


ENTRIES = (
    opaque("fourier", Fourier, "Fourier"),
    opaque("sorted", Sorted, "sort"),
    opaque("topk", TopK, "topk"),
    opaque("cumulative", Cumulative, "cumsum"),
    opaque("rolled", Rolled, "roll"),
    opaque("picked", Picked, "position"),
    opaque("ranked", Ranked, "argmax"),
    opaque("windowed", Windowed, ""),
    Entry("one_channel", "not understood", OneChannel, floats((2, 11)), (12,)),
    Entry("strided", "not understood", Strided, floats((2, 11)), (12,)),
    Entry(
        "counted",
        "not understood",
        Counted,
        floats((2, 11)),
        (12,),
        undo="the number of channels is computed with",
    ),
)
