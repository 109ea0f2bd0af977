"""Zeros in weights, where channels stay."""
