"""The commands. Heavy modules are imported inside them, so that `metaprune --help` is quick."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from metaprune.cli.limiting import Alike, AlikeChannels, Keep, Least, Most, Together, limits_of
from metaprune.cli.logs import Log, loggers_of
from metaprune.cli.options import (
    Augment,
    Backend,
    BatchSize,
    Channels,
    Classes,
    Compile,
    Config,
    DataOption,
    Device,
    Devices,
    Expect,
    Input,
    Mean,
    Model,
    Nodes,
    Precision,
    Pruned,
    Scale,
    Shots,
    Sigma,
    Size,
    Std,
    Strategy,
    Task,
    Threads,
    Unpaired,
    ValShare,
    Ways,
    Weights,
    Workers,
    several,
)
from metaprune.cli.purpose import Cut, Look, Optimizer, Purpose, Schedule, label_of, scheduled

__all__ = ["app", "command_line", "set_threads", "writable"]


BUILT = ("classes", "inputs", "outputs")
"""What a report remembers of how its network is built."""

MISSED = 3
"""Exit status of a run whose result is slower than was asked for."""


class Commands(TyperGroup):
    """All commands: what the package refuses is one line on standard error, and exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--debug` stand anywhere on the line."""
        try:
            return super().parse_args(ctx, sorted(args, key=lambda word: word != "--debug"))
        except Exception as error:
            _misused(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        from metaprune.graph.errors import MetapruneError

        try:
            with contextlib.ExitStack() as ending:
                _ending.set(ending)
                return super().invoke(ctx)
        except MetapruneError as error:
            if ctx.params["debug"]:
                raise
            _say(str(error))
            raise typer.Exit(2) from None
        except OSError as error:
            if ctx.params["debug"] or error.errno in (None, errno.EPIPE):
                raise
            _say(f"{error}; free space, or name a folder that can be written, and start the same command again")
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            number = error.args[0] if error.args else signal.SIGINT
            ended = "terminated" if number == signal.SIGTERM else "interrupted"
            _say(f"{ended}; start the same command again to go on")
            raise typer.Exit(128 + number) from None
        except Exception as error:
            _misused(error)
            raise


_ending: ContextVar[contextlib.ExitStack] = ContextVar("ending")
"""What is undone when a command ends."""


def _misused(error: Exception) -> None:
    """Say in one line what is wrong with a command line; anything else is left alone.

    Typer brings its own copy of Click, or not; so its errors are known by what they can do. The one for a line without
    any command shows the help.
    """
    said = getattr(error, "format_message", None)
    if said is None or type(error).__name__ == "NoArgsIsHelpError":
        return
    command = getattr(getattr(error, "ctx", None), "command_path", "metaprune")
    _say(f"{said().rstrip('.')}; see {command} --help")
    raise typer.Exit(2) from None


def _say(text: str) -> None:
    """One line on standard error, if there is room for it."""
    with contextlib.suppress(OSError):
        typer.echo(f"metaprune: {' '.join(text.split())}", err=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from metaprune import __version__

        typer.echo(f"metaprune {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="METAPRUNE_DEBUG", help="Show where an error came from.")
    ] = False,
) -> None:
    """Cut any PyTorch network down to a budget, with learned pruning."""


def command_line() -> str:
    """What was typed, for the report."""
    return shlex.join(["metaprune", *sys.argv[1:]])


def set_threads(threads: int | None) -> None:
    """Bound the CPU threads of this process."""
    import torch

    from metaprune.cli.resolve import UsageError

    if threads is not None and threads < 1:
        raise UsageError(f"--threads: expected 1 or more, got {threads}")
    if threads:
        torch.set_num_threads(threads)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the pruned network and its report go.")] = Path("metaprune-demo"),
    config: Config = None,
) -> None:
    """Train, prune, fine-tune and report on real digits: no download, about a minute."""
    writable(out)
    from metaprune.cli.demo import run

    run(out)


@app.command()
def inspect(
    model: Model,
    sizes: Input = None,
    data: Annotated[str | None, typer.Option(help="Take the sizes from these data instead.")] = None,
    size: Size = None,
    batch: Annotated[
        int | None, typer.Option(help="Examples in the batch that is traced: 2, or as many as --input has.")
    ] = None,
    each: Annotated[bool, typer.Option("--all", help="A row for every axis; else equal blocks share rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the graph too: an SVG file to write.")] = None,
    scale: Scale = None,
    config: Config = None,
) -> None:
    """Print axes, sizes, layers, cost share, and what is fixed and why."""
    from metaprune.cli.resolve import UsageError, calls_of, find, known_of, network, task_of
    from metaprune.cli.show import graph_json, graph_table
    from metaprune.surgery.trace import trace

    classes = None
    find(model)
    if data is not None:
        from metaprune.data import load

        if task_of(model) not in (None, "classification"):
            raise UsageError(f"--data: {model} takes images of any size; give --input instead")
        found = load(data, size=size)
        sizes, classes = "x".join(map(str, found.shape)), found.classes
    elif size is not None:
        raise UsageError("--size: belongs to --data; give --input instead")
    known = known_of(model, None, sizes, classes, scale)
    net = network(model, **known.builds)
    args, kwargs = known.example(net, batch)
    graph = trace(net, args, kwargs, calls_of(net, args, kwargs))
    if as_json:
        typer.echo(graph_json(model, graph))
    else:
        graph_table(model, graph, each=each)
    if picture is not None:
        from metaprune.report.drawing import figure
        from metaprune.train.atomic import FileError, write_text

        try:
            write_text(picture, figure(graph, name=model))
        except FileError as error:
            raise UsageError(f"--picture: {error}") from error


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
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="sgd by default; to restore, adamw without weight decay.")
    ] = None,
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
    patch: Annotated[int | None, typer.Option(help="To restore: pixels of a true training patch, each way.")] = None,
    patches: Annotated[
        int | None, typer.Option("--patches-per-epoch", help="To restore: training patches in an epoch, 3200.")
    ] = None,
    val_images: Annotated[int | None, typer.Option(help="To restore: choose by at most so many images.")] = None,
    test: Annotated[Path | None, typer.Option(help="To restore: another folder of test images.")] = None,
    sizes: Annotated[
        str | None,
        typer.Option("--input", help="To restore: sizes that MACs and time are of, as 3x128x128; what enters."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed …")] = "auto",
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
    from metaprune.surgery.trace import trace
    from metaprune.train.distillation import distil
    from metaprune.train.engine import evaluate as measure
    from metaprune.train.task import settings_of

    set_threads(threads)
    purpose = Purpose.of(model, task, scale, sigma, {}, unpaired, ways, shots)
    if sizes is not None and not purpose.restores:
        raise UsageError("--input: the data have the sizes of examples; leave it out")
    chosen = chosen_method(method, settings or [], {"metanetwork": metanetwork})
    for option, value in (("--macs", macs), ("--params", params)):
        if value is not None and 1 < value <= 100:
            raise UsageError(
                f"{option}: {value:g} of them cannot be met; a share that stays is up to 1: "
                f"{option} {value / 100:g} keeps {value:g} %"
            )
    budget = Budget(
        macs=_number(macs), params=_number(params), latency=latency, speedup=speedup, multiple_of=multiple_of
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
    dense, recipe = purpose.recipes(epochs, dense_epochs, optimizer, lr, weight_decay, after=after, **common)
    together(recipe)
    check_teacher(teacher, teacher_weights, teacher_share)
    loggers_of(log, out)
    find(model)
    given = read_weights(weights)[0] if weights else None
    writable(out)
    check(out)
    look = Look(size, mean, std, augment, val_share, workers)
    ready = purpose.load(data, batch_size, channels, Cut(patch, patches, val_images, test), look)
    console().print(f"data: {ready.said}", soft_wrap=True)
    torch.manual_seed(seed)
    net = network(model, **ready.builds)
    args = example("x".join(map(str, ready.sizes)) if sizes is None else sizes, ready.timed, ready.inputs)
    if not budget.is_timed or limits is not None:
        graph = limited(trace(net, tuple(each[:2] for each in args), calls=calls_of(net, args, {})), limits)
        Allocation(graph, Budget(macs=1.0) if budget.is_timed else budget)
    other = teacher_of(teacher, teacher_weights, ready.builds)
    trained = given is not None
    if given is None:
        given = train_dense(net, ready.task, dense, out / "dense", ready.label)
    give(net, given, weights, model)
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
    goal = ready.task
    if teacher is not None:
        goal = distil(goal, other or net, share=teacher_share)
    if warning is not None:
        known = settings_of(goal.train) | dict(goal.settings)
        graph = limited(trace(net, args), limits)
        RunFolder.claim(out, net, graph, chosen, budget, recipe, ready.label, known, only_look=True)
        _say(f"warning: {warning}")
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
        calls=calls_of(net, args, {}),
        loggers=loggers_of(log, out),
        clock=clock,
    )
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


@app.command()
def evaluate(
    model: Model,
    data: DataOption,
    weights: Weights = None,
    pruned: Pruned = None,
    expect: Expect = None,
    batch_size: BatchSize = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    val_share: ValShare = None,
    workers: Workers = None,
    task: Task = None,
    scale: Scale = None,
    sigma: Sigma = None,
    unpaired: Unpaired = False,
    ways: Ways = None,
    shots: Shots = None,
    channels: Channels = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, 32-true …: by default that of the report of --pruned, else auto.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    config: Config = None,
) -> None:
    """Measure a dense or a pruned network on the test data (the validation data, where there are none).

    For restoration, on the images of the subfolder test, or where there is none, on all images of the folder.
    """
    from metaprune.cli.doubt import doubt
    from metaprune.cli.resolve import UsageError, find, report_in, settings_of, task_of
    from metaprune.cli.show import console, scores_line
    from metaprune.train.recipe import Recipe
    from metaprune.train.scores import scores, scores_of_outputs

    set_threads(threads)
    if weights and pruned:
        raise UsageError("evaluate: expected --weights (dense) or --pruned, got both")
    settings = settings_of(pruned)
    precision = settings.get("recipe.precision", "auto") if precision is None else precision
    purpose = Purpose.of(model, task, scale, sigma, settings, unpaired, ways, shots)
    find(model)
    given = Look(size, mean, std, val_share=val_share, workers=workers)
    look = given.filled(
        settings, same=pruned is not None and bool(settings) and report_in(pruned).data == label_of(data)
    )
    ready, split = purpose.load_test(data, batch_size, channels, look)
    if ready.said:
        console().print(f"data: {ready.said}", soft_wrap=True)
    net = _built(model, weights, pruned, ready.builds)
    batches = ready.task.val if ready.task.test is None else ready.task.test
    recipe = Recipe(precision=precision, device=device)
    found = scores(net, batches, ready.task, recipe)
    console().print(scores_line(ready.task.metric_name, split, found))
    warning = doubt(
        net,
        found.metric,
        ready.task,
        recipe,
        preprocessing=ready.preprocessing,
        expect=expect,
        chosen=look.chosen,
        trained=weights is not None or pruned is not None or task_of(model) is None,
    )
    if warning is not None:
        _say(f"warning: {warning}")
    if ready.task.pictures is not None:
        floor = scores_of_outputs(ready.task.pictures.floor, batches, ready.task)
        console().print(scores_line(f"{ready.task.pictures.floor_name}: {ready.task.metric_name}", split, floor))


@app.command()
def bench(
    model: Model,
    pruned: Pruned = None,
    weights: Weights = None,
    sizes: Input = None,
    classes: Classes = None,
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes, as 1,32: by default those, or that of the report of --pruned.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="32-true or bf16-mixed.")] = Precision.single,
    backend: Annotated[Backend, typer.Option(help="What runs the networks.")] = Backend.eager,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads: by default those of the report of --pruned, else what torch likes.")
    ] = None,
    scale: Scale = None,
    config: Config = None,
) -> None:
    """Time a network and the pruned one in turns, measured as `metaprune prune` and `mp.latency` do."""
    from metaprune.cli.resolve import UsageError, find, known_of, timed_in
    from metaprune.cli.show import bench_table
    from metaprune.cost.latency import latencies

    set_threads(threads)
    before = timed_in(pruned)
    if threads is None and before:
        threads = before["pruned"].threads
    if batch is None:
        batch = str(before["pruned"].batch) if before else "1,32"
    try:
        batches = [int(size) for size in batch.split(",")]
    except ValueError as error:
        raise UsageError(f"--batch: expected sizes like 1,32, got {batch!r}") from error
    find(model)
    known = known_of(model, pruned, sizes, classes, scale)
    networks = {"dense": _built(model, weights, None, known.builds)}
    if pruned:
        networks["pruned"] = _built(model, None, pruned, known.builds)
    timed = partial(
        latencies, networks, device=device, precision=precision.value, threads=threads, backend=backend.value
    )
    rows = [(size, timed(*known.example(networks["dense"], size))) for size in batches]
    bench_table(f"{model}, inputs of {known.sizes}", rows, before)


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="A file ending in .onnx or .pt2.")],
    pruned: Pruned = None,
    weights: Weights = None,
    sizes: Input = None,
    classes: Classes = None,
    scale: Scale = None,
    open_sizes: Annotated[
        str, typer.Option("--open", help="Sizes of the inputs that stay open: batch, all (pictures, sequences), none.")
    ] = "batch",
    inputs: Annotated[list[str] | None, typer.Option("--input-name", help="Names of inputs, in order (ONNX).")] = None,
    outputs: Annotated[list[str] | None, typer.Option("--output-name", help="Names of outputs (ONNX).")] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights and inputs of half precision.")] = False,
    config: Config = None,
) -> None:
    """Write a network as ONNX or as an exported program, checked against the module."""
    from metaprune.cli.resolve import known_of
    from metaprune.cli.show import console
    from metaprune.formats.export import export as write

    known = known_of(model, pruned, sizes, classes, scale)
    net = _built(model, weights, pruned, known.builds)
    args, kwargs = known.example(net)
    written = write(
        net.eval(),
        args,
        to,
        kwargs,
        open_sizes=open_sizes,  # type: ignore[arg-type]  # which it checks
        inputs=inputs or (),
        outputs=outputs or (),
        opset=opset,
        half=half,
    )
    console().print(f"wrote {written}, equal to the module")


@app.command()
def methods(
    method: Annotated[str | None, typer.Argument(help="Say all of this one.")] = None,
    config: Config = None,
) -> None:
    """List the methods and their settings, those that other packages offer too."""
    from metaprune.cli.choosing import known_methods
    from metaprune.cli.resolve import UsageError
    from metaprune.cli.show import methods_table, one_method

    known = known_methods(_say)
    if method is None:
        methods_table(known)
    elif method in known:
        one_method(method, known[method])
    else:
        raise UsageError(f"method {method!r} is not known; there are {', '.join(known)}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `metaprune prune`; the first is the main one.")],
    config: Config = None,
) -> None:
    """Write report.html and the model card anew; further folders become rows of its comparison."""
    from metaprune.cli.resolve import report_in
    from metaprune.cli.show import arms_table, console, joined
    from metaprune.saving import save_report

    main = joined([report_in(folder) for folder in folders])
    writable(folders[0])
    save_report(folders[0], main)
    arms_table(main)
    console().print(f"wrote {folders[0] / 'report.html'}")


def _number(value: float | None) -> float | None:
    """Absolute budgets are whole numbers."""
    return int(value) if value is not None and 1 < value < float("inf") and value == int(value) else value


def together(recipe: Any) -> None:
    """Until the command ends all processes that the recipe asks for do the same; the first one speaks."""
    from metaprune.train.launching import fabric_of, group_of, is_alone

    if is_alone(recipe):
        return
    group = group_of(fabric_of(recipe))
    _ending.get().enter_context(group.together("prune"))
    if not group.leads:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def writable(folder: Path, *, shared: bool = False) -> None:
    """Make a folder, see that it can be written to, and keep others out until the command ends, unless it is shared."""
    import tempfile

    from metaprune.cli.resolve import UsageError
    from metaprune.train.folder import FolderError, alone_in

    try:
        if not shared:
            _ending.get().enter_context(alone_in(folder, "--out"))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FolderError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--out: cannot write to {folder} ({error}); name another folder") from error


def _built(model: str, weights: Path | None, pruned: Path | None, builds: dict[str, Any]) -> Any:
    from metaprune.cli.resolve import network
    from metaprune.cli.weights import give
    from metaprune.saving import load, read_weights

    net = network(model, **builds)
    if pruned is not None:
        return load(pruned, net)
    if weights is not None:
        give(net, read_weights(weights)[0], weights, model)
    return net
