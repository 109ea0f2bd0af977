"""Graph metanetworks: a network that edits the weights of networks, so that they can be pruned better."""

from metaprune.methods.graph_metanetwork.edit import edit
from metaprune.methods.graph_metanetwork.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.saving import load, save

__all__ = ["Metanetwork", "NetworkGraph", "edit", "graph_of", "load", "save"]
