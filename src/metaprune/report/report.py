"""What a pruning run found, as plain data that travels as JSON.

Shares are always shares that *stay* (0.5 = half stays); MACs are those of one example.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from metaprune.cost.latency import Latency
from metaprune.graph.errors import MetapruneError
from metaprune.graph.notebook import html_table
from metaprune.report.summary import Wire
from metaprune.train.atomic import FileError, seal, unseal

__all__ = [
    "Alignment",
    "Arm",
    "AxisRow",
    "Epoch",
    "Figures",
    "Floor",
    "LayerRow",
    "Report",
    "ReportError",
    "Sample",
    "Shot",
    "from_json",
    "to_json",
]

FORMAT = 1
NOT_FINITE = "not finite"
"""What stands in JSON for a float that is NaN or infinite; it is read as NaN."""


class ReportError(MetapruneError):
    """A text that is not a report."""


@dataclass(frozen=True)
class Figures:
    """What a network costs and how good it is."""

    macs: int
    params: int
    bytes: int
    """Size of the weights on disk (safetensors)."""
    metric: float | None
    """On the split that the report names; None where it was not measured."""
    latency: Latency | None
    further: dict[str, float] = field(default_factory=dict)
    """Metrics beside the one that chooses, on the same split, by name."""


@dataclass(frozen=True)
class Floor:
    """How good the inputs are as they come, without a network: what a network must beat."""

    name: str
    """Such as "bicubic"."""
    metric: float
    further: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    """One version of a picture, cut to a window, with what was measured on the whole of it."""

    name: str
    """Such as "bicubic", "dense", "pruned" or "true"."""
    png: str
    """In base64."""
    metric: float | None
    """None for the truth, and where one picture has no value of it."""
    further: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """The same window of a picture as it came, as networks restored it, and as it should be."""

    name: str
    width: int
    """Of the window, in pixels."""
    height: int
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class AxisRow:
    """One axis before and after the cut."""

    name: str
    before: int
    after: int
    kept: tuple[int, ...]
    """The channels that stay, ascending, inside [0, before)."""
    fixed: str | None
    """Why the axis must stay whole; None where it is free."""
    members: tuple[str, ...]
    """Tensor dimensions on the axis, such as "layer1.0.conv1.weight:0"."""
    macs_share: float
    """Share of the dense network's MACs that this axis takes part in."""


@dataclass(frozen=True)
class LayerRow:
    """The MACs of one layer before and after the cut."""

    name: str
    operator: str
    macs_before: int
    macs_after: int


@dataclass(frozen=True)
class Epoch:
    """One evaluation during the search or the fine-tuning."""

    epoch: float
    """Position in the one schedule that begins after the dense network."""
    phase: str
    """Such as "search" or "fine-tuning"."""
    loss: float
    metric: float
    """On the validation split."""
    macs: float | None = None
    """Share of the MACs that stays, where the phase changes it."""


@dataclass(frozen=True)
class Arm:
    """One row of a comparison at equal epochs."""

    name: str
    figures: Figures
    epochs: float
    """Search and fine-tuning together, after the dense network."""
    dense_latency: Latency | None = None
    """Of the dense network, measured in turns with this one; None where that is `Report.dense`."""


@dataclass(frozen=True)
class Alignment:
    """The same method and budget with widths that ignore alignment, to hold against `Report.pruned`."""

    multiple_of: int
    macs_unaligned: int
    latency_unaligned: Latency | None


@dataclass(frozen=True)
class Report:
    """Everything that the page and the model card say."""

    network: str
    data: str
    method: str
    reference: str
    """The method's paper, in one line; may be empty."""
    settings: dict[str, str]
    budget: str
    """In words, such as "0.50 of the MACs"."""
    metric_name: str
    """With its unit in brackets, if it has one: "accuracy (%)"."""
    higher_is_better: bool
    split: str
    """"test" or "val": where `Figures.metric` was measured."""
    dense: Figures
    pruned: Figures
    before_cut: float | None
    """Metric on the validation split right before the cut; None where nothing stands for the network then."""
    after_cut: float | None
    """Metric on the validation split after the cut and recalibration, before fine-tuning; None if weights are new."""
    axes: tuple[AxisRow, ...]
    layers: tuple[LayerRow, ...]
    history: tuple[Epoch, ...]
    as_cut: float | None = None
    """Metric on the validation split after the cut and before statistics were recalibrated; None if they were not."""
    spent: dict[str, float] = field(default_factory=dict)
    """What the search cost beside the epochs of `history`, by unit: {"epochs": 4, "evaluations": 1000}."""
    dense_val: float | None = None
    """Metric of the dense network on the validation split, the level that `history` started from."""
    dense_epochs: float = 0.0
    """Epochs that `dense` was trained for after the network that pruning began with."""
    latency_bound: float | None = None
    """Milliseconds that the pruned network was allowed to take."""
    arms: tuple[Arm, ...] = ()
    alignment: Alignment | None = None
    notes: tuple[str, ...] = ()
    """Such as cuts that were undone, and why."""
    commands: tuple[str, ...] = ()
    wiring: tuple[Wire, ...] = ()
    """The layers that lead from axes to axes, for the picture of the graph."""
    roles: dict[str, str] = field(default_factory=dict)
    """Axis -> what it is for, where the graph tells: "trunk", "heads" …"""
    environment: dict[str, str] = field(default_factory=dict)
    example: str = ""
    """Sizes of the inputs that MACs and latency are of, without the batch: "3×128×128"."""
    floor: Floor | None = None
    samples: tuple[Sample, ...] = ()

    def __repr__(self) -> str:
        """What was cut, and what came of it."""
        changes = "; ".join(f"{name} {before} → {after}" for name, before, after in self._changes())
        return f"Report({self._title()}: {changes})"

    def _repr_html_(self) -> str:
        return html_table(self._title(), ("", "dense", "pruned"), self._changes())

    def _title(self) -> str:
        return f"{self.network} on {self.data} by {self.method}, {self.budget}"

    def _changes(self) -> list[tuple[str, str, str]]:
        """Name, before and after: of the metric, the costs and the time, as far as they were measured."""
        before, after = self.dense, self.pruned
        rows = [
            (name, f"{was:,}", f"{now:,}")
            for name, was, now in (("MACs", before.macs, after.macs), ("parameters", before.params, after.params))
        ]
        if before.metric is not None and after.metric is not None:
            rows.insert(0, (f"{self.metric_name} on {self.split}", f"{before.metric:.4g}", f"{after.metric:.4g}"))
        if before.latency is not None and after.latency is not None:
            rows.append(("ms", f"{before.latency.median_ms:.3g}", f"{after.latency.median_ms:.3g}"))
        return rows


def to_json(report: Report) -> str:
    """Write a report as JSON text with its checksum, readable by `from_json`; plain ASCII, whatever names hold."""
    tree = seal({"metaprune_report": FORMAT, **_finite(asdict(report))})
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same tree, with words where JSON has no number."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return NOT_FINITE if isinstance(value, float) and not math.isfinite(value) else value


def from_json(text: str) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        ReportError: The text is not JSON, not a report, damaged, or a field is missing, unknown or of another type.
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"report: expected JSON, got {error.msg} at line {error.lineno}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"report: expected JSON, got something else ({error})") from error
    if not isinstance(tree, dict) or "metaprune_report" not in tree:
        raise ReportError("report: expected JSON that `to_json` wrote, got none of its 'metaprune_report' mark")
    try:
        tree = unseal(tree, "report: the text")
    except FileError as error:
        raise ReportError(str(error)) from error
    if (version := tree.pop("metaprune_report")) != FORMAT:
        raise ReportError(f"report: expected format {FORMAT}, got {version!r}; use the version that wrote it")
    report: Report = _build(Report, tree, "report")
    return report


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn a JSON value into `kind`: a dataclass, tuple, dict, optional or scalar."""
    if type(None) in get_args(kind):
        inner = next(k for k in get_args(kind) if k is not NoneType)
        return None if value is None else _build(inner, value, where)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    if kind is float and value == NOT_FINITE:
        return math.nan
    shape = get_origin(kind) or kind
    accepted = {tuple: (list,), float: (int, float)}.get(shape, (shape,))
    if not isinstance(value, accepted) or (isinstance(value, bool) and shape is not bool):
        raise ReportError(f"{where}: expected {getattr(shape, '__name__', shape)}, got {value!r:.60}")
    if shape is tuple:
        return tuple(_build(get_args(kind)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if shape is dict:
        return {k: _build(get_args(kind)[1], v, f"{where}.{k}") for k, v in value.items()}
    return shape(value)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ReportError(f"{where}: expected the fields of {kind.__name__}, got {value!r:.60}")
    types = get_type_hints(kind)
    if unknown := set(value) - {f.name for f in fields(kind)}:
        raise ReportError(f"{where}: {kind.__name__} has no field {', '.join(sorted(unknown))[:80]}")
    try:
        return kind(**{name: _build(types[name], v, f"{where}.{name}") for name, v in value.items()})
    except TypeError as error:
        raise ReportError(f"{where}: {error}") from error
