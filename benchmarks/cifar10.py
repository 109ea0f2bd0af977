"""DHP beside its controls on CIFAR-10: every arm starts from one dense network and gets the same epochs after it.

Run `python benchmarks/cifar10.py --data DATA`: it takes hours on a CPU. Every finished run is a folder under `--out`;
started again it goes on where it was, and several processes may share the folder. `--minutes 9` stops it before a run
that would not end in time has begun, for machines that are lent in pieces; `--table` only writes the page of what there
is.

`DATA` is a folder with `train.parquet` and `test.parquet`, or a name on the Hugging Face Hub.
"""

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from experiment import Run, Setting, carry_out, dense_network, mean_and_spread, pyplot, rows_in
from torch import nn

import metaprune as mp
from metaprune.cli.choosing import chosen_method
from metaprune.data import load
from metaprune.graph.tensors import named_tensors
from metaprune.methods.method import Found, Problem
from metaprune.models import MODELS

PAGE = Path(__file__).with_name("cifar10.md")
SCRATCH_LR = 0.1


SETTINGS = {
    "resnet20": Setting(mp.Recipe(30, lr=0.1, warmup=1.0), mp.Recipe(10, lr=0.05)),
    "vit": Setting(
        mp.Recipe(30, lr=1e-3, warmup=3.0, weight_decay=0.05, optimizer="adamw"),
        mp.Recipe(10, lr=5e-4, weight_decay=0.05, optimizer="adamw"),
        {"width": 64, "depth": 4, "hidden": 128},
    ),
    "resnet56": Setting(mp.Recipe(200, lr=0.1, warmup=1.0), mp.Recipe(60, lr=0.05)),
}


@dataclass(frozen=True)
class GroupNorm:
    """Torch-Pruning's group norm, one shot: its own graph and ranking choose the channels.

    Source: Fang et al., DepGraph, CVPR 2023, as its examples call it: `GroupMagnitudeImportance(p=2)`, global, in steps
    until the budget is met. Widths are free.
    """

    steps: int = 400

    name: ClassVar[str] = "Torch-Pruning"
    reference: ClassVar[str] = "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023"

    def find(self, problem: Problem) -> Found:
        """Prune a copy with Torch-Pruning, and read off which channels stayed."""
        import torch_pruning as tp

        network = copy.deepcopy(problem.model)
        given = problem.graph.args[0][:1]
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
        pruner = tp.pruner.BasePruner(
            network,
            given,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.0,
            max_pruning_ratio=0.9,
            iterative_steps=self.steps,
            ignored_layers=last,
        )
        limit = problem.budget.value * mp.macs(problem.graph)
        for _ in range(self.steps):
            if mp.macs(mp.trace(network, (given,))) <= limit:
                break
            pruner.step()
        return Found(_plan(problem, network), problem.model, {})


def _plan(problem: Problem, small: nn.Module) -> mp.Plan:
    """The channels that another tool kept: each entry of a one-dimensional tensor is found again by its value."""
    before, after = named_tensors(problem.model), named_tensors(small)
    kept = {}
    for name, axis in problem.graph.free.items():
        tensor = next(member[:-2] for member in axis.members if before[member[:-2]].ndim == 1)
        places = {value: place for place, value in enumerate(before[tensor].tolist())}
        if len(places) < axis.size:
            raise SystemExit(f"{tensor} holds a value twice: its channels cannot be told apart")
        kept[name] = [places[value] for value in after[tensor].tolist()]
    return mp.Plan(kept)


@dataclass(frozen=True)
class Scratch:
    """The widths of a plan, with fresh weights: is it the architecture or the weights that helps?"""

    plan: mp.Plan
    fresh: nn.Module = field(repr=False)

    name: ClassVar[str] = "from scratch"
    reference: ClassVar[str] = "control: the widths of another arm, trained from fresh weights"

    def find(self, problem: Problem) -> Found:
        """Give the plan, and fresh weights to cut."""
        return Found(self.plan, self.fresh, {})


METHODS: dict[str, Callable[[int], Any]] = {
    "dhp": lambda seed: mp.DHP(),
    "magnitude": lambda seed: mp.Magnitude(),
    "uniform": lambda seed: mp.Uniform(),
    "torch-pruning": lambda seed: GroupNorm(),
    "taylor": lambda seed: mp.Taylor(),
    "dhp-paper": lambda seed: mp.DHP.paper(),
    "random": lambda seed: mp.Random(seed),
}
VARIANT = "dhp:"  # with settings after it, such as dhp:search=0.2,ranking=latent
SEEDED = ("dhp", "magnitude", "uniform", "torch-pruning")
ONCE = ("taylor", "dhp-paper", "random", "dhp-scratch", "dhp-scratch-long")
CURVE = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8)


def plan_of_runs(arms: Sequence[str], shares: Sequence[float], seeds: Sequence[int], curve: bool) -> list[Run]:
    """All runs, the most telling first."""
    variants = [arm for arm in arms if arm.startswith(VARIANT)]
    runs = [Run(arm, share, seed) for seed, share, arm in itertools.product(seeds, shares, (*SEEDED, *variants))]
    runs += [Run(arm, share, seeds[0]) for share, arm in itertools.product(shares, ONCE)]
    if curve:
        runs += [Run(arm, share, seeds[0]) for share, arm in itertools.product(CURVE, SEEDED)]
    return [run for run in dict.fromkeys(runs) if run.arm in arms]


def row_of(
    run: Run, network: nn.Module, build: Callable[[], nn.Module], setting: Setting, task: Any, args: Any
) -> dict[str, Any]:
    """Prune, fine-tune and measure; the row of the table."""
    recipe = replace(setting.pruned, seed=run.seed)
    if run.arm.startswith("dhp-scratch"):
        known = json.loads((args.out / Run("dhp", run.share, run.seed).folder / "row.json").read_text())
        torch.manual_seed(run.seed)
        method: Any = Scratch(mp.Plan(known["kept"]), build())
        long = run.arm.endswith("long")
        recipe = replace(recipe, lr=SCRATCH_LR, warmup=1.0, epochs=recipe.epochs + long * setting.dense.epochs)
    elif run.arm.startswith(VARIANT):
        method = chosen_method("dhp", run.arm.removeprefix(VARIANT).split(","))
    else:
        method = METHODS[run.arm](run.seed)
    example = torch.randn(1, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    result = mp.prune(
        network,
        (example,),
        method=method,
        budget=mp.Budget(macs=run.share, multiple_of=args.multiple_of),
        task=task,
        recipe=recipe,
        out=args.out / run.folder,
        network=args.network,
        data="CIFAR-10",
    )
    report = result.report
    result.save(args.out / run.folder)
    return {
        "arm": run.arm,
        "share": run.share,
        "seed": run.seed,
        "epochs": recipe.epochs,
        "dense": report.dense.metric,
        "accuracy": report.pruned.metric,
        "val": report.history[-1].metric,
        "before_cut": report.before_cut,
        "after_cut": report.after_cut,
        "macs": report.pruned.macs / report.dense.macs,
        "params": report.pruned.params / report.dense.params,
        "kept": {name: list(stays) for name, stays in result.plan.kept.items()},
        "widths": [result.plan.widths.get(name, axis.size) for name, axis in result.graph.free.items()],
    }


def table(rows: Sequence[Mapping[str, Any]], network: str, command: str) -> str:
    """The page: mean and spread per arm and budget."""
    lines = [
        f"# {network} on CIFAR-10",
        "",
        f"Written by `{command}`.",
        "",
        f"Dense: {rows[0]['dense']:.2f} %. Accuracy on the test set after the last epoch, in percent: the mean ± the "
        "standard deviation over the seeds (one seed: no spread). Every arm but `dhp-scratch-long` gets the same "
        "epochs after the dense network, which it starts from (the scratch arms and `dhp-paper` from fresh weights).",
        "",
        "| MACs | arm | accuracy | against dense | seeds | val | before, after the cut (val) | MACs | parameters |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for share in sorted({row["share"] for row in rows}, reverse=True):
        for arm in dict.fromkeys((*SEEDED, *ONCE, *(row["arm"] for row in rows))):
            found = [row for row in rows if row["share"] == share and row["arm"] == arm]
            if not found:
                continue
            values = [row["accuracy"] for row in found]
            keys = ("val", "before_cut", "after_cut", "macs", "params")
            val, *cut = (statistics.mean(row[key] for row in found) for key in keys)
            against = statistics.mean(values) - found[0]["dense"]
            lines.append(
                f"| {share:g} | {arm} | {mean_and_spread(values)} | {against:+.2f} | {len(values)} | {val:.2f} | "
                f"{cut[0]:.1f}, {cut[1]:.1f} | {cut[2]:.3f} | {cut[3]:.3f} |"
            )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the MACs that stay, a line per arm, the mean and spread over its seeds."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for arm in SEEDED:
        shares = sorted({row["share"] for row in rows if row["arm"] == arm})
        found = [[row["accuracy"] for row in rows if row["arm"] == arm and row["share"] == share] for share in shares]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in found]
        axes.errorbar(shares, list(map(statistics.mean, found)), spread, marker="o", capsize=3, label=arm)
    axes.axhline(rows[0]["dense"], color="grey", linestyle=":", label="dense")
    axes.set(xlabel="MACs that stay (share)", ylabel="test accuracy, last epoch (%)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run what is left, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", choices=sorted(SETTINGS), default="resnet20")
    parser.add_argument("--arms", nargs="+", default=[*SEEDED, *ONCE], help="also dhp:field=value,…")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--curve", action="store_true", help="also one seed at 0.2 … 0.8")
    parser.add_argument("--multiple-of", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--table", action="store_true", help="only write the table of the runs there are")
    args = parser.parse_args()
    if unknown := [arm for arm in args.arms if arm not in (*SEEDED, *ONCE) and not arm.startswith(VARIANT)]:
        parser.error(
            f"--arms: expected some of {', '.join((*SEEDED, *ONCE))} or {VARIANT}field=value,…, got {unknown[0]}"
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out = args.out / args.network
    torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too, where its backward pass takes most of a step
    started = time.monotonic()
    runs = plan_of_runs(args.arms, args.shares, args.seeds, args.curve)
    if not args.table:
        data = load(args.data)
        task = mp.Classification(data.train, data.val, data.test)
        args.size = data.shape[1]
        setting = SETTINGS[args.network]

        def build() -> nn.Module:
            return MODELS[args.network](data.classes, data.shape[0], **setting.sizes)

        network = dense_network(build, task, setting.dense, args.out / "dense")
        for run in runs:
            if time.monotonic() - started <= 60 * args.minutes:
                carry_out(args.out / run.folder, partial(row_of, run, network, build, setting, task, args))
    rows = rows_in(args.out)
    if rows:
        page = table(rows, args.network, f"python benchmarks/cifar10.py --data DATA --network {args.network}")
        path = PAGE if args.network == "resnet20" else PAGE.with_stem(f"cifar10_{args.network}")
        if len({row["share"] for row in rows}) > 1:
            draw(rows, path.with_suffix(".svg"))
            page += f"\n![Accuracy against MACs]({path.stem}.svg)\n"
        path.write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
