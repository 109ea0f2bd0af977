"""A network as a recipe trains it, until it is given back as it was."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from metaprune.graph.tensors import channels_last
from metaprune.train import randomness
from metaprune.train.processes import ALONE, Group
from metaprune.train.recipe import Recipe
from metaprune.train.several.splitting import split

__all__ = ["Compiled", "borrowed", "statistics_kept"]


@contextmanager
def statistics_kept(module: nn.Module, *, only: bool) -> Iterator[None]:
    """The statistics of a network as they were, should the block fail (if `only` then)."""
    held = [(buffer, buffer.clone()) for buffer in module.buffers()] if only else []
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, before in held:
                buffer.copy_(before)
        raise


class Compiled:
    """A network that runs compiled inside a block, and as it is outside; parameters stay where they are.

    What is compiled is the network, or of one that makes its weights the network inside (`compiles`): weights are its
    arguments then, and nothing is compiled anew when gates become zero.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        """As the recipe asks for it; nothing where it does not."""
        self.target: nn.Module = getattr(module, "compiles", module)
        self.graphs = recipe.compile == "graphs"
        mode = "reduce-overhead" if self.graphs else None
        self.own = vars(self.target).get("forward")
        call = self.target.forward  # not the module's call, whose code PyTorch may skip as its own
        self.call = torch.compile(call, mode=mode, dynamic=False) if recipe.compile else None

    def __enter__(self) -> None:
        """From here on."""
        if self.call is not None:
            vars(self.target)["forward"] = self.call
            self.quiet = warnings.catch_warnings()
            self.quiet.__enter__()
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")  # of weights that are made
            if self.graphs and torch.cuda.is_available():
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        """To here."""
        if self.call is not None:
            self.quiet.__exit__(None, None, None)
            vars(self.target).pop("forward", None)
            if self.own is not None:
                vars(self.target)["forward"] = self.own


_FABRICS = ("_fabric", "_fabric_optimizers")
"""Where Fabric leaves itself in modules that know it (Lightning's)."""


@contextmanager
def borrowed(
    module: nn.Module, device: torch.device, recipe: Recipe, group: Group = ALONE, *, divide: bool = False
) -> Iterator[None]:
    """The network on the device and in the layout of the recipe, until it is given back as it was.

    Args:
        module: The network.
        device: Where it trains.
        recipe: How.
        group: The processes that train it together.
        divide: Whether its weights are split between them.
    """
    modes = [(child, child.training) for child in module.modules()]
    home = {tensor.device for tensor in [*module.parameters()] or module.buffers()}
    strides = {name: weight.stride() for name, weight in module.named_parameters() if weight.dim() == 4}
    known = {name: vars(module)[name] for name in _FABRICS if name in vars(module)}
    if not divide:
        module.to(device)  # where it moves, its parameters may be other tensors than before
        for name in strides if recipe.channels_last else ():
            weight = module.get_parameter(name)
            weight.data = channels_last(weight.data)
    try:
        with randomness.isolated(), split(module, group) if divide else nullcontext():
            yield
    finally:
        for name in _FABRICS:
            vars(module).pop(name, None)
        vars(module).update(known)
        for name, stride in strides.items():
            weight = module.get_parameter(name)
            if weight.stride() != stride:
                weight.data = torch.empty_strided(weight.shape, stride, dtype=weight.dtype, device=weight.device).copy_(
                    weight.data
                )
        if len(home) == 1:
            module.to(home.pop())
        for child, training in modes:
            child.training = training
