"""The one dictionary of methods: a new method joins here."""

from metaprune.methods.dhp.dhp import DHP
from metaprune.methods.graph_metanetwork.graph_metanetwork import GraphMetanetwork
from metaprune.methods.magnitude.magnitude import Magnitude, Random, Uniform
from metaprune.methods.method import Method
from metaprune.methods.taylor.taylor import Taylor

__all__ = ["METHODS"]

METHODS: dict[str, type[Method]] = {
    "dhp": DHP,
    "magnitude": Magnitude,
    "taylor": Taylor,
    "uniform": Uniform,
    "random": Random,
    "graph_metanetwork": GraphMetanetwork,
}
"""Name on the command line -> class."""
