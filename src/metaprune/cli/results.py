"""The commands for what there is, dense or pruned: measure it, time it, write it in another form, report on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from metaprune.cli.app import app, say, set_threads, writable
from metaprune.cli.options import (
    Backend,
    BatchSize,
    Channels,
    Classes,
    Config,
    DataOption,
    Device,
    Expect,
    Input,
    Mean,
    Model,
    Precision,
    Pruned,
    Scale,
    Shots,
    Sigma,
    Size,
    Std,
    Task,
    Threads,
    Unpaired,
    ValShare,
    Ways,
    Weights,
    Workers,
)
from metaprune.cli.purpose.look import Look, label_of
from metaprune.cli.purpose.purpose import Purpose


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
        say(f"warning: {warning}")
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
