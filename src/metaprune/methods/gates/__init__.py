"""Gates on the channels of a network, and a search that moves them: what several methods are built on."""
