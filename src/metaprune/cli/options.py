"""What commands take: the options that several of them share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metaprune.cli.config import Config
from metaprune.cli.purpose.recipes import Optimizer
from metaprune.cli.purpose.task_name import TaskName

__all__ = [
    "Augment",
    "Backend",
    "BatchSize",
    "Channels",
    "Classes",
    "Compile",
    "Config",
    "DataOption",
    "Device",
    "Devices",
    "Expect",
    "Input",
    "Mean",
    "Model",
    "Nodes",
    "OptimizerOption",
    "Patch",
    "Patches",
    "Precision",
    "PrecisionOption",
    "Pruned",
    "Scale",
    "Seed",
    "Shots",
    "Sigma",
    "Size",
    "Std",
    "Strategy",
    "Task",
    "Threads",
    "Unpaired",
    "ValImages",
    "ValShare",
    "Ways",
    "Weights",
    "Workers",
    "several",
]

Model = Annotated[
    str,
    typer.Argument(
        help="A built-in name, package.module:function, file.py:function (each runs that code), or hf:NAME."
    ),
]
DataOption = Annotated[
    str,
    typer.Option(help="digits, a Hub name, or a folder of parquet files or pictures; to restore, a folder of images."),
]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of the dense network: safetensors, or .pt or .pth with a state dict.")
]
Pruned = Annotated[Path | None, typer.Option(help="A folder that `metaprune prune` wrote.")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="Sizes of one example, 3x32x32, or whole inputs by place or name, ids=int64<1000:8x32,mask=int64:8x32 "
        "(whole numbers are drawn below the bound, or 2). By default what it was pruned with, else what the network "
        "has of its own, else 3x32x32; to restore, images of 128x128.",
    ),
]
Classes = Annotated[int | None, typer.Option(help="Classes: by default what it was pruned with, else 10.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Devices = Annotated[
    str, typer.Option(help="How many processes of a machine train together, or auto; `torchrun` starts them, too.")
]
Nodes = Annotated[int, typer.Option(help="On how many machines.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the steps of training.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; as many as torch likes by default.")]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Examples a batch: 128, and time is measured at it; to restore, 16, and time is measured at 1."),
]
OptimizerOption = Annotated[
    Optimizer | None, typer.Option(help="sgd by default; to restore, adamw without weight decay.")
]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
PrecisionOption = Annotated[str, typer.Option(help="Of training: auto, 32-true, bf16-mixed …")]
Task = Annotated[TaskName | None, typer.Option(help="What the network is for; classification by default.")]
Scale = Annotated[int | None, typer.Option(help="For super-resolution: how many times larger images become.")]
Sigma = Annotated[float | None, typer.Option(help="For denoising: standard deviation of the noise, of 255 levels.")]
Ways = Annotated[int | None, typer.Option(help="For few-shot: classes of a task, 5.")]
Shots = Annotated[int | None, typer.Option(help="For few-shot: examples of each that are shown, 1.")]
Unpaired = Annotated[
    bool, typer.Option("--unpaired", help="For translation: pictures of A and B do not belong together.")
]
Channels = Annotated[
    int | None, typer.Option(help="To restore: 1 (grey, usual for noise) or 3 (RGB, usual to enlarge).")
]
Patch = Annotated[int | None, typer.Option(help="To restore: pixels of a true training patch, each way.")]
Patches = Annotated[
    int | None, typer.Option("--patches-per-epoch", help="To restore: training patches in an epoch, 3200.")
]
ValImages = Annotated[int | None, typer.Option(help="To restore: choose by at most so many images.")]
Size = Annotated[
    int | None, typer.Option(help="Scale the shorter side of images to so many pixels and cut out the middle.")
]
Mean = Annotated[
    str | None,
    typer.Option(help="Taken from pixels in [0, 1]: data (of the training images, the default), imagenet, or numbers."),
]
Std = Annotated[str | None, typer.Option(help="What they are divided by then, as --mean; 0.5 and 0.5 give [-1, 1].")]
Augment = Annotated[bool, typer.Option("--augment/--no-augment", help="Shift and mirror training images.")]
ValShare = Annotated[
    float | None,
    typer.Option(help="Part of the training split to choose by, where there is no split val: 0.1 by default."),
]
Workers = Annotated[int | None, typer.Option(help="Processes that read images which do not fit in memory: 4.")]
Expect = Annotated[
    float | None, typer.Option(help="The score that the dense network should have; a warning says if it has not.")
]


class Backend(StrEnum):
    """What runs a network where its time is measured."""

    eager = "eager"
    compiled = "compiled"
    onnxruntime = "onnxruntime"


class Strategy(StrEnum):
    """How processes train together."""

    ddp = "ddp"
    fsdp = "fsdp"


def several(devices: str, strategy: Strategy | None, nodes: int) -> dict[str, Any]:
    """What a recipe is told of processes."""
    count: int | str = int(devices) if devices.isdecimal() else devices
    return {"devices": count, "strategy": "auto" if strategy is None else strategy.value, "nodes": nodes}


class Precision(StrEnum):
    """Precisions that time is measured at."""

    single = "32-true"
    mixed = "bf16-mixed"
