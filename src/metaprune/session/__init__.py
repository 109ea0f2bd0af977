"""From a network to a smaller one with its report: `pruning.prune` is the story, with a file for each of its parts."""
