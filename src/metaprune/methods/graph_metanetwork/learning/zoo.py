"""A zoo: a family of small trained networks in a folder, for a metanetwork to learn from.

Each variant has a folder of its own with safetensors, and a JSON file that is written when all else is there. What is
finished is kept, what a kill left unfinished goes on, and several processes may work on one zoo: a lock that the
system lets go of when its process ends says who trains what.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.graph_metanetwork.learning.turns import shared
from metaprune.methods.saliency import group_norms
from metaprune.surgery.recalibrate import recalibrate
from metaprune.surgery.slice import carve
from metaprune.surgery.trace import trace
from metaprune.train.atomic import FileError, read_json, read_tensors, write_json, write_weights
from metaprune.train.callbacks import Callback, Moment
from metaprune.train.engine import evaluate, fit, in_processes
from metaprune.train.folder import sweep
from metaprune.train.randomness import isolated, seed
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task

__all__ = ["Builders", "Entry", "Variant", "ZooError", "entries", "grow", "known", "networks", "variants"]

FORMAT = "metaprune.zoo.1"

INDEX, ENTRY, WORKING, LOCK = "zoo.json", "entry.json", "checkpoints", "zoo.lock"

Builders = Mapping[str, Callable[..., nn.Module]]
"""Name -> function that builds a network with fresh weights."""


class ZooError(MetapruneError):
    """A zoo that cannot be made or read."""


@dataclass(frozen=True)
class Variant:
    """How one network of a zoo is made.

    Attributes:
        network: The name of its builder.
        builds: Arguments of the builder, such as a depth.
        seed: Of its initial weights and its training.
        width: Share of the channels of each free axis that it has from the start.
        cut: Share of the MACs that stays when it is pruned after training, by group norm; 1 leaves it as it is.
    """

    network: str
    builds: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    width: float = 1.0
    cut: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "cut"):
            if not 0 < getattr(self, name) <= 1:
                raise ZooError(f"zoo: expected {name} in (0, 1], got {getattr(self, name)!r}")

    @property
    def name(self) -> str:
        """A name for its folder: other settings, another name."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', self.network).strip('-')[-40:]}-{self.seed}-{digest}"


@dataclass(frozen=True)
class Entry:
    """A finished variant.

    Attributes:
        variant: How it was made.
        metric: Of the finished network, on the validation data.
        files: Weights -> the plan that makes the built network theirs; the finished network's come last.
    """

    variant: Variant
    metric: float
    files: Mapping[str, Plan]


def variants(
    names: Sequence[str],
    count: int,
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    widths: Sequence[float] = (1.0,),
    cuts: Sequence[float] = (1.0,),
    seed: int = 0,
) -> list[Variant]:
    """Choose variants: all combinations of what may vary, shuffled by the seed, one after the other.

    Where more are asked for than there are combinations, they come again. The i-th has the seed `seed + i`, so that a
    zoo can be extended by a larger count.

    Args:
        names: Of builders.
        count: How many.
        vary: Argument of the builders -> its values.
        widths: See `Variant.width`.
        cuts: See `Variant.cut`.
        seed: Of the order, and the first variant's.

    Raises:
        ZooError: There is nothing to choose from, or nothing to choose.
    """
    vary = vary or {}
    if count < 1 or not all([names, widths, cuts, *vary.values()]):
        raise ZooError(f"zoo: expected a count from 1 and a value for all that varies, got {count} of {list(names)}")
    builds = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    combinations = list(itertools.product(names, builds, widths, cuts))
    random.Random(seed).shuffle(combinations)
    chosen = itertools.islice(itertools.cycle(combinations), count)
    return [Variant(name, built, seed + i, width, cut) for i, (name, built, width, cut) in enumerate(chosen)]


@in_processes
def grow(
    folder: str | Path,
    builders: Builders,
    chosen: Iterable[Variant],
    args: tuple[Any, ...],
    task: Task,
    recipe: Recipe,
    *,
    kwargs: Mapping[str, Any] | None = None,
    tuning: Recipe | None = None,
    snapshots: Sequence[int] = (),
    data: str = "user's data",
    facts: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> list[Entry]:
    """Train variants into a folder; those that are finished there are kept.

    Several processes, those of `Recipe.devices` or others, each train variants of their own.

    Args:
        folder: The zoo; a new one, or one of the same task, recipe and snapshots.
        builders: What the variants name.
        chosen: The variants.
        args: Example inputs.
        task: What they are trained for; their metric is that of its validation data.
        recipe: How to train; each variant has a seed of its own.
        kwargs: Example keyword inputs.
        tuning: How those are trained again that are cut; by default 0.4 of the epochs at a tenth of the rate.
        snapshots: Epochs of the training after which the weights are stored too.
        data: The name of the data.
        facts: What whoever reads the zoo must know to build its networks, as JSON can hold it.
        progress: Whether to show progress.

    Returns:
        The variants asked for, in their order.

    Raises:
        ZooError: The folder cannot be written or holds another zoo, or a variant names no builder.
    """
    folder, chosen = Path(folder), list(chosen)
    if missing := sorted({variant.network for variant in chosen} - builders.keys()):
        raise ZooError(f"zoo: expected variants of {', '.join(builders)}, got {', '.join(missing)}")
    if bad := [epoch for epoch in snapshots if not 1 <= epoch <= recipe.epochs]:
        raise ZooError(f"zoo: expected snapshots after epochs 1 to {recipe.epochs}, got {bad[0]}")
    tuning = tuning or _gentler(recipe)
    index = {
        "format": FORMAT,
        "data": data,
        "inputs": [list(leaf.shape[1:]) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)],
        "recipe": recipe.what | {"seed": 0, "device": "auto"},
        "tuning": tuning.what | {"seed": 0, "device": "auto"},
        "snapshots": sorted(snapshots),
        "facts": dict(facts or {}),
    }
    _claim(folder, json.loads(json.dumps(index)))

    def finish(variant: Variant) -> Entry:
        home = folder / variant.name
        sweep(home)
        if not (home / ENTRY).exists():
            _train(home, variant, builders, args, kwargs, task, recipe, tuning, snapshots, progress)
        shutil.rmtree(home / WORKING, ignore_errors=True)
        return _entry(home / ENTRY)

    return shared(chosen, lambda variant: folder / variant.name / LOCK, finish)


def known(folder: str | Path) -> dict[str, Any]:
    """What the index of a zoo says: data, inputs, recipes, facts.

    Raises:
        ZooError: The folder holds no zoo.
    """
    return _json(Path(folder) / INDEX, FORMAT)


def entries(folder: str | Path) -> list[Entry]:
    """The finished variants of a zoo, by name.

    Raises:
        ZooError: The folder holds no zoo, or none is finished.
    """
    known(folder)
    found = [_entry(path) for path in sorted(Path(folder).glob(f"*/{ENTRY}"))]
    if not found:
        raise ZooError(f"zoo: none of the networks in {folder} is finished; start the command that makes it again")
    return found


def networks(
    folder: str | Path,
    builders: Builders,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    snapshots: bool = True,
    only: Collection[str] | None = None,
) -> dict[str, nn.Module]:
    """Build the finished networks of a zoo.

    Args:
        folder: The zoo.
        builders: What its variants name.
        args: Example inputs.
        kwargs: Example keyword inputs.
        snapshots: Whether those are wanted that were stored along training.
        only: Names of the variants that are wanted; by default all.

    Returns:
        Name of the variant, with `@epoch` where it is a snapshot -> the network, in evaluation mode.

    Raises:
        ZooError: There is no such zoo or builder, or weights are missing or of another network.
    """
    found: dict[str, nn.Module] = {}
    for entry in entries(folder):
        variant = entry.variant
        if only is not None and variant.name not in only:
            continue
        if variant.network not in builders:
            raise ZooError(f"zoo: expected a builder of {variant.network!r}, got {', '.join(builders) or 'none'}")
        whole = _built(variant, builders)
        graph = trace(whole, args, kwargs)
        for file, plan in entry.files.items():
            epoch = re.fullmatch(r"epoch-(\d+)\.safetensors", file)
            if epoch and not snapshots:
                continue
            name = f"{variant.name}@{epoch[1]}" if epoch else variant.name
            model = carve(whole, graph, plan).model if plan.kept else _built(variant, builders)
            path = Path(folder) / variant.name / file
            try:
                model.load_state_dict(read_tensors(path)[0])
            except (FileError, RuntimeError) as error:
                raise ZooError(f"zoo: {path} is missing or does not fit {variant.network} ({error})") from error
            found[name] = model.eval()
    return found


def _train(
    home: Path,
    variant: Variant,
    builders: Builders,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    task: Task,
    recipe: Recipe,
    tuning: Recipe,
    snapshots: Sequence[int],
    progress: bool,
) -> None:
    """Build, narrow, train, cut and train again; the entry is written last."""
    recipe, tuning = replace(recipe, seed=variant.seed), replace(tuning, seed=variant.seed)
    model, plan = _built(variant, builders), Plan({})
    if variant.width < 1:
        graph = trace(model, args, kwargs)
        narrow = {name: range(max(1, round(variant.width * axis.size))) for name, axis in graph.free.items()}
        cut = carve(model, graph, Plan(narrow))
        model, plan = cut.model, cut.plan
    files = dict.fromkeys((f"epoch-{epoch}.safetensors" for epoch in sorted(snapshots)), plan)

    working = home / WORKING
    keeping = [_Snapshots(home, snapshots)]
    fit(model, task, recipe, name=variant.name, callbacks=keeping, checkpoint=working / "training", progress=progress)
    if variant.cut < 1:
        graph = trace(model, args, kwargs)
        allocation = Allocation(graph, Budget(macs=variant.cut, multiple_of=1))
        cut = carve(model, graph, allocation.plan(group_norms(model, graph)))
        model, plan = cut.model, plan.then(cut.plan)
        recalibrate(model, task.train, task.inputs)
        fit(model, task, tuning, name=f"{variant.name}, cut", checkpoint=working / "tuning", progress=progress)
    write_weights(model, home / "model.safetensors")
    entry = {
        "variant": asdict(variant),
        "metric": evaluate(model, task.val, task, recipe),
        "files": {file: json.loads(made.to_json()) for file, made in (files | {"model.safetensors": plan}).items()},
    }
    write_json(home / ENTRY, entry)


@dataclass(frozen=True)
class _Snapshots(Callback):
    """Stores the weights after some epochs."""

    home: Path
    epochs: Sequence[int]

    def on_epoch(self, moment: Moment) -> None:
        """After one of these."""
        if moment.epoch in self.epochs:
            write_weights(moment.network, self.home / f"epoch-{moment.epoch:g}.safetensors")


def _built(variant: Variant, builders: Builders) -> nn.Module:
    with isolated():
        seed(variant.seed)
        return builders[variant.network](**variant.builds)


def _gentler(recipe: Recipe) -> Recipe:
    epochs = max(1, round(0.4 * recipe.epochs))
    return replace(recipe, epochs=epochs, lr=recipe.lr / 10, warmup=0.0, schedule="cosine", milestones=())


def _claim(folder: Path, index: dict[str, Any]) -> None:
    """Make the zoo's index, or see that it is that of this zoo."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if not (folder / INDEX).exists():
                write_json(folder / INDEX, index)
    except OSError as error:
        raise ZooError(f"zoo: cannot write to {folder} ({error}); name another folder") from error
    before = known(folder)
    if changed := [key for key in index if before.get(key) != index[key]]:
        raise ZooError(f"zoo: {folder} holds another zoo (its {', '.join(changed)} differ); name another folder")


def _entry(path: Path) -> Entry:
    tree = _json(path)
    try:
        files = {file: Plan(kept) for file, kept in tree["files"].items()}
        if odd := [file for file in files if Path(file).name != file]:
            raise TypeError(f"{odd[0]!r:.80} is no file of this folder")
        return Entry(Variant(**tree["variant"]), tree["metric"], files)
    except (KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"zoo: {path} is damaged ({error!r}); delete its folder, and make it again") from error


def _json(path: Path, format: str | None = None) -> dict[str, Any]:
    """An object of JSON, of a format where one is named."""
    try:
        tree = read_json(path)
    except FileError as error:
        raise ZooError(f"zoo: expected a folder that `metaprune zoo` wrote ({error})") from error
    if format and tree.get("format") != format:
        raise ZooError(f"zoo: expected a zoo of format {format!r} in {path}, got something else")
    return tree
