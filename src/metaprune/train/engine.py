"""The training loop: Lightning Fabric is used here and nowhere else.

One schedule may span several calls of `fit` (a search and the fine-tuning after it), and a run that is
killed goes on where it was: on the CPU it ends with bitwise the weights of an uninterrupted one.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from metaprune.graph.arguments import is_whole, wanted
from metaprune.graph.tensors import clone
from metaprune.train import randomness
from metaprune.train.average import Average
from metaprune.train.borrowing import Compiled, borrowed, statistics_kept
from metaprune.train.callbacks import Callback, Moment
from metaprune.train.checkpoint import Checkpoint
from metaprune.train.checks import (
    TrainError,
    answer,
    examples_of,
    holds_tensors,
    length,
    one_of,
    predicted,
    smallest,
)
from metaprune.train.extras import Extras
from metaprune.train.layout import Layout
from metaprune.train.logs import Logging
from metaprune.train.loop import Loop, Window
from metaprune.train.measure import Measure, begin
from metaprune.train.optimizers import Factory, Groups, as_moved
from metaprune.train.processes import ALONE, Group
from metaprune.train.progress import Bar
from metaprune.train.recipe import Recipe
from metaprune.train.run import Best, History, Projector, Run
from metaprune.train.several.dividing import ahead, divided, near
from metaprune.train.several.launching import fabric_of, group_of, is_alone
from metaprune.train.several.whole_batch import Across
from metaprune.train.stepping import Training, step
from metaprune.train.task import Batch, First, Loader, Task

__all__ = ["device_of", "evaluate", "fit", "in_processes", "measured", "rehearse"]

MEASURING = "evaluate"  # what it is called where data do not fit
Look = Callable[[Any], object] | None
LOOK = 20  # steps between two looks at the loss; each look waits for the device
P = ParamSpec("P")
T = TypeVar("T")


def in_processes(function: Callable[P, T]) -> Callable[P, T]:
    """A function that all processes of its `recipe` run side by side: what ends it in one ends it in all."""

    @wraps(function)
    def together(*args: P.args, **kwargs: P.kwargs) -> T:
        recipe = kwargs.get("recipe") or next((given for given in args if isinstance(given, Recipe)), None) or Recipe()
        if not isinstance(recipe, Recipe) or is_alone(recipe):
            return function(*args, **kwargs)
        with group_of(_fabric(recipe)).together(function.__name__):
            return function(*args, **kwargs)

    return together


@in_processes
def fit(
    module: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    start: int = 0,
    stop: int | None = None,
    name: str = "fine-tuning",
    during: Sequence[Projector] = (),
    parameters: Groups | None = None,
    optimizer: Factory | None = None,
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    keep: Literal["last", "best"] | None = None,
    checkpoint: Checkpoint | Path | str | None = None,
    progress: bool = True,
) -> History:
    """Trains a network in place, and the task's partners, for the epochs [start, stop) of the recipe's one schedule.

    The network stays on the device it was trained on. Its train and eval modes, the memory layout of its
    filters and all global random numbers are given back as they were; frozen parameters stay as they are.

    Args:
        module: the network.
        task: what it is for.
        recipe: how to train.
        start: the first epoch.
        stop: the epoch after the last one; by default the end of the schedule.
        name: what this phase is called in the history and on the screen.
        during: what changes the network after each step of the optimizer, such as a search; its state survives a kill.
        parameters: groups for the optimizer, as torch takes them; a learning rate of their own follows the
            schedule in proportion. By default all parameters, with weight decay on those of two and more
            dimensions only.
        optimizer: makes the optimizer of such groups, each with its "lr" and "weight_decay", in the recipe's place.
        loggers: those of Lightning or Fabric, told of losses, the rate and the metric.
        callbacks: who is told of each step and epoch.
        keep: which epoch's weights the network ends with, as the recipe says by default.
        checkpoint: where to keep the state, after each epoch and every `seconds` inside it; a folder belongs
            to one run. If a state of this run is there, the training goes on from it; if the run had come to
            its end, the network gets its weights back at once.
        progress: show a bar, or where there is no terminal, a line an epoch.

    Returns:
        One row an epoch, those before a kill among them.

    Raises:
        TrainError: no batches, nothing to train, or a loss that is not finite: then the network is left with
            what it had become.
        CheckpointError: the checkpoint is damaged, of another run, or cannot be written.
    """
    _known(name, module, task, recipe)
    stop = recipe.epochs if stop is None else stop
    if not (is_whole(start) and is_whole(stop)) or not 0 <= start <= stop <= recipe.epochs:
        raise TrainError(f"{name}: expected 0 <= start <= stop <= {recipe.epochs} (epochs), got {start!r} and {stop!r}")
    for projector in during:
        wanted(name, "projector", projector, Projector, "an object with after_step and a state_dict", TrainError)
    Extras(optimizer, loggers, callbacks).check(name)
    if loggers:
        callbacks = [*callbacks, Logging(loggers, task.metric_name)]
    told_of_steps = [callback for callback in callbacks if type(callback).on_step is not Callback.on_step]
    given = length(task.train, f"{name}: the training data")
    batches = recipe.batches(given)
    train = task.train if batches == given else First(task.train, batches)
    length(task.val, f"{name}: the validation data")
    if isinstance(checkpoint, Path | str):
        checkpoint = Checkpoint(checkpoint)
    wanted(name, "checkpoint", checkpoint, Checkpoint | None, "a folder", TrainError)
    fabric = _fabric(recipe)
    group = _known_to_divide(fabric, task, name)
    for projector in during if _splits(recipe, group) else ():
        if not getattr(projector, "leaves_weights", False):
            raise TrainError(
                f"{name}: {type(projector).__name__} changes weights, of which each process has a piece with "
                "strategy='fsdp'; train with strategy='ddp'"
            )
    if task.average is not None and _splits(recipe, group):
        raise TrainError(
            f"{name}: the task keeps an average of the weights, of which each process has a piece with "
            "strategy='fsdp'; train with strategy='ddp'"
        )
    if checkpoint:
        group.told(checkpoint.prepare)
    total, steps = (stop - start) * batches, recipe.steps(batches, stop - start)
    before = recipe.steps(batches, start)
    names = {id(parameter): name for name, parameter in module.named_parameters()}

    with ExitStack() as stack:
        stack.enter_context(borrowed(module, fabric.device, recipe, group, divide=_splits(recipe, group)))
        for partner in task.partners.values():
            stack.enter_context(borrowed(partner.module, fabric.device, recipe))
        bar = stack.enter_context(Bar(name, total, shown=progress and group.leads))
        loop = Loop(fabric, module, task, recipe, as_moved(parameters, names, module), name, optimizer, group)
        identity = recipe.what | {  # a run may move, and go on in more processes or fewer
            "name": name,
            "start": start,
            "stop": stop,
            "batches": batches,
            "groups": loop.sizes,
            "optimizer": [type(each).__name__ for each in loop.optimizers.values()],
        }
        average = None if task.average is None or during else Average(module, task.average)
        acting = [*during] if average is None else [average]
        run = Run(loop.modules, loop.optimizers, acting, identity | {"average": task.average}, group)
        layout = Layout(recipe, _filters(module, task, recipe, group), lambda text: bar.line(f"{name}: {text}"))

        def place(batch: Batch) -> Batch:
            return layout.of(fabric.to_device(batch))

        data = divided(near(train, fabric.device), task, group, f"{name}: the training data")
        val = near(task.val, fabric.device)
        across = Across(group) if group.size > 1 else None
        compiled = Compiled(module, recipe)
        best = Best(run, task.higher_is_better) if (keep or recipe.keep) == "best" else None
        if checkpoint:
            run.resume(checkpoint)
        while run.epoch < stop:
            bar.at((run.epoch - start) * batches + run.batch)
            loop.train()
            for batch, weight, _ in run.rest_of_epoch(ahead(iter(data), place, fabric.device)):
                done = (run.epoch - start) * batches + run.batch
                window = Window.at(done, total, recipe.accumulate)
                lr = recipe.lr_at(run.epoch + (run.batch + window.middle) / batches)
                loop.begin(window, lr, weight)

                def stepped(batch: Batch, first: bool = done == 0) -> Tensor:
                    with statistics_kept(module, only=first):
                        return step(loop.training, batch, name)

                with fabric.autocast(), _across(across, weight), compiled:
                    loss = layout.tried(stepped, batch)
                with _across(across, weight):  # backward may run parts of the network again
                    loop.learn(loss)
                if window.closes:
                    for projector in acting:
                        projector.after_step(window.place, steps)
                run.count(loss, lr, weight=weight, half=not window.closes)
                if told_of_steps and window.closes:
                    if group.size > 1:
                        loss = group.total(loss.detach() * (weight / group.size))
                    epoch = run.epoch + run.batch / batches
                    now = Moment(
                        name, epoch, window.place + 1, steps, before + window.place + 1, lr, loss.detach(), module
                    )
                    for callback in told_of_steps:
                        callback.on_step(now)
                if run.batch % LOOK == 0:
                    bar.at(done + 1, f"loss {run.look():.3f}")
                if checkpoint and run.batch < batches:
                    run.save_every(checkpoint)
            with average.shown() if average else nullcontext():
                row = run.end_epoch(_score(fabric, loop.training.network, val, task, layout, group))
                if best:
                    best.look(row)
                bar.line(
                    f"{name}: epoch {row.epoch} of {recipe.epochs}, loss {row.loss:.3f}, "
                    f"{task.metric_name} {row.metric:.4g}, {row.seconds:.1f} s"
                )
                for callback in callbacks:
                    done = recipe.steps(batches, run.epoch - start)
                    callback.on_epoch(
                        Moment(name, row.epoch, done, steps, before + done, lr, loss.detach(), module, row)
                    )
            if checkpoint:
                run.save(checkpoint)
        loop.forget_gradients()
        kept = best.back() if best else None
        if average and kept is None:
            average.take_on()
        return History(run.rows, kept)


def rehearse(module: nn.Module, task: Task, recipe: Recipe) -> None:
    """Tries a first batch of the training data on a copy: what does not fit is better known before a long search.

    Of the last batch, too, where the loader tells that it has one example only. Nothing is changed.

    Raises:
        MetapruneError: no batches, a network that cannot take them, a loss that is none or not finite.
    """
    what = "rehearsal"
    batches = length(task.train, "prune: the training data")
    length(task.val, "prune: the validation data")
    fabric = _fabric(recipe)
    group = _known_to_divide(fabric, task, what)
    twin, task = clone(module), task.cloned()
    with ExitStack() as stack:
        stack.enter_context(borrowed(twin, fabric.device, recipe, group, divide=_splits(recipe, group)))
        for partner in task.partners.values():
            stack.enter_context(borrowed(partner.module, fabric.device, recipe))
        layout = Layout(recipe, _filters(twin, task, recipe, group))
        for trained in (twin, *(partner.module for partner in task.partners.values())):
            trained.train()
        randomness.seed(recipe.seed, 0)
        network = fabric.setup(twin)
        partners = {name: fabric.setup(partner.module) for name, partner in task.partners.items()}
        data = divided(First(task.train, batches), task, group, "prune: the training data")
        batch, weight, _ = next(iter(data))
        batch = fabric.to_device(batch)
        across = Across(group) if group.size > 1 else None
        training = Training(network, twin, partners, {}, task)
        with torch.enable_grad(), fabric.autocast(), _across(across, weight):
            loss = layout.tried(lambda batch: step(training, batch, what), batch)
        if not math.isfinite(loss.item()):
            raise TrainError(
                f"{what}: the loss is {loss.item()} at epoch 1, step 1, whatever the lr; look for numbers in the "
                "data and in the weights that are not finite, and for a division by 0 in the loss"
            )
        if smallest(task.train) == 1 and holds_tensors(batch, task):
            with torch.no_grad(), fabric.autocast():
                one = layout.of(one_of(batch, examples_of(batch, task)))
                answer(network, one, task, f"{what} of the last training batch")


@in_processes
def evaluate(module: nn.Module, batches: Loader, task: Task, recipe: Recipe) -> float:
    """The metric of the task over all examples, in evaluation mode.

    The network stays on the device; everything else is given back as it was.

    Raises:
        TrainError: there are no batches.
    """
    _known(MEASURING, module, task, recipe)
    measure = begin(task, task.metric, task.metric_name, MEASURING)
    measured(module, batches, task, recipe, [measure])
    return measure.value()


def measured(
    module: nn.Module, batches: Loader, task: Task, recipe: Recipe, measures: Sequence[Measure], look: Look = None
) -> None:
    """Take several measures of a network in one pass.

    Args:
        module: the network; given back as it was.
        batches: what to measure on.
        task: what the network is given, and what is measured of it.
        recipe: the device and the precision.
        measures: each is given all outputs.
        look: called with each output, on the device.

    Raises:
        TrainError: there are no batches.
    """
    _known(MEASURING, module, task, recipe)
    length(batches, "evaluate: the data")
    fabric = _fabric(recipe)
    group = group_of(fabric)
    with borrowed(module, fabric.device, recipe, group, divide=_splits(recipe, group)):
        randomness.seed(recipe.seed)
        turns = ALONE if look else group  # who looks is to see all
        layout = Layout(recipe, () if _splits(recipe, group) else (module,))
        _pass(fabric, fabric.setup(module), batches, task, layout, measures, turns, look)


def device_of(recipe: Recipe) -> torch.device:
    """Where a recipe trains: the device it names, or the one that is picked for "auto".

    Raises:
        TrainError: there is no such device.
    """
    device: torch.device = _fabric(recipe).device
    return device


def _known(who: str, module: object, task: object, recipe: object) -> None:
    """Refuse what is no network, no task or no recipe."""
    wanted(who, "network", module, nn.Module, "an nn.Module", TrainError)
    wanted(who, "task", task, Task, "mp.Classification(train_loader, val_loader) or the like", TrainError)
    wanted(who, "recipe", recipe, Recipe, "mp.Recipe(epochs=10)", TrainError)


def _fabric(recipe: Recipe) -> Any:
    """Fabric on the recipe's devices, at its precision."""
    return fabric_of(recipe)


def _known_to_divide(fabric: Any, task: Task, who: str) -> Group:
    """The processes, once it is known that they can train this task together."""
    group = group_of(fabric)
    if group.size > 1 and task.alone:
        raise TrainError(f"{who}: {group.size} processes cannot train this task together: {task.alone}; train in one")
    return group


def _splits(recipe: Recipe, group: Group) -> bool:
    """Whether weights are split between the processes."""
    return recipe.strategy == "fsdp" and group.size > 1


def _across(mode: Across | None, weight: float) -> Any:
    """What a step on several processes runs in."""
    if mode is None:
        return nullcontext()
    mode.weight = weight
    return mode


def _filters(module: nn.Module, task: Task, recipe: Recipe, group: Group) -> tuple[nn.Module, ...]:
    """What is laid out as the recipe says: all that trains, unless weights are split between processes."""
    partners = tuple(partner.module for partner in task.partners.values())
    return partners if _splits(recipe, group) else (module, *partners)


def _score(fabric: Any, network: Any, batches: Loader, task: Task, layout: Layout, group: Group) -> float:
    """The metric, in evaluation mode."""
    measure = begin(task, task.metric, task.metric_name, MEASURING)
    _pass(fabric, network, batches, task, layout, [measure], group)
    return measure.value()


def _add(measure: Measure, both: tuple[Any, Batch], *, divided: bool) -> None:
    measure.add(*both, divided=divided)


def _pass(
    fabric: Any,
    network: Any,
    batches: Loader,
    task: Task,
    layout: Layout,
    measures: Sequence[Measure],
    group: Group = ALONE,
    look: Look = None,
) -> None:
    """One pass in evaluation mode; processes take turns with the batches."""
    network.eval()
    several = group.size > 1
    with torch.no_grad():  # not inference mode: what a loader or a module caches here may be trained on later
        turns: Literal["turns", "side by side"] = "side by side" if _splits(layout.recipe, group) else "turns"
        for part in divided(batches, task, group, f"{MEASURING}: the data", turns):
            batch = layout.of(fabric.to_device(part.batch))
            output = layout.tried(lambda batch: predicted(network, batch, task, MEASURING), batch)
            if look:
                look(output)
            for measure in measures if part.weight else ():
                layout.tried(partial(_add, measure, divided=several), (output, batch))
        for measure in measures if several else ():
            measure.gather(group)
