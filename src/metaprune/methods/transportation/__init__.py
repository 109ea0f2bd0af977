"""Differentiable transportation pruning: a soft mask that costs the budget exactly and anneals by itself."""
