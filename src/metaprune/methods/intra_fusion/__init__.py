"""Intra-Fusion: channels that go are fused into those that stay, by optimal transport."""
