"""metaprune: make any PyTorch network smaller and faster by learned pruning.

Names are loaded when they are first used, so that `import metaprune` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metaprune.version import VERSION

if TYPE_CHECKING:
    from metaprune.cost.budget import Budget as Budget
    from metaprune.cost.clock import Clock as Clock
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
    from metaprune.methods.intra_fusion.fuse import fuse as fuse
    from metaprune.methods.metapruning.rewarded import rewarded as rewarded
    from metaprune.methods.registry import *  # noqa: F403
    from metaprune.pretrained.folder import from_pretrained as from_pretrained
    from metaprune.saving import load as load
    from metaprune.saving import save as save
    from metaprune.session.pruning import prune as prune
    from metaprune.session.result import Result as Result
    from metaprune.surgery.files import slice_files as slice_files
    from metaprune.surgery.mask import mask as mask
    from metaprune.surgery.optimizer import carry as carry
    from metaprune.surgery.recalibrate import recalibrate as recalibrate
    from metaprune.surgery.slice import slice as slice
    from metaprune.surgery.trace import trace as trace
    from metaprune.train.callbacks import Callback as Callback
    from metaprune.train.engine import evaluate as evaluate
    from metaprune.train.engine import fit as fit
    from metaprune.train.partners import Partner as Partner
    from metaprune.train.recipe import Recipe as Recipe
    from metaprune.train.task import Classification as Classification
    from metaprune.train.task import Task as Task
    from metaprune.train.tasks.adversarial import Adversarial as Adversarial
    from metaprune.train.tasks.detection import Detection as Detection
    from metaprune.train.tasks.distillation import distil as distil
    from metaprune.train.tasks.few_shot import FewShot as FewShot
    from metaprune.train.tasks.frechet import FID as FID
    from metaprune.train.tasks.frechet import FeatureDistance as FeatureDistance
    from metaprune.train.tasks.language import LanguageModelling as LanguageModelling
    from metaprune.train.tasks.restoration import Denoising as Denoising
    from metaprune.train.tasks.restoration import SuperResolution as SuperResolution
    from metaprune.zeros.sparsify import sparsify as sparsify
    from metaprune.zeros.sparsity import Sparsity as Sparsity

__version__ = VERSION

_HOME = {
    "Adversarial": "train.tasks.adversarial",
    "Axis": "graph.term",
    "Budget": "cost.budget",
    "Call": "graph.calling",
    "Callback": "train.callbacks",
    "ChannelGraph": "graph.graph",
    "Classification": "train.task",
    "Clock": "cost.clock",
    "Denoising": "train.tasks.restoration",
    "Detection": "train.tasks.detection",
    "FID": "train.tasks.frechet",
    "FeatureDistance": "train.tasks.frechet",
    "FewShot": "train.tasks.few_shot",
    "LanguageModelling": "train.tasks.language",
    "Limits": "graph.limits",
    "MetapruneError": "graph.errors",
    "Partner": "train.partners",
    "Plan": "graph.plan",
    "Recipe": "train.recipe",
    "Result": "session.result",
    "Segmentation": "train.tasks.segmentation",
    "Sparsity": "zeros.sparsity",
    "SuperResolution": "train.tasks.restoration",
    "Task": "train.task",
    "carry": "surgery.optimizer",
    "distil": "train.tasks.distillation",
    "evaluate": "train.engine",
    "export": "formats.export",
    "fit": "train.engine",
    "from_pretrained": "pretrained.folder",
    "fuse": "methods.intra_fusion.fuse",
    "latency": "cost.latency",
    "load": "saving",
    "macs": "cost.closed_form",
    "mask": "surgery.mask",
    "params": "cost.closed_form",
    "plan": "deciding",
    "prune": "session.pruning",
    "recalibrate": "surgery.recalibrate",
    "rewarded": "methods.metapruning.rewarded",
    "save": "saving",
    "scores": "deciding",
    "slice": "surgery.slice",
    "slice_files": "surgery.files",
    "sparsify": "zeros.sparsify",
    "trace": "surgery.trace",
}
"""Public name -> the module that defines it; the methods' are those of `methods/registry.py`."""


def _methods() -> dict[str, Any]:
    """Class name -> class of each method."""
    registry = importlib.import_module("metaprune.methods.registry")
    return {method.__name__: method for method in registry.METHODS.values()}


def __getattr__(name: str) -> Any:
    if name == "integrations":
        return importlib.import_module("metaprune.integrations")
    if name == "__all__":
        value: Any = [*sorted([*_HOME, *_methods()]), "__version__"]
    elif name in _HOME:
        value = getattr(importlib.import_module(f"metaprune.{_HOME[name]}"), name)
    elif name.startswith("_") or name not in _methods():
        raise AttributeError(f"module 'metaprune' has no attribute {name!r}")
    else:
        value = _methods()[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
