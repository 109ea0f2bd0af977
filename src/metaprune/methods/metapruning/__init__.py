"""MetaPruning: a network that generates its weights for any widths, and a search over widths that asks it."""
