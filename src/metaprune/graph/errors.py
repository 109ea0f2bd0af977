"""The errors of the package: each says who, what was expected, what came, and what to do."""

__all__ = ["BudgetError", "CutError", "MetapruneError", "PlanError", "TraceError"]


class MetapruneError(ValueError):
    """The root of every error this package raises on purpose."""


class TraceError(MetapruneError):
    """A network could not be captured by `torch.export`."""


class PlanError(MetapruneError):
    """A plan does not fit its graph."""


class CutError(MetapruneError):
    """A cut could not be verified, and nothing was cut."""


class BudgetError(MetapruneError):
    """A budget that is out of range or cannot be met."""
