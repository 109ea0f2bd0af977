"""What can be cut: dimensions of every tensor as terms over axes, inferred from `torch.export`."""
