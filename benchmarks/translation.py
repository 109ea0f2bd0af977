"""Generators pruned beside their discriminators: grey to colour (CIFAR-10) and edges to photographs (BSDS500).

Run `python benchmarks/translation.py --cifar10 DATA --bsds500 FOLDER`: some two hours of one core; `--quick` shows in
minutes that it works. DHP for generators, magnitude and uniform widths start from one dense generator for each task and
network, and get the same epochs after it; `scratch` has the uniform widths and fresh weights, and as many steps as the
dense generator and its fine-tuning together. `cycle` prunes two generators together, without pairs. PSNR is of the
pictures made, the mean over test pictures; the feature distance is the Fréchet distance over the features of a small
classifier of CIFAR-10 that this program trains: it is not FID.

Every finished run is a folder under `--out`, with a report that shows pictures; started again it goes on where it was,
and several processes may share the folder. Rows are also kept beside the page, and another clone goes on from them.
`--minutes 9` begins no run after so many minutes; `--table` only writes the page of what there is.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cifar10 import Scratch
from experiment import Busy, Kept, Run, claimed, dense_network, mean_and_spread
from torch import Tensor, nn

import metaprune as mp
from metaprune.data import load, load_images
from metaprune.models import BothWays, PatchDiscriminator, ResidualGenerator, ResNet, UGenerator
from metaprune.train.task import First
from metaprune.train.tasks.fidelity import luma

PAGE = Path(__file__).with_suffix(".md")
METHODS: dict[str, Callable[[], Any]] = {
    "dhp": mp.DHP.generator,
    "magnitude": mp.Magnitude,
    "uniform": partial(mp.Uniform, spend=True),
}
CONTROL = "scratch"
CYCLE = "cycle"
ARMS = (*METHODS, CONTROL, CYCLE)


@dataclass(frozen=True)
class Setting:
    """How generators of a kind are built, and trained."""

    side: int  # pixels
    networks: Mapping[str, Callable[[int, int], nn.Module]]  # of the channels given and made
    steps: int = 150  # in an epoch
    dense: int = 10  # epochs
    pruned: int = 6
    val: int = 8  # batches
    test: int = 60


SETTINGS = {
    "colour": Setting(
        32,
        {
            "residual": lambda given, made: ResidualGenerator(given, made, width=16, blocks=3, norm="batch"),
            "u": lambda given, made: UGenerator(given, made, width=16, depth=5, norm="batch"),
        },
    ),
    "photo": Setting(
        64,
        {
            "residual": lambda given, made: ResidualGenerator(given, made, width=16, blocks=3, norm="batch"),
            "u": lambda given, made: UGenerator(given, made, width=16, depth=6, norm="batch"),
        },
        val=12,
    ),
}
SPREAD = ("colour", "u")
"""What is run with all seeds; the rest with the first."""


@dataclass(frozen=True)
class Made:
    """Batches that are made of others'."""

    loader: Any
    make: Callable[[Any], tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        return map(self.make, self.loader)


def grey(pictures: Tensor) -> Tensor:
    """The luma, (N, 1, H, W), in [0, 1]."""
    return luma(255 * pictures) / 255


def grey_and_colour(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Of pictures with labels."""
    return grey(batch[0]), batch[0]


def edges_and_photograph(batch: tuple[Tensor, Tensor], side: int | None = None) -> tuple[Tensor, Tensor]:
    """Of pairs whose second is the photograph: the length of Sobel's gradient of its luma, cut off at 1."""
    true = batch[1] if side is None else batch[1][..., :side, :side]
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    both = torch.stack([kernel, kernel.T])[:, None]
    gradient = F.conv2d(F.pad(grey(true), (1, 1, 1, 1), mode="replicate"), both)
    return gradient.square().sum(1, keepdim=True).sqrt().clamp(max=1), true


def without_pairs(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The second pictures in another order."""
    return batch[0], batch[1].roll(1, 0)


def recipe_of(epochs: int, seed: int = 0) -> mp.Recipe:
    """Adam as generators like it, at a rate for few epochs."""
    return mp.Recipe(
        epochs,
        lr=1e-3,
        optimizer="adamw",
        momentum=0.5,
        weight_decay=0.0,
        schedule="linear",
        seed=seed,
    )


class Part:
    """One task: its data, networks and features."""

    def __init__(self, name: str, args: argparse.Namespace, features: nn.Module) -> None:
        self.name, self.features = name, features
        self.setting = SETTINGS[name]
        if name == "colour":
            data = load(str(args.cifar10), batch_size=32, mean=[0, 0, 0], std=[1, 1, 1])
            self.train, self.val, self.test = (
                Made(part, grey_and_colour) for part in (data.train, data.val, data.test)
            )
        else:
            images = load_images(args.bsds500, sigma=1, channels=3, patch=64, batch_size=16, val_images=20)
            whole = partial(edges_and_photograph, side=192)
            self.train = Made(images.train, edges_and_photograph)
            self.val, self.test = Made(images.val, whole), Made(images.test or images.val, whole)

    def task(self) -> mp.Task:
        """Pairs, against a discriminator of pairs."""
        torch.manual_seed(0)
        return mp.Adversarial(
            First(self.train, self.setting.steps),
            First(self.val, self.setting.val),
            First(self.test, self.setting.test),
            discriminator=PatchDiscriminator(4, width=16, layers=2),
            reconstruction=50.0,
            rate=1e-3,
            features=self.features,
        )

    def unpaired(self) -> mp.Task:
        """The same pictures without their pairs, both ways."""
        torch.manual_seed(0)
        coloured = (Made(Made(part, as_colours), without_pairs) for part in (self.train, self.val, self.test))
        train, val, test = coloured
        return mp.Adversarial(
            First(train, self.setting.steps),
            First(val, self.setting.val),
            First(test, self.setting.test),
            discriminator=PatchDiscriminator(3, width=16, layers=2),
            back="both",
            rate=1e-3,
            features=self.features,
        )


def as_colours(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What is given in as many channels as what is made."""
    return batch[0].expand(-1, batch[1].shape[1], -1, -1), batch[1]


def classifier(args: argparse.Namespace) -> nn.Module:
    """Features of pictures: a small classifier of CIFAR-10, trained once, without its last layer."""
    data = load(str(args.cifar10), mean=[0, 0, 0], std=[1, 1, 1])
    task = mp.Classification(data.train, data.val)
    network = dense_network(lambda: ResNet(8), task, mp.Recipe(args.classifier_epochs, lr=0.1), args.out / "classifier")
    network.fc = nn.Identity()
    return network


def dense_generator(build: Callable[[], nn.Module], task: mp.Task, recipe: mp.Recipe, folder: Path) -> nn.Module:
    """The one dense generator; the task's discriminators become those that were trained beside it.

    Raises:
        Busy: Another process trains it.
    """
    torch.manual_seed(recipe.seed)
    network = build()
    with claimed(folder) as mine:
        if not mine:
            raise Busy(f"another process trains the generator in {folder}; wait for it, or name another --out")
        mp.fit(network, task, recipe, name="dense", checkpoint=folder / "checkpoints")  # at once, where it was done
    return network.eval()


def row_of(run: Run, network_name: str, part: Part, args: argparse.Namespace) -> dict[str, Any]:
    """Prune, train and measure; the row of the table."""
    setting = part.setting

    def build() -> nn.Module:
        if run.arm == CYCLE:
            return BothWays(setting.networks[network_name](3, 3), setting.networks[network_name](3, 3))
        return setting.networks[network_name](1, 3)

    task = part.unpaired() if run.arm == CYCLE else part.task()
    stem = f"{part.name}-{network_name}"
    recipe = recipe_of(setting.pruned, run.seed)
    folder = args.out / f"{stem}-dense{'-cycle' if run.arm == CYCLE else ''}"
    network = dense_generator(build, task, recipe_of(setting.dense), folder)
    method: Any = mp.DHP.generator() if run.arm == CYCLE else METHODS.get(run.arm, METHODS["uniform"])()
    example: tuple[Tensor, ...] = (torch.rand(2, 1, setting.side, setting.side),)
    if run.arm == CYCLE:
        example = tuple(torch.rand(2, 3, setting.side, setting.side) for _ in range(2))
    budget = mp.Budget(macs=run.share, multiple_of=1)
    if run.arm == CONTROL:
        task = part.task()  # and a fresh discriminator
        torch.manual_seed(run.seed)
        plan = mp.plan(network, example, method=method, budget=budget)
        method, recipe = Scratch(plan, build()), replace(recipe, epochs=setting.dense + setting.pruned)
    out = args.out / f"{stem}-{run.folder}"
    result = mp.prune(
        network, example, method=method, budget=budget, task=task, recipe=recipe, out=out, network=stem, data=part.name
    )
    result.save(out)
    report = result.report
    return {
        "part": part.name,
        "network": network_name,
        "arm": run.arm,
        "share": run.share,
        "seed": run.seed,
        "epochs": recipe.epochs,
        "metric": report.metric_name,
        "dense": {report.metric_name: report.dense.metric, **report.dense.further},
        "pruned": {report.metric_name: report.pruned.metric, **report.pruned.further},
        "input": {} if report.floor is None else {report.metric_name: report.floor.metric, **report.floor.further},
        "before_cut": report.before_cut,
        "after_cut": report.after_cut,
        "macs": report.pruned.macs / report.dense.macs,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Generators",
        "",
        "Written by `python benchmarks/translation.py --cifar10 DATA --bsds500 FOLDER`.",
        "",
        "Means over the seeds, ± the standard deviation where there are several. The feature distance is over the "
        "features of a small classifier of CIFAR-10, the same for all rows; it is not FID. Before and after the cut: "
        "of the validation pictures, in the first measure (PSNR in dB; of `cycle` the feature distance).",
        "",
        "| task | generator | MACs | arm | PSNR (dB) | L1 | feature distance | before, after the cut | MACs | epochs | "
        "seeds |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def said(rows: Sequence[Mapping[str, Any]], of: str, name: str) -> str:
        values = [row[of][name] for row in rows if name in row[of]]
        return "" if not values else mean_and_spread(values) if name != "L1" else f"{statistics.mean(values):.4f}"

    names = ("PSNR (dB)", "L1", "feature distance")
    groups = sorted({(row["part"], row["network"]) for row in rows})
    for part, network in groups:
        here = [row for row in rows if (row["part"], row["network"]) == (part, network)]
        pairs = [row for row in here if row["arm"] != CYCLE]
        if pairs:
            figures = " | ".join(said(pairs[:1], "input", name) for name in names)
            lines.append(f"| {part} | {network} | | the input as it is | {figures} | | | | |")
            figures = " | ".join(said(pairs[:1], "dense", name) for name in names)
            lines.append(f"| {part} | {network} | 1 | dense | {figures} | | 1 | {SETTINGS[part].dense} | |")
        for share, arm in itertools.product(sorted({row["share"] for row in here}, reverse=True), ARMS):
            found = [row for row in here if (row["share"], row["arm"]) == (share, arm)]
            if found:
                before, after, macs = (
                    statistics.mean(row[key] for row in found) for key in ("before_cut", "after_cut", "macs")
                )
                figures = " | ".join(said(found, "pruned", name) for name in names)
                lines.append(
                    f"| {part} | {network} | {share:g} | {arm} | {figures} | {before:.2f}, {after:.2f} | {macs:.4f} | "
                    f"{found[0]['epochs']} | {len(found)} |"
                )
    return "\n".join(lines) + "\n"


def runs_of(args: argparse.Namespace) -> list[tuple[str, str, Run]]:
    """All runs, those of the first seed first; without pairs one."""
    found = []
    for seed, share, part, network, arm in itertools.product(
        args.seeds, args.shares, args.parts, args.networks, args.arms
    ):
        first, spread = seed == args.seeds[0], (part, network) == SPREAD
        if (first or spread) if arm != CYCLE else (first and spread and share == args.shares[0]):
            found.append((part, network, Run(arm, share, seed)))
    return found


def main() -> None:
    """Run what is left, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--bsds500")
    parser.add_argument("--parts", nargs="+", choices=sorted(SETTINGS), default=["colour", "photo"])
    parser.add_argument("--networks", nargs="+", choices=["residual", "u"], default=["residual", "u"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="the first alone but for one generator")
    parser.add_argument("--classifier-epochs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps: it shows that it works, and nothing else")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/translation"))
    parser.add_argument("--table", action="store_true", help="only write the table of the runs there are")
    args = parser.parse_args()
    if "photo" in args.parts and not args.bsds500 and not args.table:
        parser.error("--bsds500: needed for the part photo; or give --parts colour")
    torch.set_num_threads(args.threads)
    if args.quick:
        args.classifier_epochs = 1
        args.out = args.out / "quick"
        for name, setting in SETTINGS.items():
            SETTINGS[name] = replace(setting, steps=8, dense=2, pruned=2)
    page = args.out / "page.md" if args.quick else PAGE
    kept = Kept(args.out, page.with_suffix(".jsonl"))
    started = time.monotonic()
    if not args.table:
        features = classifier(args)
        parts = {name: Part(name, args, features) for name in args.parts}
        for part, network, run in runs_of(args):
            if time.monotonic() - started <= 60 * args.minutes:
                kept.carry_out(f"{part}-{network}-{run.folder}", partial(row_of, run, network, parts[part], args))
    if rows := kept.write():
        page.write_text(table(rows))
        print(page.read_text())  # noqa: T201


if __name__ == "__main__":
    main()
