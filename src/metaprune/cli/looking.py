"""The commands before one prunes: a demonstration, what a network is made of, which methods there are.

Heavy modules are imported inside of commands, so that `metaprune --help` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprune.cli.app import app, say, writable
from metaprune.cli.options import Config, Input, Model, Scale, Size


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
def methods(
    method: Annotated[str | None, typer.Argument(help="Say all of this one.")] = None,
    config: Config = None,
) -> None:
    """List the methods and their settings, those that other packages offer too."""
    from metaprune.cli.choosing import known_methods
    from metaprune.cli.resolve import UsageError
    from metaprune.cli.show import methods_table, one_method

    known = known_methods(say)
    if method is None:
        methods_table(known)
    elif method in known:
        one_method(method, known[method])
    else:
        raise UsageError(f"method {method!r} is not known; there are {', '.join(known)}")
