"""A network's own code, run with channels hidden: for networks whose hooks must run, which a program does not call.

The program of a network knows which of its operators normalise or average over what, and in which line of code each was
called. So each such operator is found again by counting the calls that its line makes, and is run as the mask runs it;
everything else runs as it stands. (Other lines may run more or less often than in the export: code may ask whether
it is being exported.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from metaprune.graph.errors import TraceError
from metaprune.graph.provenance import caller, is_recorded, packages_of
from metaprune.surgery.mask import HidingInterpreter

__all__ = ["has_hooks", "hiding_in"]


def has_hooks(network: nn.Module) -> bool:
    """Whether its users registered hooks on its modules; those of PyTorch's own (weight norm) do not count."""
    return any(
        (getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0] != "torch"
        for module in network.modules()
        for known in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        for hook in known.values()
    )


@contextmanager
def hiding_in(network: nn.Module, interpreter: HidingInterpreter) -> Iterator[None]:
    """Inside, calls of `network` run its own code with the dead channels left out of every average.

    Args:
        network: The network; contractions are not touched, so what the dead would say must be silent.
        interpreter: Of the network's program, recorded, in the same mode and for inputs of the same shapes.
    """
    mode = _Hiding(network, interpreter)
    begins = network.register_forward_pre_hook(lambda *_: mode.begin())
    ends = network.register_forward_hook(lambda *_: mode.end())
    try:
        yield
    finally:
        mode.end()
        begins.remove()
        ends.remove()


class _Hiding(TorchFunctionMode):
    def __init__(self, network: nn.Module, interpreter: HidingInterpreter) -> None:
        super().__init__()
        self.interpreter = interpreter
        self.packages = packages_of(network)
        self.calls: Counter[str] = Counter()
        self.on = False

    def begin(self) -> None:
        self.calls, self.on = Counter(), True
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        if self.on:
            self.on = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_recorded(func):
            return func(*args, **kwargs)
        where = caller(self.packages)
        made = self.interpreter.seen.made_at.get((where, self.calls[where]), [])
        self.calls[where] += 1
        todo = [node for node in made if self.interpreter.living(node)]
        return self.hidden(made, where, args, kwargs) if todo else func(*args, **kwargs)

    def hidden(self, made: list[fx.Node], where: str, args: Any, kwargs: Any) -> Any:
        """Run the one operator that a call made as the mask runs it."""
        given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        reads: list[fx.Node] = []
        fx.map_arg((made[0].args, made[0].kwargs), reads.append)
        fits = len(made) == 1 and [tuple(value.shape) for value in given] == [
            tuple(node.meta["val"].shape) for node in reads
        ]
        if not fits:
            raise TraceError(
                f"search: {where} averages over channels that are gone ({made[0]}), in a call that cannot be run "
                "without them while hooks run too; remove the network's hooks for the search, or keep that axis whole "
                "(limits=)"
            )
        self.interpreter.env = dict(zip(reads, given, strict=True))
        try:
            return self.interpreter.run_node(made[0])
        finally:
            self.interpreter.env = {}
