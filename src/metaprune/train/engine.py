"""The training loop: Lightning Fabric is used here and nowhere else.

One schedule may span several calls of `fit` (a search and the fine-tuning after it), and a run that is
killed goes on where it was: on the CPU it ends with bitwise the weights of an uninterrupted one.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.graph.arguments import is_number, is_whole, wanted
from metaprune.graph.tensors import channels_last, clone
from metaprune.train import randomness
from metaprune.train.checkpoint import Checkpoint
from metaprune.train.checks import (
    TrainError,
    answer,
    counted,
    examples_of,
    length,
    loss_of,
    mean,
    metric_of,
    one_of,
    smallest,
)
from metaprune.train.progress import Bar
from metaprune.train.run import History, Run, Stateful
from metaprune.train.task import Batch, Loader, Task

__all__ = ["Recipe", "device_of", "evaluate", "fit", "rehearse"]

MEASURING = "evaluate"  # what it is called where data do not fit
LOOK = 20  # steps between two looks at the loss; each look waits for the device


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, schedule, precision, seed. The schedule spans all `epochs`."""

    epochs: int = 10
    lr: float = 0.1  # at the top of the schedule
    momentum: float = 0.9  # of "adamw", its first beta
    weight_decay: float = 5e-4
    nesterov: bool = True
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["cosine", "constant", "steps"] = "cosine"  # cosine falls to 0 at the end of the last epoch
    milestones: tuple[float, ...] = ()  # of "steps": epochs at which the rate falls to a tenth
    warmup: float = 0.0  # epochs in which the rate rises from 0, step by step
    clip_norm: float | None = None  # the largest norm of the gradient
    seed: int = 0
    precision: str = "auto"  # "32-true", "bf16-mixed", … as in Fabric; "auto": see `pick_precision`
    device: str = "auto"  # "cpu", "cuda", "cuda:1", …
    channels_last: bool = True  # memory layout of images and filters

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            TrainError: a value out of range.
        """
        clip, last = self.clip_norm, self.epochs if type(self.epochs) is int else math.inf
        whole = {name: type(getattr(self, name)) is int for name in ("epochs", "seed")}
        numbers = ("lr", "momentum", "weight_decay", "warmup")
        real = {name: is_number(value := getattr(self, name)) and math.isfinite(value) for name in numbers}
        steps = isinstance(self.milestones, tuple | list) and all(map(is_number, self.milestones))
        limits = {
            "epochs": (whole["epochs"] and self.epochs >= 1, "a whole number from 1"),
            "lr": (real["lr"] and self.lr > 0, "a number above 0"),
            "momentum": (real["momentum"] and 0 <= self.momentum < 1, "a number inside [0, 1)"),
            "weight_decay": (real["weight_decay"] and self.weight_decay >= 0, "a number from 0"),
            "optimizer": (self.optimizer in ("sgd", "adamw"), "'sgd' or 'adamw'"),
            "schedule": (self.schedule in ("cosine", "constant", "steps"), "'cosine', 'constant' or 'steps'"),
            "milestones": (
                steps
                and bool(self.milestones) == (self.schedule == "steps")
                and list(self.milestones) == sorted(self.milestones),
                "ascending epochs for schedule='steps', and empty for the others",
            ),
            "warmup": (real["warmup"] and 0 <= self.warmup < last, "epochs inside [0, epochs)"),
            "clip_norm": (clip is None or (is_number(clip) and clip > 0), "None or above 0"),
            "seed": (whole["seed"] and 0 <= self.seed < 2**63, "a whole number inside [0, 2^63)"),
            "precision": (isinstance(self.precision, str), "words such as '32-true'"),
            "device": (isinstance(self.device, str), "words such as 'cpu' or 'cuda:0'"),
        }
        for name, (fits, expected) in limits.items():
            if not fits:
                raise TrainError(f"recipe: {name} must be {expected}, got {getattr(self, name)!r}")

    def lr_at(self, epoch: float) -> float:
        """The learning rate `epoch` epochs after the start of the schedule."""
        if epoch < self.warmup:
            return self.lr * epoch / self.warmup
        if self.schedule != "cosine":
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)))


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


def fit(
    module: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    start: int = 0,
    stop: int | None = None,
    name: str = "fine-tuning",
    after_step: Callable[[int, int], None] | None = None,
    state: Stateful | None = None,
    parameters: list[dict[str, Any]] | None = None,
    checkpoint: Checkpoint | Path | str | None = None,
    progress: bool = True,
) -> History:
    """Trains a network in place, for the epochs [start, stop) of the recipe's one schedule.

    The network stays on the device it was trained on. Its train and eval modes, the memory layout of its
    filters and all global random numbers are given back as they were; frozen parameters stay as they are.

    Args:
        module: the network.
        task: what it is for.
        recipe: how to train.
        start: the first epoch.
        stop: the epoch after the last one; by default the end of the schedule.
        name: what this phase is called in the history and on the screen.
        after_step: called after every step of the optimizer with the index of the step, counted from 0 at
            `start`, and the number of all steps from `start` to `stop`.
        state: whatever else must survive a kill, such as what `after_step` counts.
        parameters: groups for the optimizer, as torch takes them; a learning rate of their own follows the
            schedule in proportion. By default all parameters, with weight decay on those of two and more
            dimensions only.
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
    batches = length(task.train, f"{name}: the training data")
    length(task.val, f"{name}: the validation data")
    if isinstance(checkpoint, Path | str):
        checkpoint = Checkpoint(checkpoint)
    wanted(name, "checkpoint", checkpoint, Checkpoint | None, "a folder", TrainError)
    fabric = _fabric(recipe)
    if checkpoint:
        checkpoint.prepare()
    steps = (stop - start) * batches
    names = {id(parameter): name for name, parameter in module.named_parameters()}

    with _borrowed(module, fabric.device, recipe), Bar(name, steps, shown=progress) as bar:
        optimizer = _optimizer(module, recipe, _as_moved(parameters, names, module), name)
        shares = [group["lr"] / recipe.lr for group in optimizer.param_groups]
        network, stepper = fabric.setup(module, optimizer)
        identity = asdict(recipe) | {
            "device": None,  # a run may move to another
            "name": name,
            "start": start,
            "stop": stop,
            "batches": batches,
            "groups": [len(group["params"]) for group in optimizer.param_groups],
        }
        run = Run(module, optimizer, state, identity)
        if checkpoint:
            run.resume(checkpoint)
        while run.epoch < stop:
            bar.at((run.epoch - start) * batches + run.batch)
            module.train()
            for batch in run.rest_of_epoch(task.train):
                step = (run.epoch - start) * batches + run.batch
                lr = recipe.lr_at(run.epoch + (run.batch + 0.5) / batches)  # of the middle of the step
                for group, share in zip(optimizer.param_groups, shares, strict=True):
                    group["lr"] = lr * share

                batch = _placed(fabric, batch, recipe)
                with fabric.autocast(), _given_back(module, only=step == 0):
                    loss = loss_of(answer(network, batch, task, name), batch, task, name)
                stepper.zero_grad()
                fabric.backward(loss)
                if recipe.clip_norm is not None:
                    fabric.clip_gradients(network, stepper, max_norm=recipe.clip_norm)
                stepper.step()
                if after_step:
                    after_step(step, steps)

                run.count(loss, lr)
                if run.batch % LOOK == 0:
                    bar.at(step + 1, f"loss {run.look():.3f}")
                if checkpoint and run.batch < batches:
                    run.save_every(checkpoint)
            row = run.end_epoch(_score(fabric, network, task.val, task, recipe))
            bar.line(
                f"{name}: epoch {row.epoch} of {recipe.epochs}, loss {row.loss:.3f}, "
                f"{task.metric_name} {row.metric:.4g}, {row.seconds:.1f} s"
            )
            if checkpoint:
                run.save(checkpoint)
        stepper.zero_grad()
        return History(run.rows)


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
    twin = clone(module)
    with _borrowed(twin, fabric.device, recipe):
        randomness.seed(recipe.seed, 0)
        network = fabric.setup(twin)
        network.train()
        batch = _placed(fabric, next(counted(task.train, batches, "prune: the training data")), recipe)
        with torch.enable_grad(), fabric.autocast():
            loss = loss_of(answer(network, batch, task, what), batch, task, what)
        if not math.isfinite(loss.item()):
            raise TrainError(
                f"{what}: the loss is {loss.item()} at epoch 1, step 1, whatever the lr; look for numbers in the "
                "data and in the weights that are not finite, and for a division by 0 in the loss"
            )
        if smallest(task.train) == 1:
            with torch.no_grad(), fabric.autocast():
                answer(network, one_of(batch, examples_of(batch, task)), task, f"{what} of the last training batch")


def evaluate(module: nn.Module, batches: Loader, task: Task, recipe: Recipe) -> float:
    """The metric of the task: its mean over all examples, in evaluation mode.

    The network stays on the device; everything else is given back as it was.

    Raises:
        TrainError: there are no batches.
    """
    _known(MEASURING, module, task, recipe)
    length(batches, "evaluate: the data")
    fabric = _fabric(recipe)
    with _borrowed(module, fabric.device, recipe):
        randomness.seed(recipe.seed)
        return _score(fabric, fabric.setup(module), batches, task, recipe)


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
    """One device, at the precision of the recipe."""
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # no news, no words
    accelerator, _, index = recipe.device.partition(":")
    precision: Any = recipe.precision
    try:
        devices = [int(index)] if index else 1
        if precision == "auto":
            precision = pick_precision(Fabric(accelerator=accelerator, devices=devices).device)
        return Fabric(accelerator=accelerator, devices=devices, precision=precision)
    except Exception as error:
        raise TrainError(
            f"recipe: cannot use device {recipe.device!r} with precision {recipe.precision!r} ({error})"
        ) from error


@contextmanager
def _given_back(module: nn.Module, *, only: bool) -> Iterator[None]:
    """The statistics of a network as they were, should the block fail (if `only` then)."""
    held = [(buffer, buffer.clone()) for buffer in module.buffers()] if only else []
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, before in held:
                buffer.copy_(before)
        raise


_FABRICS = ("_fabric", "_fabric_optimizers")
"""Where Fabric leaves itself in modules that know it (Lightning's)."""


@contextmanager
def _borrowed(module: nn.Module, device: torch.device, recipe: Recipe) -> Iterator[None]:
    """The network on the device and in the layout of the recipe, until it is given back as it was."""
    modes = [(child, child.training) for child in module.modules()]
    home = {parameter.device for parameter in module.parameters()}
    strides = {name: weight.stride() for name, weight in module.named_parameters() if weight.dim() == 4}
    known = {name: vars(module)[name] for name in _FABRICS if name in vars(module)}
    module.to(device)  # where it moves, its parameters may be other tensors than before
    for name in strides if recipe.channels_last else ():
        weight = module.get_parameter(name)
        weight.data = channels_last(weight.data)
    try:
        with randomness.isolated():
            yield
    finally:
        for name in _FABRICS:
            vars(module).pop(name, None)
        vars(module).update(known)
        for name, stride in strides.items():
            weight = module.get_parameter(name)
            if weight.stride() != stride:
                weight.data = torch.empty_strided(weight.shape, stride, dtype=weight.dtype, device=weight.device).copy_(
                    weight.data
                )
        if len(home) == 1:
            module.to(home.pop())
        for child, training in modes:
            child.training = training


def _placed(fabric: Any, batch: Batch, recipe: Recipe) -> Batch:
    """A batch on the device, in the layout of the recipe."""
    batch = fabric.to_device(batch)
    return tree_map_only(Tensor, channels_last, batch) if recipe.channels_last else batch


def _score(fabric: Any, network: nn.Module, batches: Loader, task: Task, recipe: Recipe) -> float:
    """The mean metric, in evaluation mode."""
    network.eval()
    total: float | Tensor = 0.0
    examples = 0
    with torch.no_grad():  # not inference mode: what a loader or a module caches here may be trained on later
        for batch in counted(batches, len(batches), f"{MEASURING}: the data"):
            batch = _placed(fabric, batch, recipe)
            output = answer(network, batch, task, MEASURING)
            value, count = metric_of(output, batch, task, MEASURING)
            total, examples = total + value, examples + count
    return mean(total, examples, task.metric_name, "evaluate: the data")


def _as_moved(
    groups: list[dict[str, Any]] | None, names: dict[int, str], module: nn.Module
) -> list[dict[str, Any]] | None:
    """Groups of parameters as they are now, by the names that they had before the network moved."""
    now = dict(module.named_parameters())
    return groups and [
        group | {"params": [now[names[id(p)]] if id(p) in names else p for p in group["params"]]} for group in groups
    ]


def _optimizer(
    module: nn.Module, recipe: Recipe, groups: list[dict[str, Any]] | None, name: str
) -> torch.optim.Optimizer:
    """The optimizer, over those parameters that are not frozen."""
    if groups is None:
        tensors = list(module.parameters())
        groups = [
            {"params": [p for p in tensors if p.dim() >= 2]},
            {"params": [p for p in tensors if p.dim() < 2], "weight_decay": 0.0},
        ]
    groups = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise TrainError(f"{name}: the network has no parameter to train; are all frozen?")
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), **common)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=nesterov, **common)
