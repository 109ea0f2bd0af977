"""The metanetwork: a network that edits the weights of networks."""
