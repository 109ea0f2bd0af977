"""The command line: a thin shell over `mp.prune`. The help lists commands in the order of these imports."""

from metaprune.cli import looking, prune, results, meta  # isort: skip
from metaprune.cli.app import app

__all__ = ["app", "looking", "meta", "prune", "results"]
