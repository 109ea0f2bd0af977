"""`metaprune prune`: from a line of options to `mp.prune`, with the dense network trained first where none is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprune.cli.app import app, command_line, say, set_threads, together, writable
from metaprune.cli.limiting import Alike, AlikeChannels, Keep, Least, Most, Together, limits_of
from metaprune.cli.logs import Log, loggers_of
from metaprune.cli.options import (
    Augment,
    Backend,
    BatchSize,
    Channels,
    Compile,
    Config,
    DataOption,
    Device,
    Devices,
    Expect,
    Mean,
    Model,
    Nodes,
    OptimizerOption,
    Patch,
    Patches,
    Precision,
    PrecisionOption,
    Scale,
    Seed,
    Shots,
    Sigma,
    Size,
    Std,
    Strategy,
    Task,
    Threads,
    Unpaired,
    ValImages,
    ValShare,
    Ways,
    Weights,
    Workers,
    several,
)
from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.purpose import Purpose
from metaprune.cli.purpose.recipes import Schedule, recipes, scheduled

BUILT = ("classes", "inputs", "outputs")
"""What a report remembers of how its network is built."""

MISSED = 3
"""Exit status of a run whose result is slower than was asked for."""


@app.command()
def prune(
    model: Model,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where the result and the checkpoints go.")],
    method: Annotated[str, typer.Option(help="The method: `metaprune methods` lists them.")] = "dhp",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of the method, field=value.")] = None,
    metanetwork: Annotated[
        Path | None,
        typer.Option(
            help="For methods that take one: a file that `metaprune meta-train` wrote; by default the shipped one."
        ),
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Share of the MACs that stays, or a number of them.")] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters that stays, or a number.")] = None,
    latency: Annotated[float | None, typer.Option(help="Milliseconds for a batch, on the clock.")] = None,
    speedup: Annotated[float | None, typer.Option(help="Times as fast as the dense network, on the clock.")] = None,
    clock_device: Annotated[str | None, typer.Option(help="Where time is measured: by default --device.")] = None,
    clock_precision: Annotated[Precision, typer.Option(help="At which precision.")] = Precision.single,
    clock_batch: Annotated[int | None, typer.Option(help="At which batch: by default --batch-size.")] = None,
    clock_backend: Annotated[Backend, typer.Option(help="By what.")] = Backend.eager,
    multiple_of: Annotated[
        int | None, typer.Option(help="Widths are multiples of this: 8; where time is bounded, what the clock likes.")
    ] = None,
    keep: Keep = None,
    least: Least = None,
    most: Most = None,
    alike: Alike = None,
    alike_channels: AlikeChannels = None,
    tied: Together = None,
    weights: Weights = None,
    dense_epochs: Annotated[int, typer.Option(help="Where no weights are given: epochs of the dense network.")] = 25,
    epochs: Annotated[int, typer.Option(help="Epochs after that: search and fine-tuning together.")] = 10,
    optimizer: OptimizerOption = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate at the start of those epochs; by default what suits the rest.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="By default what suits the optimizer.")] = None,
    schedule: Annotated[
        Schedule | None, typer.Option(help="How the learning rate falls in those epochs: cosine by default.")
    ] = None,
    milestones: Annotated[
        str | None, typer.Option(help="For --schedule steps: epochs at which it falls to a tenth, as 5,8.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Of those epochs, those in which it rises from 0.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches that make one step, in those epochs.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="At most so many steps in them: epochs get shorter.")] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="End with the best epoch of the fine-tuning on the validation data.")
    ] = False,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of a moving average of the weights, as 0.999: what is measured and kept."),
    ] = None,
    log: Log = None,
    teacher: Annotated[
        str | None, typer.Option(help="Learn from this network too: dense (as it was before), or named as MODEL.")
    ] = None,
    teacher_weights: Annotated[Path | None, typer.Option(help="Weights of the teacher, as --weights.")] = None,
    teacher_share: Annotated[float, typer.Option(help="How much the teacher counts, from 0 to 1.")] = 0.5,
    expect: Expect = None,
    batch_size: BatchSize = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    augment: Augment = True,
    val_share: ValShare = None,
    workers: Workers = None,
    task: Task = None,
    scale: Scale = None,
    sigma: Sigma = None,
    unpaired: Unpaired = False,
    ways: Ways = None,
    shots: Shots = None,
    channels: Channels = None,
    patch: Patch = None,
    patches: Patches = None,
    val_images: ValImages = None,
    test: Annotated[Path | None, typer.Option(help="To restore: another folder of test images.")] = None,
    sizes: Annotated[
        str | None,
        typer.Option("--input", help="To restore: sizes that MACs and time are of, as 3x128x128; what enters."),
    ] = None,
    seed: Seed = 0,
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    devices: Devices = "1",
    strategy: Strategy | None = None,
    nodes: Nodes = 1,
    compile: Compile = False,
    threads: Threads = None,
    config: Config = None,
) -> None:
    """Prune a network down to a budget, trained first where no weights are given; a killed run goes on.

    Exit status: 0; 2 for what is refused, and a full disk; 3 where the result is written but takes longer than
    --latency or --speedup allow; 130 where it was interrupted, 143 where it was terminated.
    """
    from dataclasses import replace

    import torch

    from metaprune.cli.choosing import chosen_method
    from metaprune.cli.doubt import doubt
    from metaprune.cli.resolve import UsageError, calls_of, example, find, network, remembering
    from metaprune.cli.show import console, result_table
    from metaprune.cli.teacher import check_teacher, teacher_of
    from metaprune.cli.weights import give, train_dense
    from metaprune.cost.budget import Allocation, Budget
    from metaprune.cost.clock import Clock
    from metaprune.graph.limits import limited
    from metaprune.report.texts import CARDS, card_name
    from metaprune.report.words import missed
    from metaprune.run_folder import RunFolder, check
    from metaprune.saving import read_weights
    from metaprune.session.pruning import prune as run
    from metaprune.session.reporting import of_data
    from metaprune.surgery.trace import trace
    from metaprune.train.engine import evaluate as measure
    from metaprune.train.tasks.distillation import distil

    # what is asked: refused here is what can be, before anything is loaded or written
    set_threads(threads)
    purpose = Purpose.of(model, task, scale, sigma, {}, unpaired, ways, shots)
    if sizes is not None and not purpose.restores:
        raise UsageError("--input: the data have the sizes of examples; leave it out")
    if ema is not None and not 0 < ema < 1:
        raise UsageError(f"--ema: expected a decay between 0 and 1, such as 0.999, got {ema:g}")
    chosen = chosen_method(method, settings or [], {"metanetwork": metanetwork})
    budget = Budget(
        macs=_amount("--macs", macs),
        params=_amount("--params", params),
        latency=latency,
        speedup=speedup,
        multiple_of=multiple_of,
    )
    clock = Clock(
        device=clock_device or device,
        precision=clock_precision.value,
        batch=clock_batch,
        backend=clock_backend.value,
    )
    limits = limits_of(keep, least, most, alike, alike_channels, tied)
    after = scheduled(
        schedule, milestones, warmup, accumulate=accumulate, max_steps=max_steps, keep="best" if keep_best else None
    )
    common = {"seed": seed, "precision": precision, "device": device, "compile": compile}
    common |= several(devices, strategy, nodes)
    dense, recipe = recipes(purpose.task, epochs, dense_epochs, optimizer, lr, weight_decay, after=after, **common)
    together(recipe, "prune")
    check_teacher(teacher, teacher_weights, teacher_share)
    loggers_of(log, out)
    find(model)
    given = read_weights(weights)[0] if weights else None
    writable(out)
    check(out)
    # the data and the network, and whether the budget can be met
    look = Look(size, mean, std, augment, val_share, workers)
    ready = purpose.load(data, batch_size, channels, Cut(patch, patches, val_images, test), look)
    if ema is not None:
        ready = replace(ready, task=replace(ready.task, average=ema))
    console().print(f"data: {ready.said}", soft_wrap=True)
    torch.manual_seed(seed)
    net = network(model, **ready.builds)
    args = example("x".join(map(str, ready.sizes)) if sizes is None else sizes, ready.timed, ready.inputs)
    if not budget.is_timed or limits is not None:
        graph = limited(trace(net, tuple(each[:2] for each in args), calls=calls_of(net, args, {})), limits)
        Allocation(graph, Budget(macs=1.0) if budget.is_timed else budget)
    # dense weights, and whether they do on these data what they should
    other = teacher_of(teacher, teacher_weights, ready.builds)
    trained = given is not None
    if given is None:
        given = train_dense(net, ready.task, dense, out / "dense", ready.label)
    give(net, given, weights, model)
    calls = calls_of(net, args, {})
    warning = None
    if trained or expect is not None:
        warning = doubt(
            net,
            measure(net, ready.task.val, ready.task, recipe),
            ready.task,
            recipe,
            preprocessing=ready.preprocessing,
            expect=expect,
            chosen=look.chosen or not trained,
            trained=True,
        )
    # prune
    goal = ready.task
    if teacher is not None:
        goal = distil(goal, other or net, share=teacher_share)
    if warning is not None:
        graph = limited(trace(net, args, calls=calls), limits)
        RunFolder.claim(out, net, graph, chosen, budget, recipe, ready.label, of_data(goal), only_look=True)
        say(f"warning: {warning}")
    result = run(
        net,
        args,
        method=chosen,
        budget=budget,
        task=goal,
        recipe=recipe,
        limits=limits,
        out=out,
        network=model,
        data=ready.label,
        commands=(command_line(),),
        calls=calls,
        loggers=loggers_of(log, out),
        clock=clock,
    )
    # write, and say
    known = {name: str(value) for name, value in ready.builds.items() if name in BUILT} | purpose.settings
    report = remembering(result.report, args[0].shape[1:], **known)
    report = report if warning is None else replace(report, notes=(*report.notes, f"warning: {warning}"))
    result = replace(result, report=report)
    result.save(out)
    result_table(result.report, out, model)
    if card_name(out) != CARDS[0]:
        typer.echo(f"model card: {out / CARDS[1]}, since {out / CARDS[0]} is not of metaprune")
    if missed(result.report):
        raise typer.Exit(MISSED)


def _amount(option: str, value: float | None) -> float | None:
    """A share up to 1, or a number of them, which is whole; a percentage is neither."""
    from metaprune.cli.resolve import UsageError

    if value is not None and 1 < value <= 100:
        raise UsageError(
            f"{option}: {value:g} of them cannot be met; a share that stays is up to 1: "
            f"{option} {value / 100:g} keeps {value:g} %"
        )
    return int(value) if value is not None and 1 < value < float("inf") and value == int(value) else value
