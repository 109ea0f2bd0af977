"""Graph metanetworks: a network that edits the weights of networks, so that they can be pruned better."""

from metaprune.methods.graph_metanetwork.edit import edit
from metaprune.methods.graph_metanetwork.goal import Direct, Imitate, Paper
from metaprune.methods.graph_metanetwork.graph_metanetwork import GraphMetanetwork
from metaprune.methods.graph_metanetwork.meta_train import meta_train
from metaprune.methods.graph_metanetwork.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.saving import load, save
from metaprune.methods.graph_metanetwork.sparsify import Sparse, sparsify
from metaprune.methods.graph_metanetwork.teach import Lesson, teach

__all__ = [
    "Direct",
    "GraphMetanetwork",
    "Imitate",
    "Lesson",
    "Metanetwork",
    "NetworkGraph",
    "Paper",
    "Sparse",
    "edit",
    "graph_of",
    "load",
    "meta_train",
    "save",
    "sparsify",
    "teach",
]
