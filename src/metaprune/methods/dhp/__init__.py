"""DHP: differentiable meta pruning via hypernetworks."""
