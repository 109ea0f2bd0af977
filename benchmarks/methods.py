"""All methods side by side: one dense network, two budgets, the same epochs for every arm, searches counted.

Run `python benchmarks/methods.py --data DATA`: hours on a CPU. The network is a ResNet-20 on CIFAR-10 at half
resolution; `--network mobilenet_v2` or `vit` is another. Arms are the methods of the registry with their default
settings, Torch-Pruning where it is installed, and `NAME:field=value,…` for any other settings. A method that spends
epochs beside its schedule gets as many fewer in it. Accuracies are of the test set after the last epoch; nothing is
chosen by them.

Every finished run is a folder under `--out`; started again it goes on where it was, and several processes may share the
folder. Rows are also kept beside the page, with the digest of the dense network: where training it gives the same one,
another clone goes on from them. `--minutes 9` begins no run after so many minutes; `--table` only writes the page of
what there is.
"""

import argparse
import importlib.util
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cifar10 import GroupNorm
from experiment import Kept, Run, Setting, dense_network, mark, mean_and_spread, means, pyplot
from torch import nn

import metaprune as mp
from metaprune.cli.choosing import chosen_method
from metaprune.data import load
from metaprune.graph.tensors import digest, named_tensors
from metaprune.methods.registry import METHODS
from metaprune.models import MODELS

PAGE = Path(__file__).with_suffix(".md")
OTHER_TOOL = "torch_pruning"
VARIANTS = ("metapruning:fresh=false", "metapruning:fitness=rewarded")
"""Settings that are methods of their own."""


SETTINGS = {
    "resnet20": Setting(mp.Recipe(20, lr=0.1, warmup=1.0), mp.Recipe(10, lr=0.05)),
    "mobilenet_v2": Setting(  # in float32: depthwise convolutions train twice as fast in it on a CPU
        mp.Recipe(20, lr=0.1, warmup=1.0, precision="32-true"),
        mp.Recipe(10, lr=0.05, precision="32-true"),
        {"pixels": 64, "width": 0.5},
    ),
    "vit": Setting(
        mp.Recipe(20, lr=1e-3, warmup=2.0, weight_decay=0.05, optimizer="adamw"),
        mp.Recipe(10, lr=5e-4, weight_decay=0.05, optimizer="adamw"),
        {"pixels": 16, "width": 64, "depth": 4, "hidden": 128},
    ),
}


def arms() -> list[str]:
    """The methods of the registry and their variants, controls last."""
    controls = ("uniform", "random")
    found = [name for name in METHODS if name not in controls] + list(VARIANTS)
    other = [OTHER_TOOL] if importlib.util.find_spec("torch_pruning") else []
    return [*found, *other, *controls]


def method_of(arm: str, seed: int) -> Any:
    """The method that an arm names."""
    if arm == OTHER_TOOL:
        return GroupNorm()
    if arm == "random":
        return mp.Random(seed)
    name, _, settings = arm.partition(":")
    return chosen_method(name, settings.split(",") if settings else [])


def shortened(recipe: mp.Recipe, method: Any) -> mp.Recipe:
    """The recipe that leaves as many epochs in all where a method spends some beside it, and begins anew after."""
    if not getattr(method, "fresh", False):
        return recipe
    epochs = max(
        count for count in range(1, recipe.epochs) if count + max(1, round(method.search * count)) <= recipe.epochs
    )
    return replace(recipe, epochs=epochs, lr=2 * recipe.lr)  # fresh weights learn at the rate of a dense network


def subject(data: str, name: str, out: Path) -> tuple[nn.Module, mp.Classification, torch.Tensor]:
    """The one dense network on pictures at half resolution, trained here unless it was; its task; inputs like them."""
    given, setting = load(data), SETTINGS[name]
    task = mp.Classification(given.train, given.val, given.test)

    def build() -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(2), MODELS[name](given.classes, given.shape[0], **setting.sizes))

    network = dense_network(build, task, setting.dense, out / "dense")
    return network, task, torch.randn(2, *given.shape, generator=torch.Generator().manual_seed(0))


def subject_of(network: nn.Module, epochs: int | None) -> str:
    """What tells experiments apart: the dense network, and the epochs after it where they are not the usual ones."""
    return digest(named_tensors(network))[:12] + (f", {epochs} epochs" if epochs else "")


def row_of(run: Run, network: nn.Module, setting: Setting, task: Any, example: torch.Tensor) -> dict[str, Any]:
    """Prune, fine-tune and measure; the row of the table."""
    method = method_of(run.arm, run.seed)
    started = time.process_time()
    result = mp.prune(
        network,
        (example,),
        method=method,
        budget=mp.Budget(macs=run.share, multiple_of=1),
        task=task,
        recipe=shortened(replace(setting.pruned, seed=run.seed), method),
    )
    seconds = time.process_time() - started
    report = result.report
    epochs = len(report.history)  # those of a pruning network among them
    if epochs > setting.pruned.epochs:
        raise SystemExit(f"{run.arm}: {epochs:g} epochs, more than the others' {setting.pruned.epochs}")
    return {
        "arm": run.arm,
        "share": run.share,
        "seed": run.seed,
        "epochs": epochs,
        "seconds": seconds,
        "dense": report.dense.metric,
        "accuracy": report.pruned.metric,
        "val": report.history[-1].metric,
        "after_cut": report.after_cut,
        "macs": report.pruned.macs / report.dense.macs,
        "params": report.pruned.params / report.dense.params,
        "spent": report.spent,
        "kept": {name: list(stays) for name, stays in result.plan.kept.items()},
    }


def table(rows: Sequence[Mapping[str, Any]], network: str, setting: Setting) -> str:
    """The page: mean and spread per arm and budget, the best first."""
    command = "python benchmarks/methods.py --data DATA" + ("" if network == "resnet20" else f" --network {network}")
    lines = [
        f"# All methods: {network}, CIFAR-10 at half resolution",
        "",
        f"Written by `{command}`.",
        "",
        f"Dense: {rows[0]['dense']:.2f} % after {setting.dense.epochs} epochs. Accuracy on the test set after the last "
        f"of {setting.pruned.epochs} further epochs, searches counted, in percent: the mean ± the standard deviation "
        "over the seeds (one seed: no spread). Every method has its default settings, free widths, and the one dense "
        "network to start from; `metapruning` and its reward train what they find from fresh weights, at twice the "
        "rate. Time is of the processor, on one thread.",
        "",
        "| MACs | method | accuracy | against dense | seeds | val | right after the cut (val) | MACs | parameters | "
        "epochs | minutes |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for share in sorted({row["share"] for row in rows}, reverse=True):
        groups = [
            [row for row in rows if (row["share"], row["arm"]) == (share, arm)] for arm in {r["arm"] for r in rows}
        ]
        for found in sorted(filter(None, groups), key=lambda group: -statistics.mean(r["accuracy"] for r in group)):
            mean = means(found, "accuracy", "val", "macs", "params", "epochs", "seconds")
            cut = [row["after_cut"] for row in found if row["after_cut"] is not None]
            after = f"{statistics.mean(cut):.1f}" if cut else "fresh"
            values = [row["accuracy"] for row in found]
            lines.append(
                f"| {share:g} | {found[0]['arm']} | {mean_and_spread(values)} | "
                f"{mean['accuracy'] - found[0]['dense']:+.2f} | {len(found)} | {mean['val']:.2f} | "
                f"{after} | {mean['macs']:.3f} | {mean['params']:.3f} | {mean['epochs']:g} | "
                f"{mean['seconds'] / 60:.1f} |"
            )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy of each method at each budget, a point with the spread over its seeds."""
    plt = pyplot()
    shares = sorted({row["share"] for row in rows}, reverse=True)
    names = sorted({row["arm"] for row in rows})
    figure, panels = plt.subplots(
        1, len(shares), figsize=(4 * len(shares), 0.35 * len(names) + 1.2), squeeze=False, layout="constrained"
    )
    for panel, share in zip(panels[0], shares, strict=True):
        for place, arm in enumerate(names):
            values = [row["accuracy"] for row in rows if (row["share"], row["arm"]) == (share, arm)]
            if values:
                mark(panel, place, values)
        panel.axvline(rows[0]["dense"], color="grey", linestyle=":")
        panel.set(title=f"{share:g} of the MACs", xlabel="test accuracy (%); dotted: dense", yticks=range(len(names)))
        panel.set_yticklabels(names if panel is panels[0][0] else [])
        panel.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run what is left, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", choices=sorted(SETTINGS), default="resnet20")
    parser.add_argument("--arms", nargs="+", default=arms(), help="also NAME:field=value,…")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="other than usual, after the dense network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--table", action="store_true", help="only write the table of the runs there are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out = args.out / args.network
    setting = SETTINGS[args.network]
    if args.epochs:
        setting = replace(setting, pruned=replace(setting.pruned, epochs=args.epochs))
    for arm in args.arms:
        method_of(arm, 0)  # a name that is mistyped is better known now
    torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too, where its backward pass takes most of a step
    started = time.monotonic()
    path = PAGE if args.network == "resnet20" else PAGE.with_stem(f"methods_{args.network}")
    kept = Kept(args.out, path.with_suffix(".jsonl"), long=("kept",))
    if not args.table:
        network, task, example = subject(args.data, args.network, args.out)
        kept = replace(kept, subject=subject_of(network, args.epochs))
        for seed, share, arm in itertools.product(args.seeds, args.shares, args.arms):
            run = Run(arm, share, seed)
            if time.monotonic() - started <= 60 * args.minutes:
                kept.carry_out(run.folder, partial(row_of, run, network, setting, task, example))
    rows = kept.write()
    if rows:
        draw(rows, path.with_suffix(".svg"))
        page = table(rows, args.network, setting) + f"\n![Accuracy of each method]({path.stem}.svg)\n"
        path.write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
