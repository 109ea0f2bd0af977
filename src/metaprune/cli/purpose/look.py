"""How images come to a network: scaled, normalised, cut into patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Cut", "Look", "label_of"]


@dataclass(frozen=True)
class Cut:
    """How training images are cut for restoration; None for what `load_images` takes by itself."""

    patch: int | None = None
    patches: int | None = None
    val_images: int | None = None
    test: Path | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Look:
    """How images come to a network; None for what `load` and `load_images` take by themselves."""

    size: int | None = None
    mean: str | None = None  # "data", "imagenet", or numbers with commas
    std: str | None = None
    augment: bool = True
    val_share: float | None = None
    workers: int | None = None

    @property
    def chosen(self) -> bool:
        """Whether the normalisation was."""
        return self.mean is not None or self.std is not None

    def filled(self, settings: dict[str, str], *, same: bool) -> Look:
        """What was not chosen, as a network was pruned with it (the settings of its report); `same`: on these data."""
        known = {name: settings.get(f"data.{name}") for name in ("size", "mean", "std")}
        size = known["size"] if (known["size"] or "").isdecimal() else None
        if self.chosen or known["mean"] is None or known["std"] is None:
            known["mean"] = known["std"] = None
        share = (settings.get("data.val") or "").removesuffix(" of the training split")
        return replace(
            self,
            val_share=float(share) if same and self.val_share is None and _is_share(share) else self.val_share,
            size=int(size) if self.size is None and size else self.size,
            mean=known["mean"] or self.mean,
            std=known["std"] or self.std,
        )

    @property
    def labelled(self) -> dict[str, Any]:
        """For `load`."""
        return {
            "size": self.size,
            "mean": _statistic("--mean", self.mean),
            "std": _statistic("--std", self.std),
            **self.restoring,
        }

    @property
    def restoring(self) -> dict[str, Any]:
        """For `load_images`."""
        return {"augment": self.augment, "val_share": self.val_share, "workers": self.workers}


def label_of(data: str) -> str:
    """What data are called in reports."""
    return Path(data).name if Path(data).exists() else data


def _is_share(words: str) -> bool:
    """Whether it is a number in (0, 1), as `load` writes it."""
    try:
        return 0 < float(words) < 1
    except ValueError:
        return False


def _statistic(option: str, words: str | None) -> Any:
    """Words that `load` knows, or numbers."""
    from metaprune.cli.errors import UsageError

    if words in (None, "data", "imagenet"):
        return words
    assert words is not None
    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise UsageError(f"{option}: expected data, imagenet or numbers, as 0.4,0.5,0.6, got {words!r}") from error
