"""What a network costs: closed forms of the widths, measured time, and the budget."""
