"""The network as a graph: what a metanetwork reads."""
