"""Tests; `tests.zoo` is the package of networks they run on."""
