"""What each part of DHP is worth: one setting changed at a time, on a small network, with several seeds.

Run `python benchmarks/dhp_ablation.py --data DATA`: an hour or so on one core. The network is a ResNet-8 on CIFAR-10 at
half resolution, cut to 0.3 of its MACs. Every arm starts from one dense network and gets the same epochs after it.
Accuracies are of the validation part, since defaults are chosen by them. Every finished run is a folder under `--out`;
started again it goes on where it was, and several processes may share the folder.
"""

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from experiment import carry_out, dense_network, mean_and_spread, rows_in
from torch import nn

import metaprune as mp
from metaprune.cli.choosing import chosen_method
from metaprune.data import load
from metaprune.methods.dhp import dhp, search
from metaprune.models import ResNet

PAGE = Path(__file__).with_suffix(".md")
DENSE = mp.Recipe(12, lr=0.1, warmup=0.5)
PRUNED = mp.Recipe(5, lr=0.05)
SHARE = 0.3
CONTROLS = {"magnitude": mp.Magnitude(), "Taylor, one shot": mp.Taylor()}
CHANGES = {
    "default": "",
    "ranked by the size of z": "ranking=latent",
    "cost does not count": "cost_power=0",
    "cost counts half": "cost_power=0.5",
    "no l1": "sparsity=0",
    "ten times the l1": "sparsity=2e-3",
    "latents ten times as fast": "latent_lr=1",
    "search of one epoch": "search=0.2",
    "search of three epochs": "search=0.6",
    "one threshold for all": "steering=threshold",
    "hypernetworks": "form=hypernetwork",
}
CONSTANTS = {
    "latents start alike": (dhp, "POWER", 0.0),
    "latents start at the norm": (dhp, "POWER", 1.0),
    "budget held early": (search, "RAMP", 0.5),
    "budget held at once": (search, "RAMP", 0.02),
    "doomed latents die at once": (search, "DECAY", 0.01),
    "short memory": (search, "MEMORY", 0.9),
}
SETTINGS = CHANGES | {arm: f"{name} = {value:g}" for arm, (_, name, value) in CONSTANTS.items()}
ARMS = [*SETTINGS, *CONTROLS]


def build() -> nn.Module:
    """The network with fresh weights."""
    return nn.Sequential(nn.AvgPool2d(2), ResNet(8))


def row_of(arm: str, seed: int, network: nn.Module, task: mp.Task, example: torch.Tensor) -> dict[str, Any]:
    """The row of the table."""
    method: Any = CONTROLS[arm] if arm in CONTROLS else chosen_method("dhp", CHANGES.get(arm, "").split())
    with mock.patch.object(*CONSTANTS[arm]) if arm in CONSTANTS else nullcontext():
        result = mp.prune(
            network,
            (example,),
            method=method,
            budget=mp.Budget(macs=SHARE, multiple_of=1),
            task=task,
            recipe=replace(PRUNED, seed=seed),
        )
    report = result.report
    return {
        "arm": arm,
        "seed": seed,
        "val": report.pruned.metric,
        "cut": report.after_cut,
        "dense": report.dense.metric,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    lines = [
        "# What each part of DHP is worth",
        "",
        "Written by `python benchmarks/dhp_ablation.py --data DATA`.",
        "",
        f"ResNet-8 on CIFAR-10 at half resolution, {rows[0]['dense']:.2f} % dense, cut to {SHARE:g} of its MACs; "
        f"{PRUNED.epochs} epochs after the dense network for every arm, one setting of `DHP()` changed at a time (in "
        "capitals: a constant in its module). "
        "Validation accuracy of the last epoch in percent, the mean ± the standard deviation over the seeds.",
        "",
        "| arm | setting | accuracy | right after the cut | seeds |",
        "|---|---|--:|--:|--:|",
    ]
    for arm in ARMS:
        found = [row for row in rows if row["arm"] == arm]
        if found:
            values = [row["val"] for row in found]
            setting = f"`{SETTINGS[arm]}`" if SETTINGS.get(arm) else ""
            cut = statistics.mean(row["cut"] for row in found)
            lines.append(f"| {arm} | {setting} | {mean_and_spread(values)} | {cut:.1f} | {len(values)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is left, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/dhp_ablation"))
    parser.add_argument("--table", action="store_true", help="only write the table of the runs there are")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.table:
        data = load(args.data)
        task = mp.Classification(data.train, data.val)
        example = torch.zeros(2, *data.shape)
        network = dense_network(build, task, DENSE, args.out / "dense")
        for seed, arm in itertools.product(args.seeds, args.arms):
            folder = args.out / f"{arm}-{seed}".replace(" ", "_").replace(",", "")
            carry_out(folder, partial(row_of, arm, seed, network, task, example))
    rows = rows_in(args.out)
    if rows:
        page = table(rows)
        PAGE.write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
