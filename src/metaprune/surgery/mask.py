"""Mask: the same function as the slice, computed at full width. The independent oracle."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from metaprune.graph.arguments import wanted_cut
from metaprune.graph.call import named_arguments, where
from metaprune.graph.calling import Call
from metaprune.graph.capture import Captured, capture, mode_of
from metaprune.graph.draws import checks_a_draw, decides
from metaprune.graph.errors import TraceError
from metaprune.graph.flow import wrapped
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, read
from metaprune.graph.objects import open_to_trees
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu, undisturbed
from metaprune.graph.tensors import clone, named_tensors
from metaprune.graph.term import Term, channels, size
from metaprune.surgery.attention import written_out
from metaprune.surgery.translate import translated

__all__ = ["AnotherWay", "HidingInterpreter", "Masked", "Programs", "mask"]

_NORMALISING = {"aten.batch_norm", "aten.instance_norm", "aten.renorm", "aten.fused_moving_avg_obs_fake_quant"}
"""Operators that read across dimensions which their result has, too."""


class AnotherWay(TraceError):
    """The code decides by values of tensors, and goes another way on these than on those it was traced with."""


@undisturbed
def mask(model: nn.Module, graph: ChannelGraph, plan: Plan) -> Masked:
    """The function that `slice` computes, at full width: dead channels are invisible to whatever reads them.

    Args:
        model: The network that `graph` was traced from; copied.
        graph: From `mp.trace`.
        plan: The channels that stay.

    Returns:
        A module with the calling signature of `model`, and the methods that the graph was traced in; gradients flow to
        its `network`, of the full width. It is traced anew for each new kind of call (shapes of the inputs, modes).

    Raises:
        PlanError: The plan does not fit the graph.
    """
    wanted_cut("mask", model, graph, plan)
    model = written_out(model, graph.written_out)
    graph.check(model)
    plan.check(graph)
    return Masked(clone(model), graph, plan)


class Masked(nn.Module):
    """See `mask`."""

    def __init__(self, network: nn.Module, graph: ChannelGraph, plan: Plan) -> None:
        super().__init__()
        self.network = network
        self.plan = plan
        self.programs = Programs(network, graph)
        for method in {call.method for call in graph.calls} - {"forward"}:
            setattr(self, method, partial(self._answer, method))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the traced program, hiding dead channels from every operator that reads across them."""
        return self._answer("forward", *args, **kwargs)

    def _answer(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.programs.run(self.plan.kept, args, kwargs, method=method)


class Programs:
    """The traced programs of a network, one for each kind of call, to be run with channels hidden.

    A call of a kind that is new is traced, and read together with those that the graph was made from: the axes of the
    plan must be free in it too. So is a call in which the code, which decides by values, goes a way that is new.

    Args:
        network: The network at full width, whose tensors and modes are those of the moment.
        graph: Its channel graph.
        recorded: Whether programs made anew know the calls of the network's code.
    """

    def __init__(self, network: nn.Module, graph: ChannelGraph, recorded: bool = False) -> None:
        self.network = network
        self.graph = graph
        self.recorded = recorded
        self.known: dict[object, Inference] = {}
        self.interpreters: dict[object, tuple[Mapping[str, tuple[int, ...]], HidingInterpreter]] = {}
        for call, inference in zip(graph.calls, graph.inferences, strict=False):
            if graph.passes[inference.place].like is None:
                with mode_of(network, training=True) if call.training else nullcontext():
                    kind = self.kind(call.args, call.kwargs, call.method, modes=None if call.training else False)
                self.known[kind] = inference

    @on_the_cpu()
    @open_to_trees()
    def run(
        self,
        kept: Mapping[str, tuple[int, ...]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        silent: Set[str] = frozenset(),
        method: str = "forward",
    ) -> Any:
        """Call the network.

        Args:
            kept: Axis -> the channels that stay.
            args: Its inputs.
            kwargs: Its inputs by name.
            tensors: All its parameters and buffers by name; by default its own.
            silent: Parameters that are zero wherever a channel is gone: a product with them needs no hiding.
            method: Which of its methods.

        Raises:
            PlanError: Called like this, the network ties or fixes what `kept` cuts.
        """
        kwargs = dict(sorted(kwargs.items()))
        tensors = named_tensors(self.network) if tensors is None else tensors
        kind = self.kind(args, kwargs, method)
        if kind in self.known and self.known[kind].unchecked:
            self.forget(kind)
        try:
            return self.interpreter(kept, args, kwargs, silent, method).call(tensors, args, kwargs)
        except AnotherWay:
            self.forget(kind)
            return self.interpreter(kept, args, kwargs, silent, method).call(tensors, args, kwargs)

    def forget(self, kind: object) -> None:
        """Trace the next call of a kind anew."""
        del self.known[kind]
        self.interpreters.pop(kind, None)

    @on_the_cpu()
    @open_to_trees()
    def interpreter(
        self,
        kept: Mapping[str, tuple[int, ...]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        silent: Set[str] = frozenset(),
        method: str = "forward",
    ) -> HidingInterpreter:
        """What runs the program for inputs of this kind; arguments and errors as of `run`."""
        kind = self.kind(args, kwargs, method)
        if kind not in self.known:
            self.known[kind] = self._inferred(args, kwargs, method)
        was, known = self.interpreters.get(kind, (None, None))
        if known is None or (was is not kept and was != kept) or known.silent != silent:
            inference = self.known[kind]
            here = translated(self.graph, inference, kept)
            known = HidingInterpreter(inference, here, silent)
            self.interpreters[kind] = kept, known
        return known

    def _inferred(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str) -> Inference:
        """The program in the network's own precision: autocast is of the call, and so are inputs that it rounded."""
        device = next(self.network.parameters()).device.type
        if torch.is_autocast_enabled(device):
            low = torch.get_autocast_dtype(device)
            args, kwargs = pytree.tree_map_only(Tensor, lambda x: x.float() if x.dtype == low else x, (args, kwargs))
        with torch.autocast(device, enabled=False):
            call = Call(args, kwargs, method, self.network.training, self._states(args, kwargs, method))
            captured = capture(self.network, call, self.recorded, as_it_is=True)
            ours = [one for one in self.graph.inferences if self.graph.passes[one.place].like is None]
            known = [Captured(one.program, (), frozenset(), one.call) for one in ours]
            further = [captured] if known else []
            return read(self.network, known or [captured], self.graph.ties, self.graph.outputs, further)[-1]

    def _states(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str) -> tuple[str | int, ...]:
        """Those of the inputs that are states in the calls that the graph was made from, by name or by place."""
        known = {state for call in self.graph.calls for state in call.states}
        names = list(inspect.signature(getattr(self.network, method)).parameters) if known else []
        known |= {name for place, name in enumerate(names) if place in known}
        placed = tuple(place for place, name in enumerate(names[: len(args)]) if name in known)
        return (*placed, *(name for name in kwargs if name in known))

    def kind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str, modes: bool | None = None) -> object:
        """What a program is traced for: the mode of every module, and the inputs but for their values."""
        with open_to_trees(args, kwargs):
            leaves, tree = pytree.tree_flatten((args, dict(kwargs)))
        inputs = [(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in leaves]
        return (
            method,
            tuple(module.training if modes is None else modes for module in self.network.modules()),
            str(tree),
            *inputs,
        )


class HidingInterpreter(fx.Interpreter):
    """Runs the program of an inference, hiding all channels but those kept.

    Args:
        seen: The inference.
        kept: Axis -> the channels that stay.
        silent: As for `Programs.run`.
        body: The part of the program to run; by default all of it.
    """

    def __init__(
        self,
        seen: Inference,
        kept: Mapping[str, tuple[int, ...]],
        silent: Set[str] = frozenset(),
        body: fx.GraphModule | None = None,
    ) -> None:
        super().__init__(body or seen.program.graph_module)
        self.seen = seen
        self.kept = kept
        self.silent = silent
        pairs = zip(seen.operators, seen.nodes, strict=True)
        self.contractions = {node for operator, node in pairs if operator.macs}
        self.hidden: dict[fx.Node, dict[str, dict[int, Tensor]]] = {}

    @on_the_cpu()
    def call(self, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the whole program.

        Args:
            tensors: All parameters and buffers of the network by name.
            args: Inputs of the shapes that the inference was made from.
            kwargs: The same by name, in the same order.
        """
        outputs = self.leaves(tensors, args, kwargs)
        with open_to_trees():
            return pytree.tree_unflatten(outputs, self.seen.program.call_spec.out_spec)

    def leaves(self, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """As `call`, but the leaves of the output."""
        with open_to_trees(args, kwargs):
            given = iter(pytree.tree_leaves((args, dict(kwargs))))
        inputs = []
        for spec in self.seen.program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(next(given))
            else:
                known = spec.target in tensors
                inputs.append(tensors[spec.target] if known else self.seen.program.constants[spec.target])
        return list(self.run(*inputs))

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an operator, those that its mode switches as they are in this pass."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        for name, value in self.seen.switched.get(n, {}).items():
            place = [argument.name for argument in n.target._schema.arguments].index(name)  # type: ignore[union-attr]
            args, kwargs = (
                ((*args[:place], value, *args[place + 1 :]), kwargs)
                if place < len(args)
                else (args, kwargs | {name: value})
            )
        return args, kwargs

    def run_node(self, n: fx.Node) -> Any:
        """Run one operator; what it reads across is hidden (contractions) or left out (statistics)."""
        if n not in self.hidden:
            self.hidden[n] = self.living(n)
        living = self.hidden[n]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if (body := wrapped(n)) is not None:
            hiding = HidingInterpreter(self.seen, self.kept, self.silent, getattr(self.module, str(body.target)))
            given = [hiding.run if arg is body else value for arg, value in zip(n.args, args, strict=True)]
            return n.target(*given, **kwargs)  # type: ignore[operator]
        if n.target is torch.ops.aten.view.default:  # hidden channels may lie elsewhere in memory
            return torch.reshape(*args)
        if not living:
            return self.decided(n) if decides(n) else super().run_node(n)
        name = _name(n)
        if self.silent and name in {"aten.layer_norm", "aten.rms_norm"} and len(args[1]) == 1:
            [stays] = living["input"].values()
            return _norm_in_place(n.target, named_arguments(n.target, args, kwargs), stays)
        if name in {"aten.layer_norm", "aten.rms_norm", "aten.group_norm"}:
            return _norm(name, n.target, args, living["input"])
        if name == "aten._weight_norm":  # channels of the weight are hidden from the norm over it
            return n.target(_hide(args[0], living["v"]), *args[1:], **kwargs)  # type: ignore[operator]
        if name == "aten.scaled_dot_product_attention":
            return _attention(n.target, named_arguments(n.target, args, kwargs), living, hide=not self.silent)
        if n in self.contractions:
            names = [argument.name for argument in n.target._schema.arguments]  # type: ignore[union-attr]
            hidden = list(args)
            for argument, dims in living.items():
                top, _, inner = argument.partition(".")
                place = names.index(top)
                if inner:
                    hidden[place] = [_hide(t, dims) if str(i) == inner else t for i, t in enumerate(hidden[place])]
                else:
                    hidden[place] = _hide(hidden[place], dims)
            return n.target(*hidden, **kwargs)  # type: ignore[operator]
        names = [argument.name for argument in n.target._schema.arguments]  # type: ignore[union-attr]
        pressed = [_select(value, living.get(argument, {})) for argument, value in zip(names, args, strict=False)]
        result = n.target(*pressed, **kwargs)  # type: ignore[operator]
        first = next(iter(living.values()))
        return _scatter(result, args[0], first) if "softm" in name or name in _NORMALISING else result

    def decided(self, n: fx.Node) -> Any:
        """Check a decision of the code by values; what was decided by a draw is repeated, whatever is drawn here."""
        try:
            return super().run_node(n)
        except RuntimeError as error:
            if checks_a_draw(n):
                return None
            self.extra_traceback = False
            raise AnotherWay(
                f"mask: the code decides by values of a tensor at {where(n, None)}, and goes another way here than on "
                "the inputs that it was traced with;\ngive inputs that go that way, or decide by torch.where"
            ) from error

    def living(self, node: fx.Node) -> dict[str, dict[int, Tensor]]:
        """Per argument and dimension that `node` reads across and that has dead channels: the living ones."""
        if node in self.contractions and any(self.seen.owner.get(read) in self.silent for read in node.all_input_nodes):
            return {}
        result: dict[str, dict[int, Tensor]] = {}
        schema = getattr(node.target, "_schema", None)
        for argument, over in self.seen.reads.get(node, {}).items():
            top, _, inner = argument.partition(".")
            place = next(i for i, known in enumerate(schema.arguments) if known.name == top)  # type: ignore[union-attr]
            value = node.args[place] if place < len(node.args) else node.kwargs[top]
            value = value[int(inner)] if inner else value  # type: ignore[index]
            terms: tuple[Term, ...] = self.seen.dims[value]  # type: ignore[index]
            for dim in over:
                stays = channels(terms[dim], self.kept)
                if len(stays) < size(terms[dim]):
                    result.setdefault(argument, {})[dim] = stays
        return result


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).rstrip("_")


def _hide(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """Zeros in the place of dead channels, whatever stood there (infinities too); the layout in memory stays."""
    for dim, stays in dims.items():
        dead = torch.ones(tensor.shape[dim], dtype=torch.bool, device=stays.device).index_fill(0, stays, False)
        tensor = tensor.index_fill(dim, dead.nonzero().flatten().to(tensor.device), 0)
    return tensor


def _select(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    for dim, stays in dims.items():
        tensor = tensor.index_select(dim, stays.to(tensor.device))
    return tensor


def _scatter(living: Tensor, like: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    for dim, stays in dims.items():
        shape = list(living.shape)
        shape[dim] = like.shape[dim]
        living = living.new_zeros(shape).index_copy(dim, stays.to(living.device), living)
    return living


def _attention(
    target: Any, given: dict[str, Any], living: Mapping[str, Mapping[int, Tensor]], hide: bool = True
) -> Tensor:
    """Attention to the living keys alone; dead channels of a head are hidden, unless they are zero anyway."""
    for name, dims in living.items():
        tensor = given[name]
        keys = tensor.dim() - (1 if name == "attn_mask" else 2)
        pressed = _select(tensor, {dim: stays for dim, stays in dims.items() if dim == keys})
        given[name] = _hide(pressed, {dim: stays for dim, stays in dims.items() if dim != keys}) if hide else pressed
    return target(**given)  # type: ignore[no-any-return]


def _norm_in_place(target: Any, given: dict[str, Any], stays: Tensor) -> Tensor:
    """A layer or root mean square norm over the living of the last dimension, without moving them.

    Of n' living among n channels: with their own mean in the place of the dead, the mean over all is theirs, and the
    variance is theirs times n'/n; with zeros, so is the mean square. Hence norm'(x) = sqrt(n'/n) norm(x), where eps
    counts n'/n. The dead come out as zeros, but for rounding. Gradients: see `_LikeTheLiving`.
    """
    source, [size] = given["input"], given["normalized_shape"]
    share = len(stays) / size
    alive = torch.zeros(size, dtype=torch.bool, device=source.device)
    alive[stays.to(source.device)] = True
    centred = "bias" in given
    scale = share**0.5 * given["weight"] if given.get("weight") is not None else source.new_full((size,), share**0.5)
    changed: dict[str, Any] = {
        "input": _Filled.apply(source, alive, centred),  # type: ignore[no-untyped-call]
        "weight": torch.where(alive, scale, float(centred)),
        "eps": share * (torch.finfo(source.dtype).eps if given["eps"] is None else given["eps"]),
    }
    if given.get("bias") is not None:
        changed["bias"] = given["bias"] * alive
    result: Tensor = target(**given | changed)
    return _LikeTheLiving.apply(result, scale.detach(), alive) if centred else result  # type: ignore[no-untyped-call]


def _mean_of_living(tensor: Tensor, alive: Tensor, factor: Tensor | float = 1.0) -> Tensor:
    """The mean of the living, times a factor each, along the last dimension, which stays as 1: one pass over them."""
    with torch.autocast(tensor.device.type, enabled=False):
        return torch.matmul(tensor, (alive * factor).to(tensor.dtype))[..., None] / alive.sum()


def _filled(tensor: Tensor, alive: Tensor, filling: Tensor) -> Tensor:
    """`where`, at twice its speed on a CPU: the weights 0 and 1 give either exactly."""
    return torch.lerp(tensor, filling, (~alive).to(tensor.dtype))


class _Filled(Function):
    """The mean of the living in the place of the dead, or zeros, ahead of a norm whose dead have a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, alive: Tensor, centred: bool) -> Tensor:
        """What stood in the dead places does not matter, if it is finite."""
        return _filled(source, alive, _mean_of_living(source, alive) if centred else source.new_zeros(()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Nothing reaches the dead, nor the mean: the norm's gradient is that of a norm over the living."""
        return gradient, None, None


class _LikeTheLiving(Function):
    """Behind a centred norm over filled places: the norm's gradient becomes that of a norm over the living alone.

    A norm takes the mean of its outputs' gradients (times its weight w) off them. With the mean of the living in the
    place of the dead, whose w is 1, that mean is the living's own, and what is left for the dead is zero.
    """

    @staticmethod
    def forward(ctx: Any, result: Tensor, scale: Tensor, alive: Tensor) -> Tensor:
        """The norm's output as it is."""
        ctx.save_for_backward(scale, alive)
        return result.view_as(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Fill the dead places."""
        scale, alive = ctx.saved_tensors
        return _filled(gradient, alive, _mean_of_living(gradient, alive, scale)), None, None


def _norm(name: str, target: Any, args: tuple[Any, ...], dims: Mapping[int, Tensor]) -> Tensor:
    """A norm over the living channels alone."""
    source, shape, *rest = args
    living = _select(source, dims)
    affine = []
    for tensor in rest:
        if isinstance(tensor, Tensor):
            first = 1 if name == "aten.group_norm" else source.ndim - tensor.ndim
            tensor = _select(tensor, {dim - first: stays for dim, stays in dims.items() if dim >= first})
        affine.append(tensor)
    if name == "aten.group_norm":
        block = source.shape[1] // shape
        return _scatter(target(living, len(torch.unique(dims[1] // block)), *affine), source, dims)
    return _scatter(target(living, list(living.shape[-len(shape) :]), *affine), source, dims)
