"""The pruning network: weights for any widths, from a generator per tensor that reads the widths' ratios.

Notation: r, the ratios of the free axes that a tensor touches; W, a generated weight at full width, which is cropped to
the channels that stay; b, the weight that all widths share.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.term import axes_of
from metaprune.surgery.resized import Resized

__all__ = ["Batches", "Film", "Kind", "Perceptron", "PruningNet"]

Kind = Literal["shared", "film", "mlp"]


class Film(nn.Module):
    """W = b * (1 + u_1(r) x u_2(r) x …): a modulation of rank one, with a factor for each dimension that is cut.

    u_d(r) = U_d relu(A r + a). One to two generator parameters per weight of a convolution, where the paper has 33.

    Args:
        ratios: How many ratios it reads.
        sizes: The sizes of the weight's dimensions.
        dims: Those that are cut.
        hidden: Units between.
    """

    def __init__(self, ratios: int, sizes: Sequence[int], dims: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(ratios, hidden)
        self.write = nn.ModuleList(nn.Linear(hidden, sizes[dim], bias=False) for dim in dims)
        self.shapes = [[-1 if place == dim else 1 for place in range(len(sizes))] for dim in dims]
        nn.init.zeros_(self.write[-1].weight)  # type: ignore[arg-type]

    def forward(self, weight: Float[Tensor, " ..."], ratios: Float[Tensor, " axes"]) -> Float[Tensor, " ..."]:
        """Generate W from b and r; at the start it is b."""
        seen = self.read(ratios).relu()
        factor = torch.ones_like(ratios[0])
        for write, shape in zip(self.write, self.shapes, strict=True):
            factor = factor * write(seen).reshape(shape)
        return weight * (1 + factor)


class Perceptron(nn.Module):
    """The paper's generator: W = B relu(A r + a) + b, with a column of B for each hidden unit.

    Args:
        ratios: How many ratios it reads.
        sizes: The sizes of the weight's dimensions.
        hidden: Units between.
    """

    def __init__(self, ratios: int, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(ratios, hidden)
        self.write = nn.Parameter(torch.zeros(*sizes, hidden))

    def forward(self, weight: Float[Tensor, " ..."], ratios: Float[Tensor, " axes"]) -> Float[Tensor, " ..."]:
        """Generate W from b and r; at the start it is b."""
        change: Tensor = self.write @ self.read(ratios).relu()
        return weight + change


class Batches:
    """Random numbers for each batch of a training, the same in all processes; checkpoints know it as a projector."""

    leaves_weights: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        self.seed, self.done = seed, 0

    def next(self) -> random.Random:
        """Those of the next batch."""
        self.done += 1
        return random.Random(f"{self.seed}/{self.done}")

    def after_step(self, step: int, steps: int) -> None:
        """Nothing: a step may be of several batches."""

    def state_dict(self) -> dict[str, Any]:
        """How many batches are done."""
        return {"batches": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after as many."""
        self.done = state["batches"]


class PruningNet(nn.Module):
    """A network at widths that are drawn anew for each batch; it is called like the network itself.

    In evaluation mode it stands at one plan, with statistics of batch norms recalibrated: those kept from training are
    of all widths and fit none.

    Args:
        network: Taken over: its tensors are the b, and train along.
        graph: Its channel graph.
        kind: "shared" (W = b), "film" or "mlp".
        hidden: Units of each generator.
        draw: Gives the plan of a training batch, from random numbers of that batch.
        seed: Of those numbers.
        steady: The plan of evaluation.
        settle: Recalibrates a network, in place.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: ChannelGraph,
        kind: Kind,
        hidden: int,
        draw: Callable[[random.Random], Plan],
        seed: int,
        steady: Plan,
        settle: Callable[[nn.Module], object],
    ) -> None:
        super().__init__()
        resized = Resized(network, graph)
        self.resized = [resized]  # no module of its own: its network is one
        self.network = resized.network
        self.draw, self.steady, self.settle = draw, steady, settle
        self.batches = Batches(seed)
        self.sizes = {name: axis.size for name, axis in graph.free.items()}
        self.generators = nn.ModuleDict()
        self.reads: dict[str, tuple[str, ...]] = {}
        for name, parameter in self.network.named_parameters() if kind != "shared" else ():
            terms = graph.tensors[name]
            touched = [{axis.name for axis in axes_of(term)} & self.sizes.keys() for term in terms]
            dims = [dim for dim, axes in enumerate(touched) if axes]
            if parameter.ndim < 2 or not dims or not (parameter.requires_grad and parameter.is_floating_point()):
                continue
            axes = tuple(axis for axis in self.sizes if any(axis in some for some in touched))
            made = (
                Film(len(axes), parameter.shape, dims, hidden)
                if kind == "film"
                else Perceptron(len(axes), parameter.shape, hidden)
            )
            self.generators[_key(name)] = made.to(parameter.device, parameter.dtype)
            self.reads[name] = axes
        self._settled: list[nn.Module] = []

    def weights(self, plan: Plan) -> dict[str, Tensor]:
        """Every generated weight by name, at full width, for the ratios of a plan."""
        widths = plan.widths
        own = dict(self.network.named_parameters())
        found: dict[str, Tensor] = {}
        for name, axes in self.reads.items():
            weight = own[name]
            shares = [widths.get(axis, self.sizes[axis]) / self.sizes[axis] for axis in axes]
            ratios = torch.tensor(shares, dtype=weight.dtype, device="cpu").to(weight.device)
            found[name] = self.generators[_key(name)](weight, ratios).to(weight.dtype)
        return found

    def copy(self, plan: Plan) -> nn.Module:
        """A network of its own at the widths of a plan, with the weights generated for it, recalibrated."""
        with torch.no_grad():
            small = self.resized[0].copy(plan, self.weights(plan))
        self.settle(small)
        return small.eval()

    def train(self, mode: bool = True) -> PruningNet:
        """As any module's; what was recalibrated is forgotten."""
        self._settled = []
        return super().train(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Draw widths, generate the weights, run the network."""
        if self.training:
            plan = self.draw(self.batches.next())
            return self.resized[0].call(plan, args, kwargs, self.weights(plan))
        if not self._settled:
            self._settled = [self.copy(self.steady)]
        return self._settled[0](*args, **kwargs)


def _key(name: str) -> str:
    """A parameter's name as one of a module, which must not hold dots."""
    return name.replace(".", "/")
