"""Where the code of a cut network failed."""

from __future__ import annotations

from metaprune.graph.provenance import is_network

__all__ = ["blame"]


def blame(error: BaseException) -> str:
    """The innermost line that is neither PyTorch's nor ours, and how it failed."""
    cause = error.__cause__ or error
    lines = []
    trail = cause.__traceback__
    while trail is not None:
        if is_network(trail.tb_frame.f_code):
            lines.append(f"{trail.tb_frame.f_code.co_filename}:{trail.tb_lineno}")
        trail = trail.tb_next
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"{lines[-1] if lines else 'a module'}: {reason}"
