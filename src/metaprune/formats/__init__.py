"""Hand a network over: files that run without this package, each checked against the network it came from."""

from metaprune.formats.export import ExportError, export

__all__ = ["ExportError", "export"]
