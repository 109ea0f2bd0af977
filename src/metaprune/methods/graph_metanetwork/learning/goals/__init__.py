"""What a metanetwork may be meant to do: a goal says which objectives a step adds up, for a network and some batches.

`Paper` is that of Liu et al. 2025 (arXiv 2506.12041): the task's loss of the edited network, and the group-norm
regulariser. `Direct` is beside the paper: the task's loss of the edited network without the channels that rank lowest,
at budgets drawn at random, along a short tuning; only the channels that stay learn from it. `Imitate` teaches the
scores, by which channels are ranked: to say at once what a search found. `Worth` teaches widths, by what each
allocation that a search tried was worth. (Scores that learned from the gradients of gates, passed straight through,
were tried: those of channels that live are noise around zero in a trained network, and the ranking got worse.)
"""
