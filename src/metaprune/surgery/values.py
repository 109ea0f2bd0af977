"""Values: what a cut network computes in each call, against what the mask does, on the example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call, state_leaves
from metaprune.graph.capture import capture
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, read
from metaprune.graph.objects import open_to_trees
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import axes_of
from metaprune.surgery.blame import blame
from metaprune.surgery.index import index
from metaprune.surgery.mask import AnotherWay, HidingInterpreter
from metaprune.surgery.still import Still, draws, is_stilled

__all__ = ["Judge", "moved", "with_states_cut"]

Kept = Mapping[str, tuple[int, ...]]

_DRAWS = 4  # in which a cut network must run where what it runs hangs on them


def moved(model: nn.Module, call: Call) -> Call:
    """The call with copies of its inputs, on the device of the network, which may have moved since it was traced."""
    devices = {tensor.device for tensor in named_tensors(model).values()}
    device = devices.pop() if len(devices) == 1 else None
    with open_to_trees(call.args, call.kwargs):
        args, kwargs = pytree.tree_map_only(
            Tensor,
            lambda tensor: tensor.clone() if device is None else tensor.to(device, copy=True),
            (call.args, dict(call.kwargs)),
        )
    return replace(call, args=args, kwargs=kwargs)


class Judge:
    """Compares cut networks with the masked one, on the example inputs of each call, in its mode.

    It does not judge where there are no values (meta tensors), or where the network draws random numbers along what is
    cut. Dropout lets everything pass, and other draws are the same for both.

    Args:
        model: The network that `graph` was traced from; it is not moved or changed.
        graph: From `mp.trace`.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.model = model
        self.graph = graph
        self._seen: tuple[Inference, ...] | None = None
        self._precision: dict[int, float] = {}

    @property
    def silent(self) -> str | None:
        """Why it does not judge, or not all calls; None where it judges all."""
        if any(tensor.is_meta for tensor in named_tensors(self.model).values()):
            return "there are no values on the meta device"
        unjudged = [inference for inference in self.seen if self.is_random(inference)]
        if not unjudged:
            return None
        whole = len(unjudged) == len(self.seen)
        return "the network draws random numbers" + ("" if whole else f" in {unjudged[0].call}")

    @property
    def seen(self) -> tuple[Inference, ...]:
        """What the graph was read from; read anew where the network has moved since."""
        if self._seen is None:
            known = self.graph.inferences
            calls = [moved(self.model, call) for call in self.graph.calls]
            inputs = [(call.args, dict(call.kwargs)) for call in calls]
            if not known or _places(inputs) != _places([(c.args, dict(c.kwargs)) for c in self.graph.calls]):
                known = self.read_anew(calls)
            self._seen = known
        return self._seen

    def read_anew(self, calls: list[Call]) -> tuple[Inference, ...]:
        """The inferences, from exports where the network lies now."""
        seeds = [one.seed for one in self.graph.passes]
        captured = [
            replace(capture(self.model, call, seed=seed or 0), seed=seed)
            for call, seed in zip(calls, seeds, strict=True)
        ]
        return read(self.model, captured, self.graph.ties, self.graph.outputs)

    def is_random(self, inference: Inference) -> bool:
        """Whether a pass draws random numbers along a free axis, which no two networks of other widths do alike.

        Or whether what it runs hangs on them.
        """
        return self.graph.passes[inference.place].seed is not None or any(
            draws(node) and not is_stilled(node) and any(map(self.graph.is_free, _axes(inference, node)))
            for node in inference.nodes
        )

    def precision(self, inference: Inference) -> float:
        """The rounding of the least precise step of a pass."""
        if inference.place not in self._precision:
            values = (pytree.tree_leaves(node.meta.get("val")) for node in inference.program.graph.nodes)
            self._precision[inference.place] = max(_epsilons([v for some in values for v in some]), default=0.0)
        return self._precision[inference.place]

    @torch.no_grad()
    def objection(self, small: nn.Module, kept: Kept) -> str | None:
        """How the outputs of a cut network differ from those of the masked one, in words; None where they do not."""
        if any(tensor.is_meta for tensor in named_tensors(self.model).values()):
            return None
        for place, inference in enumerate(self.seen):
            if self.graph.passes[place].seed is not None and (problem := self.failure_in(inference, small, kept)):
                return f"{problem} (in the call {inference.call})"
            says_nothing_new = self.graph.passes[place].like is not None and not inference.switched
            if self.is_random(inference) or says_nothing_new:
                continue
            if (problem := self.objection_in(inference, small, kept)) is not None:
                return problem + (f" (in the call {inference.call})" if place else "")
        return None

    def failure_in(self, inference: Inference, small: nn.Module, kept: Kept) -> str | None:
        """What a cut network raises in a call in which, by chance, it runs this or that."""
        for seed in range(_DRAWS):
            call = with_states_cut(moved(self.model, inference.call), inference, kept)
            try:
                with rehearsal(small, call.training, seed=seed) as actor:
                    call.of(actor)
            except Exception as error:  # whatever the code of a network raises where a width does not suit it
                return blame(error, small)
        return None

    def objection_in(self, inference: Inference, small: nn.Module, kept: Kept) -> str | None:
        """As `objection`, in one call."""
        call = moved(self.model, inference.call)
        masked = HidingInterpreter(inference, kept)
        try:
            with open_to_trees(), rehearsal(self.model, call.training) as whole, Still():
                expected = masked.leaves(named_tensors(whole), call.args, call.kwargs)
        except AnotherWay as error:
            return str(error).partition("\n")[0]
        call = with_states_cut(moved(self.model, inference.call), inference, kept)
        try:
            with rehearsal(small, call.training) as actor, Still():
                output = call.of(actor)
        except Exception as error:  # whatever the code of a network raises where a width does not suit it
            return blame(error, small)
        with open_to_trees(output):
            got = pytree.tree_leaves(output)
        if len(expected) != len(got):
            return f"it has {len(got)} outputs instead of {len(expected)}"
        precision = max((self.precision(inference), *_epsilons(got)), default=0.0)
        for node, one, other, counts in zip(_returned(inference), expected, got, inference.counts, strict=True):
            if counts == "no" or not isinstance(one, Tensor):
                continue
            living = index(one, inference.dims[node], kept) if counts == "state" else one
            if (problem := _difference(living, other, precision)) is not None:
                return problem
        return None


def with_states_cut(call: Call, inference: Inference, kept: Kept) -> Call:
    """A call of the cut network: the states among the inputs, which the network itself made, are cut as it is."""
    states = state_leaves(call)
    if not any(states):
        return call
    with open_to_trees(call.args, call.kwargs):
        leaves, structure = pytree.tree_flatten((call.args, dict(call.kwargs)))
    specs = inference.program.graph_signature.input_specs
    nodes = [node for node in inference.program.graph.nodes if node.op == "placeholder"]
    given = [node for node, spec in zip(nodes, specs, strict=True) if spec.kind == InputKind.USER_INPUT]
    cut = [
        index(leaf, inference.dims[node], kept) if state and isinstance(leaf, Tensor) else leaf
        for leaf, node, state in zip(leaves, given, states, strict=True)
    ]
    with open_to_trees():
        args, kwargs = pytree.tree_unflatten(cut, structure)
    return replace(call, args=args, kwargs=kwargs)


def _returned(inference: Inference) -> list[Any]:
    [output] = [node for node in inference.program.graph.nodes if node.op == "output"]
    return list(output.args[0])


def _axes(inference: Inference, node: fx.Node) -> list[Any]:
    """The axes of what an operator gives."""
    dims = inference.dims.get(node, ())
    flat = [term for one in dims for term in (one if isinstance(one, tuple) else (one,))]
    return [axis for term in flat for axis in axes_of(term)]


def _places(inputs: Any) -> list[torch.device]:
    with open_to_trees(inputs):
        return [leaf.device for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _epsilons(values: Sequence[Any]) -> list[float]:
    return [
        torch.finfo(value.dtype).eps
        for value in values
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    ]


def _difference(expected: Tensor, got: Any, precision: float) -> str | None:
    """How an output differs by more than the root of a precision of its largest entry."""
    if not isinstance(got, Tensor) or got.shape != expected.shape:
        return f"an output is {getattr(got, 'shape', type(got).__name__)} instead of {expected.shape}"
    if not expected.is_floating_point():
        return None  # positions and counts hang on comparisons, which rounding may turn
    finite = expected.isfinite() & got.isfinite()
    if (expected.isfinite() != got.isfinite()).any():
        return "an output is not finite where the masked network's is"
    if not finite.any():
        return None
    tiny = torch.finfo(got.dtype).tiny
    distance = (expected - got)[finite].abs().max() / expected[finite].abs().max().clamp(min=tiny)
    if distance > precision**0.5:
        return f"its outputs differ from the masked network's by {distance.item():.1e} of the largest"
    return None
