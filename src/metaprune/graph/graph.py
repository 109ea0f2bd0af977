"""The channel graph: what can be cut in a network, and what every tensor and operator is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call
from metaprune.graph.errors import PlanError
from metaprune.graph.flow import Flow
from metaprune.graph.notebook import html_table
from metaprune.graph.provenance import Number
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import Axis, Term, axes_of, fold, size, width
from metaprune.graph.uses import Use, conflicts

__all__ = ["Branch", "ChannelGraph", "Operator", "Pass", "Size", "Tie", "WidthLimits"]

_DIGITS = re.compile(r"\d+")


class Tie(NamedTuple):
    """Two terms that are one, because one number in the code, at `where`, holds the size of both."""

    one: Term
    other: Term
    where: str


@dataclass(frozen=True)
class Size:
    """A size that an operator was given as a number.

    Attributes:
        term: The dimension that has this size.
        number: What the code computed it from; None where that cannot be told.
    """

    term: Term
    number: Number | None


@dataclass(frozen=True)
class Operator:
    """One operator of the network, in order of execution.

    Attributes:
        name: As `aten.conv2d`.
        path: The module whose `forward` called it.
        layer: The module that holds its weight, or `path` where it has none.
        where: File and line of the call.
        outputs: The dimensions of every tensor it returns.
        operands: Where each of its operands comes from, in the order of its arguments.
        macs: Products of dimensions that, multiplied and summed, are its multiply-accumulates (of the whole batch).
        scalars: The numbers among its arguments that enter the computation.
        computed: Whether code may have computed one of them from a size.
        literal: Whether it was given the size of a free axis as a number of which nobody knows where it comes from.
        sizes: The sizes it was given as numbers.
        scale: The dimension whose size it turns into a scale by itself (attention).
        statistics: The dimensions that it normalises or averages over.
        uses: What it does with the network's tensors, along each axis of each dimension.
        unabsorbed: Axes whose channels it mixes so that none can take over what another contributed, with the reason.
    """

    name: str
    path: str
    layer: str
    where: str
    outputs: tuple[tuple[Term, ...], ...]
    operands: Flow = ()
    macs: tuple[tuple[Term, ...], ...] = ()
    scalars: tuple[float, ...] = ()
    computed: bool = False
    literal: bool = False
    sizes: tuple[Size, ...] = ()
    scale: Term | None = None
    statistics: tuple[Term, ...] = ()
    uses: tuple[Use, ...] = ()
    unabsorbed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Branch:
    """A comparison of two numbers in the network's code, at `where`: the code may take another way at other sizes.

    Attributes:
        where: File and line.
        sign: As `==` or `>`.
        left: What the first number was computed from.
        right: The second.
    """

    where: str
    sign: str
    left: Number
    right: Number


@dataclass(frozen=True)
class WidthLimits:
    """What the widths of axes must obey, whoever decides. Made by `mp.Limits.on`.

    Attributes:
        least: Axis -> the smallest width it may have.
        most: Axis -> the largest.
        alike: Axes that have one width.
        alike_channels: Axes that have one width and keep the same channels.
        together: Axes of which the same share stays, whatever their sizes.
        said: Axis -> the limit in the user's words.
    """

    least: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    alike: tuple[tuple[str, ...], ...] = ()
    alike_channels: tuple[tuple[str, ...], ...] = ()
    together: tuple[tuple[str, ...], ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """What a network does in one of the calls that it was traced in.

    Attributes:
        call: How it was called.
        operators: The operators in order of execution.
        returned: Where each of the outputs comes from.
        constants: Of each tensor that the code makes the line that does, and a digest.
        branches: Where the code compares numbers that it computed from sizes.
        like: The place of another pass that runs the same operators, but for what the mode of a network switches:
            dropout, and the statistics of batch norm. None where there is none.
        seed: Where the random numbers started, if what the code runs hangs on them: the pass is one of several. What it
            says of axes holds, but a cut network is not compared with it, since it may run something else.
    """

    call: Call
    operators: tuple[Operator, ...] = field(default=(), repr=False)
    returned: Flow = field(default=(), repr=False)
    constants: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    branches: tuple[Branch, ...] = field(default=(), repr=False)
    like: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ChannelGraph:
    """Axes, and every dimension of every tensor as a term over them. Made by `mp.trace`; prints as a table.

    Attributes:
        axes: Name -> axis, in order of execution. Axes with a reason in `fixed` must keep their size.
        tensors: Qualified name of every parameter and buffer -> one term per dimension.
        parameters: The names of the parameters, each tied one once.
        passes: What the network does in each of the calls that it was traced in; costs are those of the first.
        numbers: (module, attribute) -> the term whose size the attribute holds.
        unfollowed: (module, attribute) -> a term of the size that the attribute equals, where nothing was followed to
            it from there: such a number stays what it is.
        uncaptured: Why the training forward of the example inputs is not among the passes; None where it is.
        outputs: Which outputs count, as `mp.trace` was told.
        ties: Pairs of terms made one, in the stages they were found in.
        tables: Name of each tensor that a module holds as a plain attribute -> one term per dimension.
        inferences: What each pass was read from.
        written_out: The attention modules of PyTorch's that were written out, each with how it is called.
        limits: What the widths of axes must obey.
    """

    axes: Mapping[str, Axis]
    tensors: Mapping[str, tuple[Term, ...]] = field(repr=False)
    parameters: tuple[str, ...] = field(repr=False)
    passes: tuple[Pass, ...]
    numbers: Mapping[tuple[str, str], Term] = field(repr=False)
    unfollowed: Mapping[tuple[str, str], Term] = field(default_factory=dict, repr=False)
    uncaptured: str | None = None
    outputs: Any = None
    ties: tuple[tuple[Tie, ...], ...] = field(default=(), repr=False)
    tables: Mapping[str, tuple[Term, ...]] = field(default_factory=dict, repr=False)
    inferences: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    written_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    limits: WidthLimits = field(default_factory=WidthLimits, repr=False)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators of the first pass, in order of execution."""
        return self.passes[0].operators

    @property
    def every_operator(self) -> Iterator[Operator]:
        """The operators of all passes that differ, one pass after the other."""
        return (operator for one in self.passes if one.like is None for operator in one.operators)

    @property
    def args(self) -> tuple[Any, ...]:
        """The example inputs; the first dimension of the first tensor is the batch."""
        return self.passes[0].call.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The example inputs by name."""
        return self.passes[0].call.kwargs

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that the network was traced in."""
        return tuple(one.call for one in self.passes)

    @cached_property
    def batch(self) -> int:
        """Examples in the example inputs."""
        inputs = [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]
        return inputs[0].shape[0] if inputs and inputs[0].ndim else 1

    @property
    def inference(self) -> Any:
        """What the first pass was read from."""
        return self.inferences[0] if self.inferences else None

    @property
    def free(self) -> dict[str, Axis]:
        """The axes that may be cut."""
        return {name: axis for name, axis in self.axes.items() if axis.fixed is None}

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """What all calls together do with the network's tensors, each use once."""
        return tuple(dict.fromkeys(use for operator in self.every_operator for use in operator.uses))

    @cached_property
    def unabsorbed(self) -> dict[str, str]:
        """The free axes whose channels cannot take over what another of them contributed, each with the reason.

        Along all others, a channel that computes the same as one that goes makes up for it by the sum of the weights
        that read the two.
        """
        found = conflicts(self.uses)
        for operator in self.every_operator:
            found |= {axis: why for axis, why in operator.unabsorbed if axis not in found}
        return {axis: why for axis, why in found.items() if axis in self.free}

    def is_free(self, axis: Axis) -> bool:
        """Whether the axis, met in a term, may be cut."""
        known = self.axes.get(axis.name)
        return known is not None and known.fixed is None

    def check(self, model: nn.Module) -> None:
        """Check that this is the graph of `model`: the same tensors, with the same sizes.

        Raises:
            PlanError: It is the graph of another network, or of this one before it was cut.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
        ours = {name: tuple(map(size, terms)) for name, terms in self.tensors.items()}
        if shapes != ours:
            name = next(name for name in [*shapes, *ours] if shapes.get(name) != ours.get(name))
            raise PlanError(
                f"graph: it is not of this {type(model).__name__}: tensor {name!r} is {shapes.get(name, 'missing')} in "
                f"the network and {ours.get(name, 'missing')} in the graph; trace the network again"
            )

    def fixing(self, reasons: Mapping[str, str]) -> ChannelGraph:
        """The same graph with some axes fixed, each for its reason."""
        axes = {name: replace(axis, fixed=reasons.get(name, axis.fixed)) for name, axis in self.axes.items()}
        return replace(self, axes=axes)

    def free_share(self) -> float:
        """Share of the parameters (entries) that lie on at least one free axis."""
        total = free = 0
        for name in self.parameters:
            count = 1
            for term in self.tensors[name]:
                count *= size(term)
            total += count
            free += count * any(self.is_free(axis) for term in self.tensors[name] for axis in axes_of(term))
        return free / total if total else 0.0

    def left_alone(self, widths: Mapping[str, int] | None = None) -> list[str]:
        """The numbers in `unfollowed`, alike ones in one line: "heads = 4, as large as blocks.0.q".

        Args:
            widths: Axis -> width; only what these change the size of. By default all.
        """
        alike: dict[tuple[str, int, str], list[str]] = {}
        for (path, attribute), term in self.unfollowed.items():
            if widths is None or width(term, widths) != size(term):
                name = f"{path}.{attribute}" if path else attribute
                like = fold(term, lambda axis: axis.name or str(axis.size), " × ".join, " + ".join)
                alike.setdefault((_DIGITS.sub("*", name), size(term), _DIGITS.sub("*", like)), []).append(
                    f"{name} = {size(term)}, as large as {like}"
                )
        return [
            lines[0] + (f" (and {len(lines) - 1} more like it)" if len(lines) > 1 else "") for lines in alike.values()
        ]

    def said_of_calls(self) -> list[str]:
        """In which calls all this holds, where they are more than the forward of the example inputs, in words."""
        calls = list(dict.fromkeys(map(str, self.calls)))
        lines = [f"it holds in the calls {', '.join(calls)}"] if len(calls) > 1 else []
        lines += [
            f"what {call} runs hangs on random numbers: outputs of a cut network are not compared in it"
            for call in dict.fromkeys(str(one.call) for one in self.passes if one.seed is not None)
        ]
        if self.uncaptured is not None:
            lines.append(f"the training forward of the example inputs could not be captured: {self.uncaptured}")
        return lines

    def __repr__(self) -> str:
        """How many axes there are, and how much lies on those that may be cut."""
        return f"ChannelGraph({self._counted()}; print it for a table)"

    def _repr_html_(self) -> str:
        rows = [(name, axis.size, _about(axis)) for name, axis in self.axes.items()]
        return html_table(self._counted(), ("axis", "size", "members, or why it is fixed"), rows)

    def _counted(self) -> str:
        free = f"{len(self.free)} of {len(self.axes)} axes free"
        return f"{free}; {self.free_share():.1%} of the parameters on them"

    def __str__(self) -> str:
        """A table: axis, size, and its members or the reason why it is fixed; then calls, and numbers that stay."""
        names = max([len(name) for name in self.axes], default=4)
        lines = [f"{'axis':<{names}}  {'size':>6}  members, or why it is fixed"]
        for name, axis in self.axes.items():
            lines.append(f"{name:<{names}}  {axis.size:>6}  {_about(axis)}")
        lines.append(self._counted())
        lines += self.said_of_calls()
        if numbers := self.left_alone():
            lines += ["numbers that equal a free size, were not followed to it, and stay as they are:"]
            lines += [f"  {line}" for line in numbers]
        return "\n".join(lines)


def _about(axis: Axis, most: int = 4) -> str:
    if axis.fixed is not None:
        return f"fixed: {axis.fixed}"
    more = f" and {len(axis.members) - most} more" if len(axis.members) > most else ""
    return ", ".join(axis.members[:most]) + more
