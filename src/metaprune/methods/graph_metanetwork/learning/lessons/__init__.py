"""Lessons: what a metanetwork learns to say at once, and the searches that find it."""
