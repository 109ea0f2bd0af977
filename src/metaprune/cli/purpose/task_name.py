"""The tasks that the command line knows."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TaskName"]


class TaskName(StrEnum):
    """Tasks."""

    classification = "classification"
    super_resolution = "super-resolution"
    denoising = "denoising"
    translation = "translation"
    few_shot = "few-shot"

    @property
    def restores(self) -> bool:
        """Whether the outputs are images."""
        return self not in (TaskName.classification, TaskName.few_shot)

    @property
    def translates(self) -> bool:
        """Whether pictures are of two kinds, and a discriminator trains beside the network."""
        return self == TaskName.translation
