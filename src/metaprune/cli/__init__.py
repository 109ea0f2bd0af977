"""The command line: a thin shell over `mp.prune`."""

from metaprune.cli import meta
from metaprune.cli.app import app

__all__ = ["app", "meta"]
