"""The task of translating pictures, learned against a discriminator that trains beside the generator.

Paired, as pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004); unpaired, as CycleGAN (Zhu et al. 2017,
https://arxiv.org/abs/1703.10593). Compressing such generators while they train is the setting of CoroNetGAN (Kumar et
al. 2023, https://arxiv.org/abs/2403.08261): any method prunes them, since the discriminator is a partner of the task.

Departures: a discriminator steps before the generator's loss is taken in both (in CycleGAN, after). Reconstruction and
identity are counted in units of [-1, 1], as published, though pictures are in [0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaprune.graph.arguments import brief, is_number, is_whole
from metaprune.graph.tensors import clone
from metaprune.train import randomness
from metaprune.train.checks import blaming
from metaprune.train.partners import Partner
from metaprune.train.task import Batch, Loader, Metric, Pictures, Task, TaskError
from metaprune.train.tasks import fidelity
from metaprune.train.tasks.frechet import FeatureDistance, random_features

__all__ = ["Adversarial", "Critic", "adversarial_loss"]

Loss = Literal["lsgan", "vanilla"]

FLAWLESS = 100.0  # dB, as in restoration


def adversarial_loss(logits: Tensor, real: bool, loss: Loss) -> Tensor:
    """How far logits are from saying that what was judged is real, or is not.

    "lsgan": the mean of (logit - target)^2 with targets 1 and 0; "vanilla": cross-entropy.
    """
    target = torch.full_like(logits, float(real))
    return F.mse_loss(logits, target) if loss == "lsgan" else F.binary_cross_entropy_with_logits(logits, target)


class Critic(nn.Module):
    """A discriminator, and some pictures that were made before (Shrivastava et al. 2017, as in CycleGAN).

    Args:
        discriminator: From pictures to logits of any shape.
        shape: Of one of the pictures judged, (channels, height, width).
        pool: How many earlier pictures are remembered; 0 for none.
    """

    def __init__(self, discriminator: nn.Module, shape: tuple[int, ...], pool: int = 0) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.register_buffer("remembered", torch.zeros(pool, *(shape if pool else ()), dtype=torch.float16))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.remembered: Tensor
        self.count: Tensor

    def forward(self, pictures: Tensor, mixed: bool = False) -> Tensor:
        """Logits of pictures; `mixed`: about half of them earlier ones, whose places they take."""
        judged = self.exchanged(pictures) if mixed and len(self.remembered) else pictures
        logits: Tensor = self.discriminator(judged)
        return logits

    @torch.no_grad()
    def exchanged(self, pictures: Tensor) -> Tensor:
        """Each picture is remembered and returned while there is room; else, by a coin, swapped with an earlier one."""
        result = []
        for picture in pictures:
            known = int(self.count)
            if known < len(self.remembered):
                self.remembered[known] = picture.to(self.remembered)
                self.count += 1
                result.append(picture)
            elif float(torch.rand((), device="cpu")) < 0.5:
                place = int(torch.randint(known, (), device="cpu"))
                result.append(self.remembered[place].to(picture))
                self.remembered[place] = picture.to(self.remembered)
            else:
                result.append(picture)
        return torch.stack(result)


def Adversarial(
    train: Loader,
    val: Loader,
    test: Loader | None = None,
    *,
    discriminator: nn.Module,
    loss: Loss = "lsgan",
    reconstruction: float | None = None,
    back: nn.Module | Literal["both"] | None = None,
    identity: float = 0.5,
    rate: float = 2e-4,
    pool: int | None = None,
    features: nn.Module | Literal["random"] | None = None,
    further: Mapping[str, Metric] | None = None,
    ema: float | None = None,
) -> Task:
    """The task of translating pictures, against a discriminator that trains beside the generator.

    Paired: batches are `(given, true)`, float (N, C, H, W) and (N, C', H, W) in [0, 1]; the network makes the second of
    the first; the discriminator judges both, joined along their channels. It is measured by PSNR.

    Unpaired (`back`): batches are `(a, b)`, pictures of two kinds that do not belong together; the discriminator judges
    pictures of the second kind, and a copy of it those of the first. It is measured by a distance of features.

    A recipe that suits it: `mp.Recipe(epochs, lr=2e-4, optimizer="adamw", momentum=0.5, weight_decay=0.0,
    schedule="linear")`.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report.
        discriminator: from pictures to logits of any shape; a copy is trained.
        loss: "lsgan" or "vanilla", see `adversarial_loss`.
        reconstruction: weight of the absolute error, in units of [-1, 1]: of the pictures made (100 by default), or of
            those that went there and back (10).
        back: None for pairs; the generator from the second kind to the first, which trains beside the network and is
            not pruned; or "both" for a network that is both generators, `models.BothWays`, pruned together.
        identity: unpaired, how much a generator may change what is of its kind already, as a share of
            `reconstruction`; only where both kinds have as many channels.
        rate: the discriminators' learning rate, on the same schedule; Adam's, where the recipe has it.
        pool: how many earlier pictures a discriminator remembers; by default 50 unpaired, none paired.
        features: a network from pictures in [0, 1] to features, for `FeatureDistance`; needed for unpaired ones.
            "random" for three convolutions with fixed random weights, where no classifier of such pictures is at hand.
        further: more metrics to report, by name, such as {"FID": mp.FID()}.
        ema: the decay of a moving average of the generator, such as 0.999, which is what is measured and kept; see
            `Task.average`. None for the generator itself.

    Raises:
        TaskError: an argument of another kind, batches that are no pairs of pictures, or no features where needed.
    """
    weight = (100.0 if back is None else 10.0) if reconstruction is None else reconstruction
    remembers = (0 if back is None else 50) if pool is None else pool
    for name, fits, expected, given in (
        ("discriminator", isinstance(discriminator, nn.Module), "an nn.Module", discriminator),
        ("loss", loss in ("lsgan", "vanilla"), "'lsgan' or 'vanilla'", loss),
        ("reconstruction", is_number(weight) and 0 <= weight < float("inf"), "a weight from 0", weight),
        ("back", back is None or back == "both" or isinstance(back, nn.Module), "None, 'both' or a generator", back),
        ("identity", is_number(identity) and 0 <= identity < float("inf"), "a share from 0", identity),
        ("pool", is_whole(remembers) and remembers >= 0, "a whole number from 0", remembers),
        ("features", _are_features(features), "an nn.Module, or 'random'", features),
        ("ema", ema is None or (is_number(ema) and 0 < ema < 1), "a decay inside (0, 1)", ema),
    ):
        if not fits:
            raise TaskError(f"adversarial: expected {name} as {expected}, got {brief(given)}")
    if back is not None and features is None:
        raise TaskError(
            "adversarial: pictures without pairs are measured by the distance of features; give features=, such as a "
            "classifier of these pictures without its last layer, or features='random'"
        )
    one, other = _first_pair(train)
    if isinstance(features, str):
        features = random_features(other.shape[1])
    measures: dict[str, Metric] = dict(further or {})
    if features is not None and back is None:
        measures = {"feature distance": FeatureDistance(clone(features)), **measures}
    said = {"loss": loss, "reconstruction": f"{weight:g}", "pool": str(remembers), "discriminator_rate": f"{rate:g}"}
    said |= {} if ema is None else {"ema": f"{ema:g}"}
    settings = {f"adversarial.{name}": value for name, value in said.items()}
    if back is None:
        joined = (one.shape[1] + other.shape[1], *other.shape[2:])
        return Task(
            train,
            val,
            test,
            loss=_absolute_error,
            metric=_decibels,
            metric_name="PSNR (dB)",
            distance=F.l1_loss,
            further={"L1": _error, **measures},
            pictures=Pictures("the input", _shown, _true),
            settings=settings,
            step=partial(_paired, loss=loss, weight=weight),
            partners={"discriminator": Partner(Critic(clone(discriminator), joined, remembers), rate)},
            alone=ALONE,
            average=ema,
        )
    assert features is not None
    critics = {
        name: Partner(Critic(clone(discriminator), tuple(pictures.shape[1:]), remembers), rate)
        for name, pictures in (("discriminator", other), ("discriminator of the first kind", one))
    }
    together = back == "both"
    keeps = identity * weight if one.shape[1] == other.shape[1] else 0.0
    return Task(
        train,
        val,
        test,
        loss=_no_pairs,
        metric=FeatureDistance(clone(features)),
        metric_name="feature distance",
        higher_is_better=False,
        judged=_made_and_true,
        inputs=_both if together else _one,
        further=measures,
        pictures=_both_kinds() if together else _first_kind(),
        settings=settings | {"adversarial.identity": f"{identity:g}"},
        step=partial(_unpaired, loss=loss, weight=weight, keeps=keeps),
        partners=critics if isinstance(back, str) else {"back": Partner(clone(back)), **critics},
        alone=ALONE,
        average=ema,
    )


ALONE = "a discriminator remembers the pictures that it has seen"


def _paired(training: Any, batch: Batch, loss: Loss, weight: float) -> Tensor:
    """A step of pix2pix: the discriminator learns, then says what the generator does."""
    given, true = batch
    made = training.network(given)
    _judge(training, "discriminator", torch.cat([given, true], 1), torch.cat([given, made], 1), loss)
    logits = training.partners["discriminator"](torch.cat([given, made], 1))
    return adversarial_loss(logits, True, loss) + weight * 2 * F.l1_loss(made, _fitting(made, batch))


def _unpaired(training: Any, batch: Batch, loss: Loss, weight: float, keeps: float) -> Tensor:
    """A step of CycleGAN: there, back again, and what need not change."""
    a, b = batch
    if "back" in training.partners:
        forth, back = training.network, training.partners["back"]

        def both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            return forth(first), back(second)
    else:
        both = training.network
    made_b, made_a = both(a, b)
    again_b, again_a = both(made_a, made_b)
    total = weight * 2 * (F.l1_loss(again_a, a) + F.l1_loss(again_b, b))
    if keeps:
        same_b, same_a = both(b, a)
        total = total + keeps * 2 * (F.l1_loss(same_b, b) + F.l1_loss(same_a, a))
    for name, true, made in (("discriminator", b, made_b), ("discriminator of the first kind", a, made_a)):
        _judge(training, name, true, made, loss)
        total = total + adversarial_loss(training.partners[name](made), True, loss)
    return total


def _judge(training: Any, name: str, true: Tensor, made: Tensor, loss: Loss) -> None:
    """A step of a discriminator: half of its loss is on what is true, half on what was made, now or before."""
    critic = training.partners[name]
    wrong = adversarial_loss(critic(made.detach(), mixed=True), False, loss)
    training.update(name, (adversarial_loss(critic(true), True, loss) + wrong) / 2)


def _first_pair(train: Loader) -> tuple[Tensor, Tensor]:
    """The first batch, once it is known to be two batches of pictures.

    Raises:
        TaskError: it is not.
    """
    with randomness.isolated(), blaming("adversarial: to read the first training batch"):
        batch = next(iter(itertools.islice(iter(train), 1)), None)
    pair = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (None, None)
    one, other = pair
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() == other.dim() == 4):
        raise TaskError(f"adversarial: expected batches of two tensors of pictures (N, C, H, W), got {brief(batch)}")
    return one, other


def _fitting(made: Tensor, batch: Batch) -> Tensor:
    """The true pictures, once their shape is known to be that of those made."""
    true: Tensor = batch[1]
    if made.shape != true.shape:
        raise TaskError(
            f"adversarial: expected pictures of shape {tuple(true.shape)}, as the true ones, got {tuple(made.shape)}"
        )
    return true


def _absolute_error(made: Tensor, batch: Batch) -> Tensor:
    return F.l1_loss(made, _fitting(made, batch))


def _error(made: Tensor, batch: Batch) -> tuple[Tensor, int]:
    return (made - _fitting(made, batch)).abs().mean((1, 2, 3)).sum(), len(made)


def _decibels(made: Tensor, batch: Batch) -> tuple[Tensor, int]:
    true = _fitting(made, batch)
    found = fidelity.psnr(fidelity.quantized(made), fidelity.quantized(true)).clamp(max=FLAWLESS)
    return found.sum(), len(made)


def _no_pairs(made: Any, batch: Batch) -> Tensor:
    raise TaskError("adversarial: pictures without pairs have no loss of their own; what trains takes the task's step")


def _true(batch: Batch) -> Tensor:
    true: Tensor = batch[1]
    return true


def _shown(batch: Batch) -> Tensor:
    """The given picture in as many channels as the true one."""
    given: Tensor = batch[0]
    channels = batch[1].shape[1]
    return given if given.shape[1] == channels else given.mean(1, keepdim=True).expand(-1, channels, -1, -1)


def _first_kind() -> Pictures:
    """Of one generator: what it makes of the first kind; what that should be, nobody knows."""
    return Pictures("the input", _shown, None, _of_second_kind, "A to B")


def _both_kinds() -> Pictures:
    """Of two generators: also what the other makes of the second kind."""
    back = Pictures("the input", _true, None, _of_first_kind, "B to A")
    return replace(_first_kind(), other=back)


def _of_second_kind(output: Any) -> Tensor:
    made: Tensor = output[0] if isinstance(output, tuple | list) else output
    return made


def _of_first_kind(output: Any) -> Tensor:
    made: Tensor = output[1]
    return made


def _are_features(given: object) -> bool:
    return given is None or given == "random" or isinstance(given, nn.Module)


def _one(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (batch[0],), {}


def _both(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (batch[0], batch[1]), {}


def _made_and_true(output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """What was made of the second kind, and what is of it."""
    return _of_second_kind(output), batch[1]
