"""Graph metanetworks: a network that edits the weights of networks, so that they can be pruned better."""

from metaprune.methods.graph_metanetwork.editor.edit import edit
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.editor.saving import load, save
from metaprune.methods.graph_metanetwork.graph_metanetwork import GraphMetanetwork
from metaprune.methods.graph_metanetwork.learning.goals.direct import Direct
from metaprune.methods.graph_metanetwork.learning.goals.imitate import Imitate
from metaprune.methods.graph_metanetwork.learning.goals.paper import Paper
from metaprune.methods.graph_metanetwork.learning.goals.worth import Worth
from metaprune.methods.graph_metanetwork.learning.lessons.halving import search
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson
from metaprune.methods.graph_metanetwork.learning.lessons.teach import grade, teach
from metaprune.methods.graph_metanetwork.learning.meta_train import meta_train
from metaprune.methods.graph_metanetwork.learning.subject import Subject
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph, graph_of

__all__ = [
    "Direct",
    "GraphMetanetwork",
    "Imitate",
    "Lesson",
    "Metanetwork",
    "NetworkGraph",
    "Paper",
    "Subject",
    "Worth",
    "edit",
    "grade",
    "graph_of",
    "load",
    "meta_train",
    "save",
    "search",
    "teach",
]
