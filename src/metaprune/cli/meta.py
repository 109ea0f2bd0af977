"""The commands around graph metanetworks: make networks to learn from, and learn from them."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from metaprune.cli.app import app, set_threads, together, writable
from metaprune.cli.options import (
    Augment,
    BatchSize,
    Channels,
    Config,
    DataOption,
    Device,
    Devices,
    Mean,
    Nodes,
    OptimizerOption,
    Patch,
    Patches,
    PrecisionOption,
    Scale,
    Seed,
    Sigma,
    Size,
    Std,
    Task,
    Threads,
    ValImages,
    ValShare,
    Workers,
    several,
)
from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.purpose import Purpose
from metaprune.cli.purpose.recipes import recipes
from metaprune.cli.purpose.task_name import TaskName

__all__ = ["GoalName"]

ALONE = (TaskName.classification, TaskName.super_resolution, TaskName.denoising)
"""Tasks whose networks train without partners, one after the other on the same data."""


class GoalName(StrEnum):
    """Goals of meta-training."""

    imitate = "imitate"
    worth = "worth"
    direct = "direct"
    paper = "paper"


@app.command()
def zoo(
    models: Annotated[list[str], typer.Argument(help="Networks, named as for `metaprune prune`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder of the zoo; several processes may share it.")],
    count: Annotated[int, typer.Option(help="How many networks are trained.")] = 8,
    epochs: Annotated[int, typer.Option(help="Epochs of training.")] = 25,
    tuning: Annotated[
        int | None, typer.Option("--tuning-epochs", help="Epochs after a cut; by default 0.4 of --epochs.")
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="An argument of the networks' functions and its values, depth=2,3.")
    ] = None,
    widths: Annotated[str, typer.Option(help="Shares of the channels that networks start with.")] = "1,0.75,0.5",
    cuts: Annotated[str, typer.Option(help="Shares of the MACs that networks are pruned to after training.")] = "1,0.6",
    snapshots: Annotated[str, typer.Option(help="Epochs after which the weights are stored too, as 5,10.")] = "",
    optimizer: OptimizerOption = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; by default what suits a dense network.")] = None,
    task: Task = None,
    scale: Scale = None,
    sigma: Sigma = None,
    batch_size: BatchSize = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    augment: Augment = True,
    val_share: ValShare = None,
    workers: Workers = None,
    channels: Channels = None,
    patch: Patch = None,
    patches: Patches = None,
    val_images: ValImages = None,
    seed: Annotated[int, typer.Option(help="Of the choice, and the first network's; the others count up.")] = 0,
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    devices: Devices = "1",
    nodes: Nodes = 1,
    threads: Threads = None,
    config: Config = None,
) -> None:
    """Train a family of small networks for `metaprune meta-train`; finished ones are kept, a killed run goes on.

    All combinations of network, --vary, --widths and --cuts, shuffled by the seed, are trained one after the other,
    each with a seed of its own; where --count is larger than their number, they come again. Several processes, started
    by --devices or by hand, each train networks of their own.
    """
    from dataclasses import replace

    from metaprune.cli.resolve import build, example
    from metaprune.cli.show import console
    from metaprune.methods.graph_metanetwork.learning.zoo import grow, variants

    set_threads(threads)
    purpose = _purpose(models, task, scale, sigma)
    look, cut = Look(size, mean, std, augment, val_share, workers), Cut(patch, patches, val_images)
    chosen = variants(
        models,
        count,
        vary=dict(_varied(words) for words in vary or []),
        widths=_numbers(widths, "--widths"),
        cuts=_numbers(cuts, "--cuts"),
        seed=seed,
    )
    epochs_stored = [int(number) for number in _numbers(snapshots, "--snapshots")]
    after = max(1, round(0.4 * epochs)) if tuning is None else tuning
    common = {"precision": precision, "device": device, **several(devices, None, nodes)}
    dense, tuned = recipes(purpose.task, after, epochs, optimizer, None, **common)
    dense = dense if lr is None else replace(dense, lr=lr)
    tuned = replace(tuned, lr=dense.lr / 10)
    together(dense, "zoo")
    writable(out, shared=True)
    ready = purpose.load(data, batch_size, channels, cut, look)
    builders = {name: partial(_build, name, ready.builds) for name in models}
    for variant in chosen:  # better now than after an hour
        build(variant.network, ready.builds, variant.builds)
    args = example("x".join(map(str, ready.sizes)), 2)
    found = grow(
        out,
        builders,
        chosen,
        args,
        ready.task,
        dense,
        tuning=tuned,
        snapshots=epochs_stored,
        data=ready.label,
        facts={"builds": ready.builds, **_asked(purpose, channels, look, cut)},
    )
    shown = console()
    for entry in found:
        variant = entry.variant
        told = "".join(f", {key} {value}" for key, value in variant.builds.items())
        shown.print(
            f"{variant.name}: {variant.network}{told}, width {variant.width:g}, cut to {variant.cut:g}, "
            f"{ready.task.metric_name} {entry.metric:.2f}",
            soft_wrap=True,
        )
    shown.print(f"{len(found)} networks in {out}; next:\n  metaprune meta-train {out} --data {data} --out DIR")


@app.command("meta-train")
def meta_train(
    folder: Annotated[Path, typer.Argument(help="A folder that `metaprune zoo` wrote.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where the metanetwork, its curve and the checkpoints go.")],
    objective: Annotated[
        GoalName,
        typer.Option(
            help="imitate: what a search found; worth: widths, by what all were worth that a search tuned; "
            "direct: loss at random budgets; paper: loss and regulariser."
        ),
    ] = GoalName.imitate,
    strength: Annotated[float, typer.Option(help="For paper: how much the regulariser counts.")] = 1.0,
    teacher: Annotated[
        str, typer.Option(help="For imitate: the method that searches; for worth: one whose widths are tried, too.")
    ] = "dhp",
    teacher_epochs: Annotated[
        int, typer.Option(help="For imitate and worth: epochs of the recipe that is searched or tuned with.")
    ] = 5,
    shares: Annotated[
        str | None,
        typer.Option(
            help="For imitate and worth: shares of the MACs searched for; by default 0.25,0.35,0.5, for worth 0.1,0.3."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Times that each network is seen; by default 20, for worth 40.")
    ] = None,
    batches: Annotated[int, typer.Option(help="For direct and paper: batches that a step adds up.")] = 4,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate at the start; by default 3e-3, for worth 0.1.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Size of the metanetwork's states.")] = 32,
    layers: Annotated[int | None, typer.Option(help="Its rounds of messages; by default 4, for worth 0.")] = None,
    step: Annotated[float, typer.Option(help="How large edits are, as a share of a tensor's root mean square.")] = 0.1,
    held_out: Annotated[int, typer.Option(help="Networks that are kept to choose by.")] = 1,
    every: Annotated[int, typer.Option(help="Epochs between two choices.")] = 1,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = "1",
    nodes: Nodes = 1,
    threads: Threads = None,
    config: Config = None,
) -> None:
    """Meta-train a graph metanetwork on a zoo; a killed run goes on.

    The networks held out are the last ones by name, with their snapshots; which parameters are taken is decided by how
    accurate those are, on the validation data, when they are edited, cut to several budgets, and tuned for some steps;
    for worth, by what was measured of them, too. By default the other networks are searched first, and for worth all
    are, which takes most of the time; what is found goes into OUT/lessons.
    What the networks are for, and how their images are cut and scaled, the zoo remembers. With --devices, processes
    each search for lessons of their own, and learn from all together.
    """
    from dataclasses import replace

    import torch

    from metaprune.cli.choosing import chosen_method
    from metaprune.cli.resolve import UsageError, example
    from metaprune.cli.show import console
    from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
    from metaprune.methods.graph_metanetwork.learning.goals.direct import Direct
    from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
    from metaprune.methods.graph_metanetwork.learning.goals.imitate import Imitate
    from metaprune.methods.graph_metanetwork.learning.goals.paper import Paper
    from metaprune.methods.graph_metanetwork.learning.goals.worth import LINEAR, Worth
    from metaprune.methods.graph_metanetwork.learning.lessons.teach import LESSONS, TIGHT, grade, teach
    from metaprune.methods.graph_metanetwork.learning.meta_train import meta_train as run
    from metaprune.methods.graph_metanetwork.learning.zoo import entries, known, networks
    from metaprune.methods.graph_metanetwork.reading.survey.survey import GROUPS
    from metaprune.train.recipe import Recipe

    set_threads(threads)
    goals: dict[GoalName, Goal] = {
        GoalName.paper: Paper(strength),
        GoalName.direct: Direct(),
        GoalName.imitate: Imitate(),
        GoalName.worth: Worth(),
    }
    wide = objective == GoalName.worth
    searcher = chosen_method(teacher, [])
    searched_for = (TIGHT if wide else LESSONS) if shares is None else _numbers(shares, "--shares")
    where = {"device": device, **several(devices, None, nodes)}
    usual = LINEAR if wide else Recipe(20, lr=3e-3, optimizer="adamw")
    chosen: dict[str, Any] = {name: value for name, value in (("epochs", epochs), ("lr", lr)) if value is not None}
    recipe = replace(usual, **chosen, seed=seed, precision="32-true", **where)
    about, found = known(folder), entries(folder)
    if not 1 <= held_out < len(found):
        raise UsageError(f"--held-out: expected 1 to {len(found) - 1}, fewer than the zoo's networks, got {held_out}")
    for name, value in (("batches", batches), ("every", every)):
        if value < 1:
            raise UsageError(f"--{name}: expected a number from 1, got {value}")
    words = sorted({entry.variant.network for entry in found})
    torch.manual_seed(seed)
    if wide:
        metanetwork = Metanetwork(hidden, layers or 0, step, surveys=GROUPS, scored="widths", edits=False)
    else:
        metanetwork = Metanetwork(hidden, 4 if layers is None else layers, step)
    together(recipe, "meta-train")
    writable(out)
    purpose, channels, look, cut = _remembered(about, words, folder)
    _, searching = recipes(purpose.task, teacher_epochs, 1, None, None, seed=seed, **where)
    ready = purpose.load(data, batch_size, channels, cut, look)
    if ready.label != about["data"] or ready.builds != about["facts"].get("builds"):
        raise UsageError(f"--data: the networks of {folder} are of {about['data']}, got {ready.label}; give the same")
    builders = {name: partial(_build, name, ready.builds) for name in words}
    args = example("x".join(map(str, ready.sizes)), 2)
    models = networks(folder, builders, args)
    last = {entry.variant.name for entry in found[-held_out:]}
    learned = {name: model for name, model in models.items() if name.partition("@")[0] not in last}
    lessons = None
    home: dict[str, Any] = {"out": out / "lessons", "shares": searched_for, "recipe": searching}
    if objective == GoalName.imitate:
        lessons = teach(learned, args, ready.task, searcher, **home)
    elif wide:
        lessons = grade(models, args, ready.task, teachers={teacher: searcher}, **home)
    curve = run(
        metanetwork,
        learned,
        args,
        ready.task,
        held_out={name: model for name, model in models.items() if name in last},
        goal=goals[objective],
        recipe=recipe,
        batches=batches,
        every=every,
        lessons=lessons,
        choose_by="lessons" if wide else "area",
        out=out,
    )
    shown = console()
    looked_at = "surprise at the lessons of" if wide else f"area of {ready.task.metric_name} on"
    shown.print(
        f"{looked_at} networks held out: {curve.checks[0].area:.2f} without edits, "
        f"{curve.best.area:.2f} with those after step {curve.chosen} of {len(curve.steps)}",
        soft_wrap=True,
    )
    if not curve.chosen:
        shown.print("note: no edits were best; the metanetwork that was written changes nothing")
    named = "".join(f" --{name} {value}" for name, value in about["facts"].get("task", {}).items())
    shown.print(
        f"curve: {out / 'curve.html'}; next:\n"
        f"  metaprune prune {words[0]} --data {data}{named} --method graph_metanetwork "
        f"--metanetwork {out / 'metanetwork.safetensors'} --macs 0.5 --out DIR",
        soft_wrap=True,
    )


def _purpose(
    models: list[str],
    task: TaskName | None = None,
    scale: int | None = None,
    sigma: float | None = None,
    settings: dict[str, str] | None = None,
) -> Purpose:
    """What the networks are for: all the same, and none of it with partners, which a zoo does not keep.

    As given; else as a zoo remembers it (`settings`); else what built-in networks are for.

    Raises:
        UsageError: They are for several tasks, or for one that a zoo is not for.
    """
    from metaprune.cli.resolve import UsageError, task_of

    known = settings or {}
    kinds = {name: TaskName(task or known.get("task") or task_of(name) or TaskName.classification) for name in models}
    first = kinds[models[0]]
    for name, kind in kinds.items():
        if kind not in ALONE:
            raise UsageError(f"network {name!r} is for {kind}; a zoo is for {', '.join(ALONE)}")
        if kind != first:
            raise UsageError(f"network {name!r} is for {kind}, {models[0]!r} for {first}; a zoo is for one task")
    purposes = [Purpose.of(name, first, scale, sigma, known) for name in models]  # each may refuse what is asked
    return purposes[0]


def _asked(purpose: Purpose, channels: int | None, look: Look, cut: Cut) -> dict[str, Any]:
    """What of the task and the data is not as usual, as the index of a zoo remembers it for `meta-train`."""
    told = {
        "task": purpose.settings if purpose.restores else {},
        "channels": channels,
        "look": {name: value for name, value in vars(look).items() if value != getattr(Look, name)},
        "cut": cut.given,
    }
    return {name: value for name, value in told.items() if value}


def _remembered(about: dict[str, Any], words: list[str], folder: Path) -> tuple[Purpose, int | None, Look, Cut]:
    """What `_asked` told the index of a zoo.

    Raises:
        UsageError: The index is damaged.
    """
    from metaprune.cli.resolve import UsageError

    try:
        facts = about["facts"]
        purpose = _purpose(words, settings=facts.get("task", {}))
        return purpose, facts.get("channels"), Look(**facts.get("look", {})), Cut(**facts.get("cut", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"zoo: {folder}/zoo.json is damaged ({error!r:.100}); make the zoo again") from error


def _build(name: str, facts: dict[str, Any], /, **varied: Any) -> Any:
    from metaprune.cli.resolve import build

    return build(name, facts, varied)


def _numbers(words: str, option: str) -> list[float]:
    from metaprune.cli.resolve import UsageError

    try:
        return [float(word) for word in words.split(",") if word]
    except ValueError as error:
        raise UsageError(f"{option}: expected numbers like 1,0.5, got {words!r}") from error


def _varied(words: str) -> tuple[str, list[Any]]:
    """An argument and its values: numbers where they are, else words."""
    from metaprune.cli.resolve import UsageError

    def value(word: str) -> Any:
        try:
            return json.loads(word)
        except json.JSONDecodeError:
            return word

    key, _, values = words.partition("=")
    if not key or not values:
        raise UsageError(f"--vary {words}: expected an argument and its values, as depth=2,3")
    return key, [value(word) for word in values.split(",")]
