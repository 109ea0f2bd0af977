"""The metanetwork: message passing over a network's graph that gives each weight a small edit, each channel a rank.

Source: Liu, Wang, Zhang, 2025, arXiv 2506.12041: encoders of nodes and edges, message passing in both directions with
the four aggregates of Corso et al. 2020 (arXiv 2004.05718), decoders with a residual. Departures and their reasons are
in the method's README.

Notation: h, the size of states; H, node states; a, z, p, q, four maps of the normalised node states (what a node sends,
how it receives, and the two factors of its gates); e, edge states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.editor.dense import (
    CHUNK,
    KEPT,
    PILED,
    Decoder,
    Gate,
    Start,
    decode,
    edge_states,
)
from metaprune.methods.graph_metanetwork.editor.pile import Pile
from metaprune.methods.graph_metanetwork.expectation import Expectation
from metaprune.methods.graph_metanetwork.reading.features import (
    AXIS_FEATURES,
    EVIDENCE_FEATURES,
    IDENTITY_FEATURES,
    TAP_FEATURES,
    TENSOR_FEATURES,
)
from metaprune.methods.graph_metanetwork.reading.incidence import PLACES, Incidence
from metaprune.methods.graph_metanetwork.reading.network_graph import Block, NetworkGraph
from metaprune.methods.graph_metanetwork.reading.survey.survey import columns

__all__ = ["Edited", "Metanetwork", "Passed", "Scored", "aggregate"]

Scored = Literal["channels", "axes", "both", "widths"]
"""What has a score of its own."""

EPSILON = 1e-5
"""Added to variances before the root."""

WIDEST = 1.0
"""No axis is said to be wider or narrower than the criterion has it by more than this, as a logarithm."""


class Edited(NamedTuple):
    """What a metanetwork says of a network.

    Attributes:
        weights: Name of a parameter that trains -> its new values, of its shape, dtype and device.
        scores: How far each channel is raised in the ranking: its weight there counts exp(score) times.
        tilts: For each axis, by how much it is to be wider than the criterion has it, as a logarithm; zeros where
            something else has a score, and for axes that may not be cut.
    """

    weights: dict[str, Tensor]
    scores: Float[Tensor, " nodes"]
    tilts: Float[Tensor, " axes"]


class Passed(NamedTuple):
    """What message passing leaves behind: H after the last layer, shape (nodes, h), and the edges."""

    states: Float[Tensor, " nodes h"]
    piles: tuple[Pile, ...]


class Layer(nn.Module):
    """One round of messages: the weights, which both directions share.

    Args:
        hidden: h.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.maps = nn.Linear(hidden, 4 * hidden)
        self.join = nn.Linear(4 * hidden, hidden)


class Encoder(nn.Sequential):
    """Two linear layers around a SiLU."""

    def __init__(self, features: int, hidden: int, results: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, results))


class Writer(nn.Module):
    """The weights of a decoder of edits; zero edits at the start.

    Args:
        hidden: h.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Parameter(torch.zeros(hidden, hidden))


class Metanetwork(nn.Module):
    """Edits the weights of any network: its own parameters do not depend on which. Before training it changes nothing.

    Args:
        hidden: h, the size of node and edge states; even.
        layers: Rounds of messages; with none, for widths alone, an axis is known by what is told of it.
        step: How large edits are, as a share of a tensor's root mean square (absolute where `relative` is false).
        relative: Whether weights are read and edited relative to each tensor's root mean square, so that the scale of a
            tensor, which norms and rescaling make arbitrary, is a feature and no more.
        surveys: Groups of what else it is told of each axis (`survey.GROUPS`): what asks with it must survey these.
        scored: What has a score of its own: "channels"; "axes", which leaves the order of channels inside each to the
            criterion; "both", an axis's score and how far a channel is above the mean of its axis; or "widths", by how
            much each axis is to be wider than the criterion has it, which leaves the order of channels alone, too.
        edits: Whether weights are edited; else it ranks only, in half the time.
        held: Whether what the data say of a channel, to it and to its criterion, is of a gate on all that holds it
            (`saliency.gate_gradients`), as in metanetworks of before; such files are read so.

    Attributes:
        expectation: What it can expect to gain above its criterion, where that was measured; it goes to its file, too.

    Example:
        >>> metanetwork = Metanetwork(hidden=16, layers=3)
        >>> edited = metanetwork(graph_of(model, mp.trace(model, args)))  # doctest: +SKIP
    """

    def __init__(
        self,
        hidden: int = 32,
        layers: int = 4,
        step: float = 0.1,
        relative: bool = True,
        surveys: Sequence[str] = (),
        scored: Scored = "channels",
        edits: bool = True,
        held: bool = False,
    ) -> None:
        super().__init__()
        if hidden < 2 or hidden % 2:
            raise MetapruneError(f"Metanetwork: expected an even number from 2 as hidden, got {hidden!r}")
        if layers < (0 if scored == "widths" and not edits else 1):
            raise MetapruneError(
                f"Metanetwork: expected layers from 1 (from 0 where only widths have a score), got {layers!r}"
            )
        if not 0 < step < float("inf"):
            raise MetapruneError(f"Metanetwork: expected a positive step, got {step!r}")
        if scored not in get_args(Scored):
            raise MetapruneError(f"Metanetwork: expected scored as {' or '.join(get_args(Scored))}, got {scored!r}")
        self.hidden = hidden
        self.step = step
        self.relative = relative
        self.surveys = tuple(surveys)
        self.scored: Scored = scored
        self.edits = edits
        self.held = held
        self.expectation: Expectation | None = None
        surveyed = columns(self.surveys)
        self.read_axis = Encoder(AXIS_FEATURES, hidden, hidden)
        self.read_identity = nn.Linear(IDENTITY_FEATURES, hidden, bias=False)
        self.read_evidence = Encoder(EVIDENCE_FEATURES, hidden, hidden)
        self.read_tensor = Encoder(TENSOR_FEATURES, hidden, 3 * hidden)
        self.read_taps = Encoder(TAP_FEATURES, hidden, hidden)
        self.places = nn.Parameter(1 + 0.1 * torch.randn(hidden, PLACES))
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(layers))
        self.write_edges = Writer(hidden)
        self.write_attributes = Writer(hidden)
        self.write_taps = Encoder(TAP_FEATURES, hidden, hidden)
        self.write_scores = Encoder(hidden, hidden, 1)
        nn.init.zeros_(self.write_scores[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.write_scores[2].bias)  # type: ignore[arg-type]
        if surveyed:
            self.read_survey = Encoder(surveyed, hidden, hidden)
        if scored == "widths":
            self.read_widths = nn.Linear(1 + AXIS_FEATURES + surveyed, 1, bias=False)
            nn.init.zeros_(self.read_widths.weight)
        if scored != "channels":
            self.write_axes = Encoder(hidden, hidden, 1)
            nn.init.zeros_(self.write_axes[2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.write_axes[2].bias)  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make another like this."""
        return {
            "hidden": self.hidden,
            "layers": len(self.layers),
            "step": self.step,
            "relative": self.relative,
            "surveys": list(self.surveys),
            "scored": self.scored,
            "edits": self.edits,
            "held": self.held,
        }

    def forward(self, graph: NetworkGraph) -> Edited:
        """The edited tensors of a network, w' = w + step · scale · decoded, and the scores of its channels.

        Besides one copy of the network's weights, memory does not grow with its number of edges: edge states are made
        where they are needed and made again in the backward pass.

        Returns:
            Differentiable in the metanetwork's parameters.
        """
        graph = graph.to(self.places.device)
        passed = self.passed(graph) if len(self.layers) else None
        normed = None if passed is None else F.layer_norm(passed.states, (self.hidden,))
        scores, tilts = self.scores(graph, normed), self.tilts(graph, normed)
        if passed is None or not self.edits:
            return Edited({block.name: block.tensor(block.matrix).clone() for block in graph.learned}, scores, tilts)
        edited: dict[str, Tensor] = {}
        for pile in passed.piles:
            if any(block.learned for block in pile.blocks):
                edited |= self.edited(pile, pile.decoded(self.decoder(pile, self.write_edges)))
        of_positions = graph.held.gather(passed.states, graph.held.gains(self.places.T))
        for pile in self.piles(graph.attributes):
            if any(block.learned for block in pile.blocks):
                [of_nodes] = pile.of_positions(of_positions[pile.rows])
                states = edge_states(pile.matrix, pile.start, [])[:, :, 0] + of_nodes
                decoder = self.decoder(pile, self.write_attributes)
                edits = decode(states.view(len(pile.blocks), -1, states.shape[1]), decoder)
                edited |= self.edited(pile, edits[..., None])
        return Edited(edited, scores, tilts)

    def scores(self, graph: NetworkGraph, states: Float[Tensor, " nodes h"] | None) -> Float[Tensor, " nodes"]:
        """How far each channel is raised, see `scored`; `states` are normed, none without messages."""
        if states is None or self.scored == "widths":
            return self.places.new_zeros(len(graph.axis))
        own: Tensor = self.write_scores(states)[:, 0]
        if self.scored == "channels":
            return own
        axes: Tensor = self.write_axes(_means(states, graph))[:, 0]
        if self.scored == "axes":
            return axes[graph.axis]
        return axes[graph.axis] + own - _means(own[:, None], graph)[graph.axis, 0]

    def tilts(self, graph: NetworkGraph, states: Float[Tensor, " nodes h"] | None) -> Float[Tensor, " axes"]:
        """See `Edited.tilts`: linear in how what is told of an axis differs from the mean of all that may be cut.

        What messages (`states`, normed) say is added.

        Raises:
            MetapruneError: The graph was not surveyed as it must be.
        """
        found = self.places.new_zeros(len(graph.names))
        if self.scored != "widths" or not (cut := graph.free):
            return found
        free = torch.tensor([place for place, name in enumerate(graph.names) if name in cut])
        told = graph.axes.to(self.places)[free]
        if self.surveys:
            told = torch.cat([told, self.survey(graph)[free]], 1)
        told = torch.cat([torch.ones_like(told[:, :1]), told - told.mean(0)], 1)
        said: Tensor = self.read_widths(told)[:, 0]
        if states is not None:
            said = said + self.write_axes(_means(states, graph)[free])[:, 0]
        return found.index_copy(0, free.to(found.device), WIDEST * torch.tanh(said))

    def passed(self, graph: NetworkGraph) -> Passed:
        """All rounds of messages: H <- H + join(to columns) + join(to rows), with e gated between the rounds."""
        h = self.hidden
        states = self.first_states(graph)
        keep = not torch.is_grad_enabled() and h * sum(block.matrix[0].numel() for block in graph.edges) <= KEPT
        piles = tuple(_kept(self.piles(graph.edges, PILED), states) if keep else self.piles(graph.edges))
        sign = states.new_ones(h)
        sign[h // 2 :] = -1
        row_gains, column_gains = (side.gains(self.places.T.repeat(1, 3)) for side in (graph.rows, graph.columns))
        over_rows = graph.rows.total(_counts(graph.edges, 2, states)).clamp(min=1)
        over_columns = graph.columns.total(_counts(graph.edges, 1, states)).clamp(min=1)
        for layer in self.rounds():
            a, z, p, q = F.silu(layer.maps(F.layer_norm(states, (h,)))).chunk(4, 1)
            rows = _remade(graph.rows.gather, torch.cat([a, p, q], 1), row_gains)
            columns = _remade(graph.columns.gather, torch.cat([sign * a, q, p], 1), column_gains)
            to_rows, to_columns = list[Tensor](), list[Tensor]()
            for pile in piles:
                at_rows, at_columns = pile.of_positions(rows[pile.rows]), pile.of_positions(columns[pile.columns])
                found = pile.received(at_rows[0], at_columns[0])
                to_rows.append(pile.to_positions(found[0]))
                to_columns.append(pile.to_positions(found[1]))
                pile.pass_through(
                    Gate(at_rows[1:].permute(1, 2, 0).contiguous(), at_columns[1:].transpose(0, 1).contiguous())
                )
            if piles:
                of_rows = _remade(aggregate, z, graph.rows, to_rows, over_rows)
                of_columns = _remade(aggregate, z, graph.columns, to_columns, over_columns)
                states = states + layer.join(of_rows) + layer.join(of_columns)
        return Passed(states, piles)

    def piles(self, edges: Sequence[Block], most: int = CHUNK) -> Iterator[Pile]:
        """Small tensors of one shape together, up to so many states; a large one alone, and without a copy.

        States start linear in the kernel, whatever its size: e_0 = (1 + g) · sum_u w_u k(u) / sqrt(taps) + b, where g
        and b know the tensor, and k where an entry u lies.
        """
        if not edges:
            return
        gains, offsets, inner = self.told(edges)
        scales = torch.tensor([self.scale(block) for block in edges], dtype=gains.dtype).to(gains.device)[:, None, None]
        for shape, alike in itertools.groupby(range(len(edges)), key=lambda place: edges[place].shape):
            places = tuple(alike)
            block = edges[places[0]]
            taps = self.read_taps(block.taps.to(self.places)).T / shape[0] ** 0.5
            count = max(1, most // (self.hidden * block.matrix[0].numel()))
            for first in range(places[0], places[-1] + 1, count):
                here = slice(first, min(first + count, places[-1] + 1))
                pile = tuple(edges[here])
                alone = len(pile) == 1
                matrix = (
                    pile[0].matrix[None] if alone else torch.stack([block.matrix.to(self.places) for block in pile])
                )
                start = Start(taps * (1 + gains[here]) / scales[here], offsets[here])
                yield Pile(pile, matrix, start, inner[here], [])

    def rounds(self) -> Iterator[Layer]:
        """The layers, first to last."""
        yield from self.layers  # type: ignore[misc]

    def first_states(self, graph: NetworkGraph) -> Float[Tensor, " nodes h"]:
        """H_0: of a channel's axis, of the channel where it is one of a kind, of what data say, of its attributes."""
        states = self.read_axis(graph.axes.to(self.places))[graph.axis]
        if self.surveys:
            states = states + self.surveyed(graph)[graph.axis]
        states = states + self.read_identity(graph.identity.to(self.places))
        states = states + self.read_evidence(graph.evidence.to(self.places))
        if graph.attributes:
            encoded = [
                edge_states(pile.matrix, pile.start, []).view(len(pile.blocks), self.hidden, -1).mT.flatten(0, 1)
                for pile in self.piles(graph.attributes)
            ]
            states = states + graph.held.mean(torch.cat(encoded))
        return states  # type: ignore[no-any-return]

    def surveyed(self, graph: NetworkGraph) -> Float[Tensor, " axes h"]:
        """What it makes of the survey."""
        found: Tensor = self.read_survey(self.survey(graph))
        return found

    def survey(self, graph: NetworkGraph) -> Float[Tensor, " axes survey_features"]:
        """What it is told of axes beside.

        Raises:
            MetapruneError: The graph was not surveyed as it must be.
        """
        told = torch.cat([graph.survey, graph.left], 1) if "left" in self.surveys else graph.survey
        wanted, got = columns(self.surveys), told.shape[1]
        if wanted != got:
            raise MetapruneError(
                f"Metanetwork: expected a graph surveyed for {', '.join(self.surveys)} ({wanted} numbers an axis), got "
                f"{got}; survey it: surveyed(read, model, graph, task, metanetwork.surveys), and aim it: "
                "read.aimed(share, left)"
            )
        return told.to(self.places)

    def decoder(self, pile: Pile, writer: Writer) -> Decoder:
        """How the edits of a pile's tensors are read off states."""
        taps = self.write_taps(pile.blocks[0].taps.to(self.places)).T / self.hidden**0.5
        offset = writer.inner.bias[:, None] + pile.inner
        return Decoder(writer.inner.weight, offset, writer.outer, taps.expand(len(pile.blocks), -1, -1))

    def told(self, blocks: Sequence[Block]) -> tuple[Tensor, Tensor, Tensor]:
        """Gain and offset of the start, and offset of the decoder, each of shape (b, h, 1)."""
        features = torch.stack([block.features for block in blocks]).to(self.places)
        gain, offset, inner = self.read_tensor(features)[:, :, None].chunk(3, 1)
        return gain, offset, inner

    def scale(self, block: Block) -> float:
        """What a tensor's entries are measured in."""
        return block.scale if self.relative else 1.0

    def edited(self, pile: Pile, edits: Float[Tensor, " b taps rows columns"]) -> dict[str, Tensor]:
        """The tensors of a pile that are learned, with their edits added."""
        pairs = zip(pile.blocks, edits, strict=True)
        return {block.name: self.add(block, edit) for block, edit in pairs if block.learned}

    def add(self, block: Block, edit: Float[Tensor, " taps rows columns"]) -> Tensor:
        """The tensor with its edit added."""
        return block.tensor(block.matrix + (self.step * self.scale(block) * edit).to(block.matrix))


def aggregate(
    z: Float[Tensor, " nodes h"],
    side: Incidence,
    messages: Sequence[Float[Tensor, " _ four h"]],
    count: Float[Tensor, " nodes 1"],
) -> Float[Tensor, " nodes four_h"]:
    """Mean, standard deviation, maximum and minimum of all messages z a e that reach each node, side by side.

    Nodes that nothing reaches get zeros. The deviation is sqrt(variance + epsilon) - sqrt(epsilon).

    Args:
        z: How each node receives.
        side: The positions that the messages reach.
        messages: For each pile what its positions receive: sum, sum of squares, maximum and minimum.
        count: How many messages reach each node, 1 where none does.
    """
    received = torch.cat(list(messages))
    sums, squares = side.total(received[:, :2].flatten(1)).chunk(2, 1)
    mean = z * sums / count
    variance = (z * z * squares / count - mean * mean).clamp(min=0)
    deviation = (variance + EPSILON).sqrt() - EPSILON**0.5
    most, least = side.largest(received[:, 2]), -side.largest(-received[:, 3])
    high, low = torch.where(z >= 0, most, least), torch.where(z >= 0, least, most)
    return torch.cat([mean, deviation, z * high, z * low], 1)


def _means(states: Float[Tensor, "nodes numbers"], graph: NetworkGraph) -> Float[Tensor, "axes numbers"]:
    """Over the channels of each axis."""
    counts = torch.bincount(graph.axis, minlength=len(graph.names)).clamp(min=1).to(states)
    return states.new_zeros(len(counts), states.shape[1]).index_add(0, graph.axis, states) / counts[:, None]


def _kept(piles: Iterable[Pile], like: Tensor) -> Iterator[Pile]:
    """Piles with the states of their edges, and one place to work in for all."""
    made = [(pile, edge_states(pile.matrix, pile.start, [])) for pile in piles]
    room = like.new_empty(max((states.numel() for _, states in made), default=0))
    for pile, states in made:
        yield pile._replace(kept=states, scratch=room[: states.numel()].view_as(states))


def _remade(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a function whose inner results are made again in the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(  # type: ignore[no-any-return]
        function, *arguments, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )


def _counts(edges: Sequence[Block], across: int, like: Tensor) -> Float[Tensor, " positions 1"]:
    """How many messages reach each position of a side: as many as the matrix is long across it."""
    sizes = [(block.matrix.shape[3 - across], block.matrix.shape[across]) for block in edges]
    return torch.cat([like.new_zeros(0, 1), *(like.new_full((size, 1), float(count)) for size, count in sizes)])
