"""What a graph metanetwork is worth: networks it never saw, pruned with and without it, for equal epochs.

Run `python benchmarks/metanetwork_cifar10.py --data DATA`: it takes hours on a CPU. Every finished piece is a folder
under `--out`; started again it goes on where it was, and several processes may share the folder. `--table` only writes
the page of what there is.

The networks are ResNets on CIFAR-10 at half resolution, small enough to train many. A family of them is trained, DHP
searches each of them at three budgets, and metanetworks learn from that, one for each goal; two networks of the family
choose their parameters. Three other networks are pruned, one of them deeper than any of the family; and, one seed each,
networks of other families and of other data.

`DATA` is a folder with `train.parquet` and `test.parquet`, or a name on the Hugging Face Hub.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from experiment import carry_out, mean_and_spread, pyplot, rows_in
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.data import load as load_data
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork import (
    Direct,
    Imitate,
    Metanetwork,
    Paper,
    edit,
    graph_of,
    load,
    meta_train,
    save,
    teach,
)
from metaprune.methods.graph_metanetwork.criterion import importance
from metaprune.methods.graph_metanetwork.learning.area import STEPS, area, metrics
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
from metaprune.methods.graph_metanetwork.learning.zoo import Variant, grow, networks, variants
from metaprune.methods.graph_metanetwork.reading.masks import masked
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.models import ResNet, VisionTransformer
from metaprune.train.atomic import write_json
from metaprune.train.engine import evaluate, fit

PAGE = Path(__file__).with_name("metanetwork_cifar10.md")
DENSE = mp.Recipe(12, lr=0.1, warmup=0.5)
PRUNED = mp.Recipe(5, lr=0.05)
FAMILY = variants(["resnet"], 11, vary={"depth": [8, 14]}, widths=[1.0, 0.75, 0.5])
CHOOSE = (8, 10)  # which of the family
SHARES = (1 / 2, 1 / 3, 1 / 4)
AREA_SHARES = (0.25, 0.35, 0.5, 0.7, 0.9)
ADAMW = partial(mp.Recipe, lr=3e-3, optimizer="adamw", clip_norm=1.0)


@dataclass(frozen=True)
class Meta:
    """How a metanetwork is trained.

    Attributes:
        goal: What for.
        recipe: How long.
        batches: Of a step.
        every: Epochs between two choices.
        snapshots: Whether it learns from unfinished networks, too.
    """

    goal: Goal
    recipe: mp.Recipe
    batches: int
    every: int
    snapshots: bool = True


METAS = {
    "imitate": Meta(Imitate(), ADAMW(25, weight_decay=0.1), 1, 5, snapshots=False),
    "direct": Meta(Direct(), ADAMW(40, weight_decay=1e-4), 6, 8),
    "paper": Meta(Paper(), ADAMW(40, weight_decay=1e-4), 6, 8),
}


def resnet(depth: int, channels: int = 3, halved: bool = True) -> nn.Module:
    """A ResNet, by default one that sees images at half resolution."""
    network = ResNet(depth, channels=channels)
    return nn.Sequential(nn.AvgPool2d(2), network) if halved else network


def vgg(widths: Sequence[int]) -> nn.Module:
    """Pairs of convolutions with their norms, a pool between pairs; images at half resolution."""
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers.append(nn.MaxPool2d(2) if layers else nn.AvgPool2d(2))
        for _ in range(2):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"resnet": resnet, "vgg": vgg, "vit": VisionTransformer}


@dataclass(frozen=True)
class Subject:
    """A network that no metanetwork has learned from.

    Attributes:
        variant: How it is built.
        folder: The zoo that it is kept in.
        data: "CIFAR-10" or "digits".
        dense: How it is trained.
        pruned: How it is tuned.
    """

    variant: Variant
    folder: str = "unseen"
    data: str = "CIFAR-10"
    dense: mp.Recipe = DENSE
    pruned: mp.Recipe = PRUNED


UNSEEN = {f"ResNet-{depth}": Subject(Variant("resnet", {"depth": depth}, 100 + depth)) for depth in (8, 14, 20)}
TRANSFER = {
    "ResNet-8 on the digits": Subject(
        Variant("resnet", {"depth": 8, "channels": 1, "halved": False}, 1),
        "digits",
        "digits",
        mp.Recipe(25, lr=0.1, warmup=1.0),
        mp.Recipe(10, lr=0.05),
    ),
    "VGG": Subject(Variant("vgg", {"widths": [24, 48, 96]}, 1), "vgg"),
    "ViT": Subject(
        Variant("vit", {"patch": 8, "width": 64, "depth": 4, "hidden": 128}, 1),
        "vit",
        dense=mp.Recipe(12, lr=1e-3, warmup=1.0, weight_decay=0.05, optimizer="adamw"),
        pruned=mp.Recipe(5, lr=5e-4, weight_decay=0.05, optimizer="adamw"),
    ),
}


@dataclass(frozen=True)
class Acting:
    """A function of the step as what happens `during` a training; it has no state."""

    after_step: Callable[[int, int], None]

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class GroupLasso:
    """Train with a group penalty for a share of the epochs, then cut by magnitude.

    After each step channels shrink by rate · strength · gamma, with gamma from 1 (the strongest of its axis) to 16 (the
    weakest): the group-norm regulariser of Fang et al., DepGraph, CVPR 2023, applied by itself.
    """

    strength: float = 5e-3
    search: float = 0.4

    name: ClassVar[str] = "group lasso"
    reference: ClassVar[str] = "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023 (sparse learning)"

    def find(self, problem: Problem) -> Found:
        """Shrink, rank, and fit the budget."""
        model, graph, recipe = clone(problem.model), problem.graph, problem.recipe
        read, tensors = graph_of(model, graph), named_tensors(model)
        learned = {block.name: tensors[block.name] for block in read.learned}
        epochs = max(1, round(self.search * recipe.epochs))

        @torch.no_grad()
        def shrink(step: int, steps: int) -> None:
            strength = importance(read, learned).clamp(min=0).sqrt()
            factor = torch.ones_like(strength)
            rate = recipe.lr_at(epochs * (step + 1) / steps) * self.strength
            for nodes in read.free.values():
                gap = strength[nodes].max() - strength[nodes]
                factor[nodes] = (1 - rate * 2 ** (4 * gap / gap.max().clamp(min=1e-12))).clamp(min=0)
            for name, weight in masked(read, learned, factor).items():
                tensors[name].copy_(weight)

        history = fit(
            model,
            problem.task,
            recipe,
            stop=epochs,
            name="group lasso",
            during=[Acting(shrink)],
            checkpoint=problem.checkpoint,
            progress=problem.progress,
        )
        scores = group_norms(model, graph)
        return Found(Allocation(graph, problem.budget).plan(scores), model, scores, epochs, history=tuple(history.rows))


@dataclass(frozen=True)
class Pattern:
    """Zeros in place of a cut: arguments of `sparsify`, and the share of the weights that they leave."""

    share: float
    arguments: Mapping[str, Any]


PATTERNS = {
    "0.8 of the weights": Pattern(0.2, {"sparsity": 0.8}),
    "0.9 of the weights": Pattern(0.1, {"sparsity": 0.9}),
    "two of every four": Pattern(0.5, {"n": 2, "m": 4}),
}
KEYS = ("network", "arm", "share", "seed")
EDITS = {"edit": "direct", "no edit": "none"}  # scores rank channels; of zeros only edited weights can decide


def metanetwork(home: Path, goal: str) -> str:
    """The file of a metanetwork; that of no goal was not trained."""
    return str(home / "meta" / goal / "metanetwork.safetensors")


def untried(goal: str) -> Callable[[Path], Any]:
    """What a metanetwork says, taken at its word."""
    return lambda home: mp.GraphMetanetwork(metanetwork(home, goal), trial=0)


LONGER = "no edit, two epochs more"  # what a metanetwork's worth is in epochs
ARMS: dict[str, Callable[[Path], Any]] = {
    "edit": untried("imitate"),
    "no edit": untried("none"),
    LONGER: untried("none"),
    "magnitude": lambda home: mp.Magnitude(),
    "taylor": lambda home: mp.Taylor(),
    "lasso": lambda home: GroupLasso(),
    "dhp": lambda home: mp.DHP(),
    "edit of the direct goal": untried("direct"),
    "edit of the paper's goal": lambda home: mp.GraphMetanetwork(
        metanetwork(home, "paper"), criterion="magnitude", tuning=0.4
    ),
}
TRIED = "edit, tried first"  # what a user gets: one of two arms above, which a trial chooses


@dataclass(frozen=True)
class Work:
    """All pieces of the experiment, each of which is kept."""

    home: Path
    tasks: Mapping[str, mp.Task]
    examples: Mapping[str, tuple[torch.Tensor]]

    def zoo(
        self, folder: str, chosen: Sequence[Variant], data: str, recipe: mp.Recipe, snapshots: Sequence[int]
    ) -> Any:
        """Networks by the names of their variants."""
        home, example = self.home / folder, self.examples[data]
        grow(home, BUILDERS, chosen, example, self.tasks[data], recipe, snapshots=snapshots, data=data)
        names = {variant.name for variant in chosen}
        return {n: m for n, m in networks(home, BUILDERS, example).items() if n.partition("@")[0] in names}

    def meta_train(self, name: str, meta: Meta) -> None:
        """One metanetwork, and what it cost."""
        folder = Path(metanetwork(self.home, name)).parent
        family = self.zoo("zoo", FAMILY, "CIFAR-10", DENSE, [6])
        held = {FAMILY[index].name for index in CHOOSE}
        learned = {
            name: model
            for name, model in family.items()
            if name.partition("@")[0] not in held and (meta.snapshots or "@" not in name)
        }
        example, task = self.examples["CIFAR-10"], self.tasks["CIFAR-10"]

        def row() -> dict[str, Any]:
            whole = not (folder / "curve.json").exists()
            lessons = None
            if isinstance(meta.goal, Imitate):
                lessons = teach(learned, example, task, mp.DHP(), out=self.home / "lessons", recipe=PRUNED)
            started = time.process_time()
            torch.manual_seed(0)
            curve = meta_train(
                Metanetwork(32, 3),
                learned,
                example,
                task,
                held_out={name: family[name] for name in held},
                goal=meta.goal,
                recipe=meta.recipe,
                batches=meta.batches,
                every=meta.every,
                lessons=lessons,
                out=folder,
            )
            return {
                "goal": name,
                "minutes": (time.process_time() - started) / 60 if whole else None,
                "before": curve.checks[0].area,
                "area": curve.best.area,
                "chosen": curve.chosen,
                "steps": len(curve.steps),
            }

        carry_out(folder, row)

    def dense(self, subject: Subject) -> nn.Module:
        """A network to be pruned."""
        return self.zoo(subject.folder, [subject.variant], subject.data, subject.dense, [])[subject.variant.name]

    def prune(self, name: str, subject: Subject, arm: str, share: float, seed: int) -> None:
        """One row of the table."""
        folder = self.home / "runs" / f"{name}-{arm}-{share:.2f}-{seed}".replace(" ", "_")
        epochs = subject.pruned.epochs + 2 * (arm == LONGER)

        def row() -> dict[str, Any]:
            report = mp.prune(
                self.dense(subject),
                self.examples[subject.data],
                method=ARMS[arm](self.home),
                budget=mp.Budget(macs=share, multiple_of=1),
                task=self.tasks[subject.data],
                recipe=replace(subject.pruned, seed=seed, epochs=epochs),
                out=folder,
                network=name,
                data=subject.data,
            ).report
            return {
                "network": name,
                "arm": arm,
                "share": share,
                "seed": seed,
                "epochs": epochs,
                "dense": report.dense.metric,
                "accuracy": report.pruned.metric,
                "after_cut": report.after_cut,
                "macs": report.pruned.macs / report.dense.macs,
                "params": report.pruned.params / report.dense.params,
            }

        carry_out(folder, row)

    def tried(self, name: str, subject: Subject, share: float, seed: int) -> None:
        """Which arm the trial of an edit takes: what becomes of the network is that arm's row."""
        folder = self.home / "trials" / f"{name}-{share:.2f}-{seed}".replace(" ", "_")

        def row() -> dict[str, Any]:
            network, example = self.dense(subject), self.examples[subject.data]
            problem = Problem(
                network,
                mp.trace(network, example),
                mp.Budget(macs=share, multiple_of=1),
                self.tasks[subject.data],
                replace(subject.pruned, seed=seed),
            )
            method = mp.GraphMetanetwork(metanetwork(self.home, "imitate"))
            found, edited = method.find(problem), replace(method, trial=0).find(problem)
            taken = "edit" if found.plan == edited.plan else "no edit"
            return {"network": name, "share": share, "seed": seed, "taken": taken, "note": found.notes[0]}

        carry_out(folder, row)

    def sparsify(self, name: str, subject: Subject, arm: str, pattern: str, seed: int) -> None:
        """One row of the table of zeros."""
        folder = self.home / "zeros" / f"{name}-{arm}-{pattern}-{seed}".replace(" ", "_")

        def row() -> dict[str, Any]:
            network, task, example = self.dense(subject), self.tasks[subject.data], self.examples[subject.data]
            recipe = replace(subject.pruned, seed=seed)
            graph = mp.trace(network, example)
            editor = load(metanetwork(self.home, EDITS[arm]))
            sparse = mp.sparsify(
                edit(network, graph, editor, task, PATTERNS[pattern].share), **PATTERNS[pattern].arguments
            )
            mp.recalibrate(sparse.model, task.train, task.inputs)
            raw = evaluate(sparse.model, task.val, task, recipe)
            fit(sparse.model, task, recipe, name=pattern, during=[sparse], checkpoint=folder / "checkpoints")
            assert task.test is not None
            return {
                "network": name,
                "arm": arm,
                "pattern": pattern,
                "seed": seed,
                "epochs": recipe.epochs,
                "dense": evaluate(network, task.test, task, recipe),
                "accuracy": evaluate(sparse.model, task.test, task, recipe),
                "raw": raw,
            }

        carry_out(folder, row)

    def areas(self, name: str, subject: Subject) -> None:
        """Accuracy over what stays, tuned for a few steps, on validation data: as it is, and edited by each."""
        path = self.home / "areas" / f"{name}.json".replace(" ", "_")
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            return
        network, task, example = self.dense(subject), self.tasks[subject.data], self.examples[subject.data]
        data = DataModel.of(name, network, mp.trace(network, example), task, torch.device("cpu"))
        found = {
            goal: metrics(load(metanetwork(self.home, goal)), data, task, mp.Recipe(1), shares=AREA_SHARES)
            for goal in ("none", *METAS)
            if Path(metanetwork(self.home, goal)).exists()
        }
        write_json(path, {"network": name, "metrics": found})


def cell(found: Sequence[Mapping[str, Any]], raw: str) -> str:
    """The mean and spread of the accuracy, and in brackets the mean of what it was before fine-tuning."""
    if not found:
        return ""
    return f"{mean_and_spread([row['accuracy'] for row in found])} ({statistics.mean(row[raw] for row in found):.1f})"


def table(
    rows: Sequence[Mapping[str, Any]],
    zeros: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    metas: Sequence[Mapping[str, Any]],
) -> str:
    """The page."""
    lines = [
        "# What the edit is worth",
        "",
        "Written by `python benchmarks/metanetwork_cifar10.py --data DATA`.",
        "",
        "Test accuracy of the last epoch in percent, all arms with the same epochs after the dense network but for one "
        "that says so: the mean ± the standard deviation over seeds; in brackets the validation accuracy right after "
        "the cut, recalibrated. "
        "“No edit” ranks by the same criterion as “edit”, with a metanetwork that was not trained. “Edit, tried first” "
        "is `GraphMetanetwork()`: both are tuned for 96 steps, beside the epochs of the table, and the better one on "
        "the validation data is taken; what becomes of the network is that arm's row.",
        "",
    ]
    for name in [name for name in (UNSEEN | TRANSFER) if name in {row["network"] for row in rows}]:
        own = [row for row in rows if row["network"] == name]
        shares = sorted({row["share"] for row in own}, reverse=True)
        lines += [f"## {name}", "", f"Dense {own[0]['dense']:.2f}; {own[0]['epochs']} epochs.", ""]
        lines += ["| arm | " + " | ".join(f"{share:.2f} of the MACs" for share in shares) + " | seeds |"]
        lines += ["|---|" + "--:|" * len(shares) + "--:|"]
        for arm in (TRIED, *ARMS):
            cells, seeds = [], set[int]()
            for share in shares:
                found = [row for row in own if row["arm"] == arm and row["share"] == share]
                seeds |= {row["seed"] for row in found}
                cells.append(cell(found, "after_cut"))
            if any(cells):
                lines.append(f"| {arm} | " + " | ".join(cells) + f" | {len(seeds)} |")
        lines.append("")
    if zeros:
        told = "Zeros in place of a cut, kept in fine-tuning; by magnitude, with and without the direct edit."
        lines += ["## Zeros", "", told, "", f"| network | arm | {' | '.join(PATTERNS)} | seeds |"]
        lines += ["|---|---|" + "--:|" * (len(PATTERNS) + 1)]
        for name, arm in sorted({(row["network"], row["arm"]) for row in zeros}):
            own = [row for row in zeros if (row["network"], row["arm"]) == (name, arm)]
            parts = [cell([row for row in own if row["pattern"] == pattern], "raw") for pattern in PATTERNS]
            lines.append(f"| {name} | {arm} | {' | '.join(parts)} | {len({row['seed'] for row in own})} |")
        lines.append("")
    if curves:
        told = f"Validation accuracy over what stays, {STEPS} steps after the cut, and the area under it."
        lines += ["## Curves", "", told, ""]
        lines += ["| network | edit | " + " | ".join(f"{share:g}" for share in AREA_SHARES) + " | area |"]
        lines += ["|---|---|" + "--:|" * (len(AREA_SHARES) + 1)]
        for curve in curves:
            for goal, values in curve["metrics"].items():
                cells = " | ".join(f"{value:.1f}" for value in values)
                lines.append(f"| {curve['network']} | {goal} | {cells} | {area(values, AREA_SHARES):.2f} |")
        lines.append("")
    if metas:
        told = (
            "Minutes of one core, where it ran in one piece; the area of the two networks that choose, without an edit "
            "and with the one after the step that was taken. Beside it: a family of eleven networks and, to imitate, "
            "27 searches."
        )
        lines += ["## Meta-training", "", told, "", "| goal | minutes | area before | area | step taken |"]
        lines += ["|---|--:|--:|--:|--:|"]
        lines += [
            f"| {meta['goal']} | {'' if meta['minutes'] is None else round(meta['minutes'])} | {meta['before']:.2f} | "
            f"{meta['area']:.2f} | {meta['chosen']} of {meta['steps']} |"
            for meta in metas
        ]
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Test accuracy over the MACs that stay, a panel for each network, a line for each arm."""
    plt = pyplot()
    known = [name for name in (UNSEEN | TRANSFER) if name in {row["network"] for row in rows}]
    figure, panels = plt.subplots(1, len(known), figsize=(3.2 * len(known), 3.4), layout="constrained", squeeze=False)
    for name, panel in zip(known, panels[0], strict=True):
        own = [row for row in rows if row["network"] == name]
        for number, arm in enumerate((TRIED, *ARMS)):
            points = sorted({row["share"] for row in own if row["arm"] == arm})
            if points:
                found = [[row["accuracy"] for row in own if (row["arm"], row["share"]) == (arm, p)] for p in points]
                spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in found]
                means = list(map(statistics.mean, found))
                panel.errorbar(points, means, spread, marker="o", capsize=3, label=arm, color=f"C{number}")
        panel.axhline(own[0]["dense"], color="grey", linestyle=":", label="dense")
        panel.set(title=name, xlabel="MACs that stay (share)")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("test accuracy, last epoch (%)")
    handles = {
        label: line for panel in panels[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run what is left, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--goals", nargs="*", choices=list(METAS), default=list(METAS))
    parser.add_argument("--patterns", nargs="*", choices=list(PATTERNS), default=list(PATTERNS))
    parser.add_argument("--networks", nargs="+", choices=[*UNSEEN, *TRANSFER], default=[*UNSEEN, *TRANSFER])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="those of TRANSFER get the first only")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/metanetwork"))
    parser.add_argument("--table", action="store_true", help="only write the tables of the runs there are")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.table:
        loaded = {"CIFAR-10": load_data(args.data), "digits": load_data("digits")}
        tasks = {name: mp.Classification(data.train, data.val, data.test) for name, data in loaded.items()}
        examples = {name: (torch.zeros(2, *data.shape),) for name, data in loaded.items()}
        work = Work(args.out, tasks, examples)
        untrained = Path(metanetwork(args.out, "none"))
        untrained.parent.mkdir(parents=True, exist_ok=True)
        save(Metanetwork(2, 1), untrained)
        for name in args.goals:
            work.meta_train(name, METAS[name])
        subjects = {name: subject for name, subject in (UNSEEN | TRANSFER).items() if name in args.networks}
        seeded = [
            (seed, name)
            for seed, name in itertools.product(args.seeds, subjects)
            if name in UNSEEN or seed == args.seeds[0]
        ]
        for (seed, name), share, arm in itertools.product(seeded, SHARES, args.arms):
            work.prune(name, subjects[name], arm, share, seed)
        if {"edit", "no edit"} <= set(args.arms):
            for (seed, name), share in itertools.product(seeded, SHARES):
                work.tried(name, subjects[name], share, seed)
        chosen = {name: subject for name, subject in subjects.items() if name in UNSEEN}
        for seed, (name, subject), pattern, arm in itertools.product(args.seeds, chosen.items(), args.patterns, EDITS):
            if Path(metanetwork(args.out, EDITS[arm])).exists():
                work.sparsify(name, subject, arm, pattern, seed)
        for name, subject in subjects.items():
            work.areas(name, subject)
    rows, zeros = rows_in(args.out / "runs"), rows_in(args.out / "zeros")
    taken = {(row["network"], row["taken"], row["share"], row["seed"]) for row in rows_in(args.out / "trials")}
    rows += [row | {"arm": TRIED} for row in rows if tuple(row[key] for key in KEYS) in taken]
    curves = [json.loads(path.read_text()) for path in sorted(args.out.glob("areas/*.json"))]
    page = table(rows, zeros, curves, rows_in(args.out / "meta"))
    if rows:
        draw(rows, PAGE.with_suffix(".svg"))
        page += f"\n![Accuracy over MACs]({PAGE.stem}.svg)\n"
    PAGE.write_text(page)
    print(page)  # noqa: T201


if __name__ == "__main__":
    main()
