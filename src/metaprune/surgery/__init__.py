"""Cutting, and why it can be trusted: slice, verify, mask."""
