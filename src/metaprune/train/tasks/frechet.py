"""The distance between two sets of pictures: between the Gaussians that the features of a network have over each."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor, nn

from metaprune.graph.tensors import in_double
from metaprune.train import randomness
from metaprune.train.task import TaskError

__all__ = ["FID", "FeatureDistance", "frechet", "random_features"]

Square = Float64[Tensor, " f f"]


def frechet(mean1: Tensor, cov1: Square, mean2: Tensor, cov2: Square) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), the squared Fréchet distance of two Gaussians.

    The root's trace is that of (C1^1/2 C2 C1^1/2)^1/2, which is symmetric, so its eigenvalues are real and not below 0.
    """
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0)
    squared = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * inner.sqrt().sum()
    return max(float(squared), 0.0)


def random_features(channels: int = 3) -> nn.Module:
    """Features where no classifier is at hand: three convolutions with weights that are always the same random ones.

    Distances over such features tell sets of pictures apart, too (Naeem et al. 2020, https://arxiv.org/abs/2002.09797).
    """
    widths = (channels, 32, 64, 64)
    layers: list[nn.Module] = []
    with randomness.isolated():
        torch.manual_seed(0)
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class FeatureDistance(nn.Module):
    """The squared Fréchet distance of features of pictures that were made from those of true ones; lower is better.

    Not the Fréchet inception distance, whose features are those of one published network: figures of different
    features cannot be set against each other. Heusel et al. 2017, https://arxiv.org/abs/1706.08500, is the idea.

    Args:
        features: A network from pictures in [0, 1] to features (n, f), or to maps, whose means over places count; it is
            used in evaluation mode. A small classifier of the same pictures, without its last layer, will do.
    """

    higher_is_better = False

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        if not isinstance(features, nn.Module):
            raise TaskError(f"feature distance: expected a network that makes features, got {type(features).__name__}")
        self.features = features
        self.reset()

    def reset(self) -> None:
        """Forget the pictures."""
        self.seen: dict[str, list[Tensor]] = {"made": [], "true": []}

    @torch.no_grad()
    def update(self, made: Tensor, true: Tensor) -> None:
        """Some more pictures of each set, (n, c, h, w)."""
        self.features.eval()
        for name, pictures in (("made", made), ("true", true)):
            found = self.features(pictures.float().clamp(0, 1))
            found = found.mean(tuple(range(2, found.dim()))) if found.dim() > 2 else found
            if found.dim() != 2:
                raise TaskError(f"feature distance: expected features (n, f), got shape {tuple(found.shape)}")
            self.seen[name].append(in_double(found).cpu())

    def compute(self) -> float:
        """Over all pictures so far.

        Raises:
            TaskError: There were fewer than two of a set.
        """
        moments = []
        for name, parts in self.seen.items():
            rows = torch.cat(parts) if parts else torch.zeros(0, 1)
            if len(rows) < 2:
                raise TaskError(f"feature distance: expected two pictures or more, got {len(rows)} {name} ones")
            moments += [rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])]
        return frechet(*moments)


class FID(nn.Module):
    """FID by torchmetrics, where its package and the published weights are at hand; lower is better.

    Raises:
        TaskError: They are not.
    """

    higher_is_better = False

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance

            self.distance = FrechetInceptionDistance(normalize=True, **fields)
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise TaskError(
                f"FID: torchmetrics cannot make it here ({said}); install torch-fidelity, whose weights are "
                "downloaded once, or take mp.FeatureDistance(a classifier)"
            ) from error

    def reset(self) -> None:
        """Forget the pictures."""
        self.distance.reset()

    def update(self, made: Tensor, true: Tensor) -> None:
        """Some more pictures of each set; grey ones count as RGB."""
        for pictures, real in ((made, False), (true, True)):
            colour = pictures if pictures.shape[1] == 3 else pictures.expand(-1, 3, -1, -1)
            self.distance.update(F.relu(colour.float()).clamp(max=1), real=real)

    def compute(self) -> float:
        """Over all pictures so far."""
        return float(self.distance.compute())
