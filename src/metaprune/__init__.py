"""metaprune: make any PyTorch network smaller and faster by learned pruning.

Names are loaded when they are first used, so that `import metaprune` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metaprune.version import VERSION

if TYPE_CHECKING:
    from metaprune.cost.budget import Budget as Budget
    from metaprune.cost.closed_form import macs as macs
    from metaprune.cost.closed_form import params as params
    from metaprune.cost.latency import latency as latency
    from metaprune.deciding import plan as plan
    from metaprune.deciding import scores as scores
    from metaprune.formats.export import export as export
    from metaprune.graph.calling import Call as Call
    from metaprune.graph.errors import MetapruneError as MetapruneError
    from metaprune.graph.graph import ChannelGraph as ChannelGraph
    from metaprune.graph.limits import Limits as Limits
    from metaprune.graph.plan import Plan as Plan
    from metaprune.graph.term import Axis as Axis
    from metaprune.methods.dhp.dhp import DHP as DHP
    from metaprune.methods.graph_metanetwork.graph_metanetwork import GraphMetanetwork as GraphMetanetwork
    from metaprune.methods.magnitude.magnitude import Magnitude as Magnitude
    from metaprune.methods.magnitude.magnitude import Random as Random
    from metaprune.methods.magnitude.magnitude import Uniform as Uniform
    from metaprune.methods.taylor.taylor import Taylor as Taylor
    from metaprune.saving import load as load
    from metaprune.saving import save as save
    from metaprune.session.pruning import prune as prune
    from metaprune.session.result import Result as Result
    from metaprune.surgery.mask import mask as mask
    from metaprune.surgery.optimizer import carry as carry
    from metaprune.surgery.recalibrate import recalibrate as recalibrate
    from metaprune.surgery.slice import slice as slice
    from metaprune.surgery.trace import trace as trace
    from metaprune.train.engine import Recipe as Recipe
    from metaprune.train.engine import evaluate as evaluate
    from metaprune.train.engine import fit as fit
    from metaprune.train.restoration import Denoising as Denoising
    from metaprune.train.restoration import SuperResolution as SuperResolution
    from metaprune.train.task import Classification as Classification
    from metaprune.train.task import Task as Task
    from metaprune.train.task import distil as distil
    from metaprune.zeros.sparsify import sparsify as sparsify

__version__ = VERSION

_HOME = {
    "Axis": "graph.term",
    "Budget": "cost.budget",
    "Call": "graph.calling",
    "ChannelGraph": "graph.graph",
    "Classification": "train.task",
    "DHP": "methods.dhp.dhp",
    "Denoising": "train.restoration",
    "GraphMetanetwork": "methods.graph_metanetwork.graph_metanetwork",
    "Limits": "graph.limits",
    "Magnitude": "methods.magnitude.magnitude",
    "MetapruneError": "graph.errors",
    "Plan": "graph.plan",
    "Random": "methods.magnitude.magnitude",
    "Recipe": "train.engine",
    "Result": "session.result",
    "SuperResolution": "train.restoration",
    "Task": "train.task",
    "Taylor": "methods.taylor.taylor",
    "Uniform": "methods.magnitude.magnitude",
    "carry": "surgery.optimizer",
    "distil": "train.task",
    "evaluate": "train.engine",
    "export": "formats.export",
    "fit": "train.engine",
    "latency": "cost.latency",
    "load": "saving",
    "macs": "cost.closed_form",
    "mask": "surgery.mask",
    "params": "cost.closed_form",
    "plan": "deciding",
    "prune": "session.pruning",
    "recalibrate": "surgery.recalibrate",
    "save": "saving",
    "scores": "deciding",
    "slice": "surgery.slice",
    "sparsify": "zeros.sparsify",
    "trace": "surgery.trace",
}
"""Public name -> the module that defines it."""

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "integrations":
        return importlib.import_module("metaprune.integrations")
    if name not in _HOME:
        raise AttributeError(f"module 'metaprune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"metaprune.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
