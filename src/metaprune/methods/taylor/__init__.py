"""Channels ranked by what the loss would lose without them."""
