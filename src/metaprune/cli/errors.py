"""What the command line refuses."""

from metaprune.graph.errors import MetapruneError

__all__ = ["UsageError"]


class UsageError(MetapruneError):
    """A word on the command line that means nothing here."""
