"""One-shot pruning by the size of the weights, and its two controls."""
