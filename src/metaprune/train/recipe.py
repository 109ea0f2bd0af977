"""How to train: `Recipe`, one schedule for a search and the fine-tuning after it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from metaprune.graph.arguments import is_number
from metaprune.train.checks import TrainError

__all__ = ["Recipe", "pick_precision"]


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, schedule, precision, seed. The schedule spans all `epochs`.

    Attributes:
        epochs: Passes through the training data, search and fine-tuning together.
        lr: The learning rate at the top of the schedule.
        momentum: Of "sgd"; of "adamw", its first beta.
        weight_decay: On parameters of two and more dimensions.
        nesterov: Whether the momentum is Nesterov's.
        optimizer: "sgd" or "adamw".
        schedule: "cosine" and "linear" fall to 0 at the end of the last epoch; "constant"; "steps", see `milestones`.
        milestones: Of "steps": the epochs at which the rate falls to a tenth.
        warmup: Epochs in which the rate rises from 0, step by step.
        clip_norm: The largest norm of the gradient; None clips nothing.
        accumulate: Batches whose gradients make one step of the optimizer; the last batch of a phase always steps.
        max_steps: At most so many steps of the optimizer in all: epochs get shorter, each ends after an equal part of
            them. None trains on all batches.
        keep: Which weights fine-tuning ends with: those of its "last" epoch, or of the "best" on the validation data.
        before: Epochs of a longer schedule that came before these, of which this is a part.
        after: Epochs of it that come after these.
        seed: Of the order of the data, of dropout and of whatever else is drawn.
        precision: "32-true", "bf16-mixed", … as in Lightning Fabric; "auto": see `pick_precision`.
        device: "cpu", "cuda", "cuda:1", …; "auto" takes an accelerator where there is one.
        channels_last: Memory layout of images and filters.
        compile: Whether steps of the network are compiled (`torch.compile`); "graphs" replays them as CUDA graphs, too.
        devices: How many processes of a machine train together, each on a device of its own, or on cores of the CPU;
            "auto" takes all devices. Where `torchrun` or `fabric run` started processes, 1 means as many as those.
        strategy: How they do: "ddp", each with the whole network; "fsdp", where large weights, their gradients and the
            optimizer's state are divided between them; "auto" is "ddp".
        nodes: How many machines.

    Several processes divide each batch that the loader gives: what takes one process 100 steps takes them 100 steps, of
    the same size and rate, whatever their number. The gradient is the mean over the whole batch, batch norms take their
    statistics from all of it, and metrics count every example once; so results are those of one process but for
    rounding. What a network draws as it runs (dropout) is drawn anew for each step. Losses count as means over
    examples.
    """

    epochs: int = 10
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["cosine", "linear", "constant", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()
    warmup: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    max_steps: int | None = None
    keep: Literal["last", "best"] = "last"
    before: int = 0
    after: int = 0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    channels_last: bool = True
    compile: Literal[True, False, "graphs"] = field(default=False, repr=False)  # what a run is does not hang on these
    devices: int | Literal["auto"] = field(default=1, repr=False)
    strategy: Literal["auto", "ddp", "fsdp"] = field(default="auto", repr=False)
    nodes: int = field(default=1, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            TrainError: a value out of range.
        """
        whole = {name: type(getattr(self, name)) is int for name in ("epochs", "accumulate", "before", "after", "seed")}
        clip, last = self.clip_norm, self.length if whole["epochs"] and whole["before"] and whole["after"] else math.inf
        numbers = ("lr", "momentum", "weight_decay", "warmup")
        real = {name: is_number(value := getattr(self, name)) and math.isfinite(value) for name in numbers}
        steps = isinstance(self.milestones, tuple | list) and all(map(is_number, self.milestones))
        limits = {
            "epochs": (whole["epochs"] and self.epochs >= 1, "a whole number from 1"),
            "lr": (real["lr"] and self.lr > 0, "a number above 0"),
            "momentum": (real["momentum"] and 0 <= self.momentum < 1, "a number inside [0, 1)"),
            "weight_decay": (real["weight_decay"] and self.weight_decay >= 0, "a number from 0"),
            "optimizer": (self.optimizer in ("sgd", "adamw"), "'sgd' or 'adamw'"),
            "schedule": (
                self.schedule in ("cosine", "linear", "constant", "steps"),
                "'cosine', 'linear', 'constant' or 'steps'",
            ),
            "milestones": (
                steps
                and bool(self.milestones) == (self.schedule == "steps")
                and list(self.milestones) == sorted(self.milestones),
                "ascending epochs for schedule='steps', and empty for the others",
            ),
            "warmup": (real["warmup"] and 0 <= self.warmup < last, "epochs inside [0, epochs)"),
            "clip_norm": (clip is None or (is_number(clip) and clip > 0), "None or above 0"),
            "accumulate": (whole["accumulate"] and self.accumulate >= 1, "a whole number from 1"),
            "max_steps": (
                self.max_steps is None or (type(self.max_steps) is int and self.max_steps >= last),
                "None, or a whole number of steps, at least one for each epoch",
            ),
            "before": (whole["before"] and self.before >= 0, "a whole number from 0"),
            "after": (whole["after"] and self.after >= 0, "a whole number from 0"),
            "keep": (self.keep in ("last", "best"), "'last' or 'best'"),
            "seed": (whole["seed"] and 0 <= self.seed < 2**63, "a whole number inside [0, 2^63)"),
            "precision": (isinstance(self.precision, str), "words such as '32-true'"),
            "device": (isinstance(self.device, str), "words such as 'cpu' or 'cuda:0'"),
            "compile": (self.compile in (True, False, "graphs"), "True, False or 'graphs'"),
            "devices": (_from_one(self.devices) or self.devices == "auto", "a whole number from 1, or 'auto'"),
            "strategy": (self.strategy in ("auto", "ddp", "fsdp"), "'auto', 'ddp' or 'fsdp'"),
            "nodes": (_from_one(self.nodes), "a whole number from 1"),
        }
        for name, (fits, expected) in limits.items():
            if not fits:
                raise TrainError(f"recipe: {name} must be {expected}, got {getattr(self, name)!r}")

        if isinstance(self.device, str) and ":" in self.device and (self.devices, self.nodes) != (1, 1):
            raise TrainError(f"recipe: several devices are of one kind, as 'cuda'; got device={self.device!r}")

    @property
    def what(self) -> dict[str, Any]:
        """The fields but for those that say where it is computed, and leave the result as it is but for rounding."""
        where = ("device", "compile", "devices", "strategy", "nodes")
        return {name: value for name, value in asdict(self).items() if name not in where}

    @property
    def length(self) -> int:
        """The epochs of the whole schedule."""
        return self.before + self.epochs + self.after

    def lr_at(self, epoch: float) -> float:
        """The learning rate after so many of these epochs."""
        epoch += self.before
        if epoch < self.warmup:
            return self.lr * epoch / self.warmup
        if self.schedule in ("constant", "steps"):
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        if self.schedule == "linear":
            return self.lr * (self.length - epoch) / (self.length - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / (self.length - self.warmup)))

    def epochs_of(self, share: float) -> int:
        """The whole epochs that a share of these is; at least one."""
        return min(max(1, round(share * self.epochs)), self.epochs)

    def batches(self, given: int) -> int:
        """The batches of an epoch, of so many that the loader gives."""
        if self.max_steps is None:
            return given
        return min(given, self.max_steps * self.accumulate // self.length)

    def steps(self, batches: int, epochs: int | None = None) -> int:
        """Steps of the optimizer in a phase of so many epochs, by default all; the loader gives so many batches."""
        return -(-self.batches(batches) * (self.epochs if epochs is None else epochs) // self.accumulate)


def _from_one(value: object) -> bool:
    return type(value) is int and value >= 1


def pick_precision(device: torch.device) -> str:
    """The precision behind "auto": "bf16-mixed" where the device computes in bfloat16, else "32-true".

    A training step of a ResNet-20 (batch 128, 3x32x32, one thread of a CPU with avx512_bf16) took 346 ms in
    float32 and 195 ms in "bf16-mixed"; with channels last, 270 and 159 ms. For a ResNet-8 on 8x8 digits it
    hardly matters (6.2 and 5.7 ms at batch 64): where a small network should be exact, ask for "32-true".
    """
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"
    return "32-true"
