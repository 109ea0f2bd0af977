"""What each operator says about the dimensions of its operands: one rule per operator, one file per family."""

from metaprune.graph.call import RULES
from metaprune.graph.rules import (
    attention,
    contraction,
    elementwise,
    layout,
    norm,
    picking,
    quantisation,
    recurrent,
    reduction,
    spatial,
)

__all__ = [
    "RULES",
    "attention",
    "contraction",
    "elementwise",
    "layout",
    "norm",
    "picking",
    "quantisation",
    "recurrent",
    "reduction",
    "spatial",
]
