"""DHP beside its controls on images: EDSR enlarges four times, DnCNN takes noise of sigma 50 away.

Run `python benchmarks/restoration.py --data BSDS500 --set5 SET5 --set12 SET12`, three folders of images: it takes
hours on one core of a CPU. Both networks are smaller than those of their papers, so that one trains in a quarter of an
hour of a core's time. Every arm starts from the one dense network and gets the same steps after it. What is finished is
a folder under `--out`; started again it goes on where it was, and several processes may share the folder. `--minutes 9`
lets it begin no run after so many minutes, `--table` only writes the page of what there is, and `--quick` tries all of
it in a minute.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Busy, Run, carry_out, dense_network, mean_and_spread, rows_in
from torch import Tensor, nn
from torch.utils.data import Subset

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.data import load_images
from metaprune.models import EDSR, DnCNN
from metaprune.saving import save
from metaprune.session.pruning import prune
from metaprune.surgery.slice import carve
from metaprune.train.atomic import write_json

PAGE = Path(__file__).with_name("restoration.md")
UNCUT = "no-cut"  # where nothing is cut, it does not matter who decides
METHODS = {"dhp": mp.DHP, "magnitude": mp.Magnitude, "uniform": mp.Uniform, UNCUT: mp.Uniform}
ARMS = tuple(METHODS)
MULTIPLES = (1, 4, 8, 16)
MULTIPLE = 8  # of widths: the page has what others would cost
ROUNDS = 30  # passes of each network that is timed
VAL_IMAGES = 8  # followed while training
TESTED = ("12003",)  # the starfish of Set12 is cut out of it


@dataclass(frozen=True)
class Setting:
    """A network, what it restores, and how it is trained, densely and then pruned."""

    network: type[nn.Module]
    sizes: Mapping[str, int]
    goal: Mapping[str, int]  # scale, or sigma in grey levels of 255
    test: str
    patch: int  # of true images, in pixels
    patches: int  # in an epoch
    dense: mp.Recipe
    pruned: mp.Recipe
    example: tuple[int, ...]  # the shape of the input that MACs and times are of
    batch_size: int = 16

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return self.network(**self.sizes)

    @property
    def input(self) -> Tensor:
        """What MACs and times are of."""
        return torch.rand(self.example, generator=torch.Generator().manual_seed(0))

    def task(self, data: Path, test: Path) -> mp.Task:
        """Its images, and how they are measured."""
        images = load_images(
            data,
            **self.goal,
            patch=self.patch,
            patches=self.patches,
            batch_size=self.batch_size,
            val_images=VAL_IMAGES,
            test=test,
        )
        known: Any = images.train.source
        others = [index for index, path in enumerate(known.paths) if path.stem not in TESTED]
        train = replace(images.train, source=Subset(known, others))
        task = mp.SuperResolution if "scale" in self.goal else mp.Denoising
        return task(train, images.val, images.test, **self.goal)

    @property
    def words(self) -> str:
        """What is done, for readers."""
        if "scale" in self.goal:
            return f"enlarges {self.goal['scale']} times, {self.test}, PSNR and SSIM of the luma"
        return f"takes noise of σ = {self.goal['sigma']} away, {self.test}, grey"


ADAM = partial(mp.Recipe, optimizer="adamw", weight_decay=0.0, clip_norm=1.0, warmup=0.5, precision="bf16-mixed")
SETTINGS = {
    "edsr": Setting(
        EDSR,
        {"scale": 4, "blocks": 6, "width": 48},
        {"scale": 4},
        "Set5",
        patch=64,
        patches=3200,
        dense=ADAM(28, lr=1e-3),
        pruned=ADAM(10, lr=5e-4),
        example=(1, 3, 96, 96),
    ),
    "dncnn": Setting(
        DnCNN,
        {"blocks": 6, "width": 48},
        {"sigma": 50},
        "Set12",
        patch=40,
        patches=3200,
        dense=ADAM(28, lr=2e-3),
        pruned=ADAM(10, lr=1e-3),
        example=(1, 1, 256, 256),
    ),
}


def quick(setting: Setting) -> Setting:
    """The same, so small that all of it takes a minute and says nothing."""
    return replace(
        setting,
        sizes={**setting.sizes, "blocks": 2, "width": 32},
        patches=64,
        dense=replace(setting.dense, epochs=2),
        pruned=replace(setting.pruned, epochs=3),
        example=(*setting.example[:2], 32, 32),
    )


def plan_of_runs(shares: Sequence[float], seeds: Sequence[int], arms: Sequence[str]) -> list[Run]:
    """All runs, a seed after the other, with no cut at the end."""
    runs = [Run(arm, share, seed) for seed in seeds for share in shares for arm in ARMS]
    runs = [run for run in runs if run.arm != UNCUT] + [Run(UNCUT, 1.0, seed) for seed in seeds]
    return [run for run in runs if run.arm in arms]


def in_turns(networks: Mapping[str, nn.Module], example: Tensor, precision: str) -> dict[str, tuple[float, float]]:
    """Times of a pass of each network: median and interquartile range, in ms of processor time.

    The networks take turns, channels-last, so that what else the machine does hits all alike. With one thread
    processor time is the time that a pass takes where nothing else runs.
    """
    ready = {name: deepcopy(each).to(memory_format=torch.channels_last).eval() for name, each in networks.items()}
    x = example.contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        for turn in range(ROUNDS + 2):  # the first two choose kernels and fill caches
            for name, network in ready.items():
                started = time.process_time()
                network(x)
                if turn > 1:
                    times[name].append(1e3 * (time.process_time() - started))
    found = {}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        found[name] = (median, high - low)
    return found


def times_of_multiples(setting: Setting, share: float) -> dict[str, Any]:
    """What a network of fresh weights costs when every axis is cut alike to a budget, by the multiple of its widths."""
    torch.manual_seed(0)
    network, example = setting.build(), setting.input
    graph = mp.trace(network, (example,))
    networks, costs = {"dense": network}, {"dense": 1.0}
    for multiple in MULTIPLES:
        budget = mp.Budget(macs=share, multiple_of=multiple)
        scores = {name: torch.linspace(0, 1, axis.size) for name, axis in graph.free.items()}
        cut = carve(network, graph, Allocation(graph, budget).plan(scores))
        networks[str(multiple)] = cut.model
        costs[str(multiple)] = mp.macs(graph, cut.plan) / mp.macs(graph)
    times = {precision: in_turns(networks, example, precision) for precision in ("32-true", "bf16-mixed")}
    return {"share": share, "macs": costs, "ms": times}


def row_of(run: Run, network: nn.Module, setting: Setting, task: Any, args: argparse.Namespace, out: Path) -> Any:
    """Prune, fine-tune and measure; the row of the table."""
    recipe = replace(setting.pruned, seed=run.seed)
    example = setting.input
    result = prune(
        network,
        (example,),
        method=METHODS[run.arm](),
        budget=mp.Budget(macs=run.share, multiple_of=args.multiple_of),
        task=task,
        recipe=recipe,
        out=out / run.folder,
        network=setting.network.__name__,
        data=f"BSDS500, {setting.test}",
    )
    save(out / run.folder, result.model, result.plan, result.graph, result.report)
    report = result.report
    return {
        "arm": run.arm,
        "share": run.share,
        "seed": run.seed,
        "floor": {"name": report.floor.name, "psnr": report.floor.metric, **report.floor.further},
        "dense": {"psnr": report.dense.metric, "macs": report.dense.macs, "params": report.dense.params}
        | report.dense.further,
        "pruned": {"psnr": report.pruned.metric, "macs": report.pruned.macs, "params": report.pruned.params}
        | report.pruned.further,
        "before_cut": report.before_cut,
        "after_cut": report.after_cut,
        "val": report.history[-1].metric,
        "ms": in_turns({"dense": network, "pruned": result.model}, example, "32-true"),
        "widths": {name: result.plan.widths.get(name, axis.size) for name, axis in result.graph.free.items()},
    }


def same_setting(setting: Setting, multiple_of: int, out: Path) -> None:
    """Refuse a folder that holds runs of other settings."""
    now = {name: plain(value) for name, value in vars(setting).items()} | {"multiple_of": multiple_of}
    path = out / "setting.json"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
    known = json.loads(path.read_text())
    if changed := [name for name in now if known.get(name) != json.loads(json.dumps(now[name]))]:
        raise SystemExit(
            f"restoration: {out} holds runs of other settings: "
            + "; ".join(f"expected {name} {now[name]}, found {known.get(name)}" for name in changed)
            + "; name another --out"
        )


def plain(value: Any) -> Any:
    """A part of a setting as JSON has it; of a recipe, what is not the default."""
    if isinstance(value, mp.Recipe):
        return {each.name: now for each in fields(value) if (now := getattr(value, each.name)) != each.default}
    return value.__name__ if isinstance(value, type) else value


def section(setting: Setting, rows: Sequence[Mapping[str, Any]], multiples: Mapping[str, Any] | None) -> list[str]:
    """What the page says of one network."""
    floor, dense = rows[0]["floor"], rows[0]["dense"]
    dense_ms = statistics.median(row["ms"]["dense"][0] for row in rows)
    sizes = ", ".join(f"{name} {size}" for name, size in setting.sizes.items())
    steps = setting.patches // setting.batch_size
    lines = [
        f"## {setting.network.__name__}: {setting.words}",
        "",
        f"{setting.network.__name__} ({sizes}): {dense['macs'] / 1e6:,.0f} million MACs on an input of "
        f"{'×'.join(map(str, setting.example[1:]))}, {dense['params']:,} parameters. True patches of "
        f"{setting.patch}×{setting.patch}, {setting.batch_size} in a step. The dense network: "
        f"{setting.dense.epochs * steps:,} steps at a learning rate of {setting.dense.lr:g}; then every arm "
        f"{setting.pruned.epochs * steps:,} at {setting.pruned.lr:g}.",
        "",
        "| budget | arm | PSNR, dB | against dense | SSIM | seeds | before, after the cut (val) | MACs | parameters "
        "| ms | dense, ms | times as fast |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        f"| | {floor['name']} input | {floor['psnr']:.2f} | {floor['psnr'] - dense['psnr']:+.2f} | {floor['SSIM']:.4f} "
        "| | | | | | | |",
        f"| | dense | {dense['psnr']:.2f} | | {dense['SSIM']:.4f} | | | 1 | 1 | {dense_ms:.1f} | | 1 |",
    ]
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (-row["share"], ARMS.index(row["arm"]), row["seed"])):
        groups.setdefault((row["share"], row["arm"]), []).append(row)
    for (share, arm), found in groups.items():
        psnr = [row["pruned"]["psnr"] for row in found]
        costs = {
            cost: statistics.mean(row["pruned"][cost] for row in found) / dense[cost] for cost in ("macs", "params")
        }
        val = (statistics.mean(row[when] for row in found) for when in ("before_cut", "after_cut"))
        fields = [
            f"{share:g}",
            arm,
            mean_and_spread(psnr),
            f"{statistics.mean(psnr) - dense['psnr']:+.2f}",
            f"{statistics.mean(row['pruned']['SSIM'] for row in found):.4f}",
            str(len(found)),
            ", ".join(f"{value:.2f}" for value in val),
            *(f"{cost:.3f}" for cost in costs.values()),
            *(f"{found[0]['ms'][who][0]:.1f} ± {found[0]['ms'][who][1]:.1f}" for who in ("pruned", "dense")),
            f"{statistics.mean(row['ms']['dense'][0] / row['ms']['pruned'][0] for row in found):.2f}",
        ]
        lines.append(f"| {' | '.join(fields)} |")
    if multiples:
        names = list(multiples["macs"])
        heads = [name if name == "dense" else "free" if name == "1" else f"×{name}" for name in names]
        lines += [
            "",
            f"What multiples of widths cost: fresh weights, every axis cut alike to {multiples['share']:g} of the "
            "MACs; times in ms.",
            "",
            f"| | {' | '.join(heads)} |",
            f"|---|{'--:|' * len(names)}",
            f"| MACs | {' | '.join(f'{share:.3f}' for share in multiples['macs'].values())} |",
        ]
        for precision, words in (("32-true", "float32"), ("bf16-mixed", "bf16")):
            times = (multiples["ms"][precision][name] for name in names)
            lines.append(f"| {words} | {' | '.join(f'{median:.1f} ± {spread:.1f}' for median, spread in times)} |")
    return [*lines, ""]


def page(sections: Sequence[str], multiple_of: int, command: str) -> str:
    """The whole page."""
    lines = [
        "# Restoration of images",
        "",
        f"Written by `{command}` (BSDS500, SET5 and SET12 are folders of images).",
        "",
        "Trained on the training part of BSDS500 but for image 12003, which the starfish of Set12 is cut out of; a few "
        "images of its validation part are followed while training and choose nothing, and the test set is looked at "
        "after the last epoch. Every arm starts from the one dense network and gets the same steps after it, of search "
        f"and fine-tuning together; `{UNCUT}` is the dense network with these steps. PSNR and SSIM are means over the "
        "images of the test set, ± the standard deviation over the seeds where there are several; with one seed, "
        "differences below a tenth of a dB or so say little. AdamW without weight decay, cosine, half an epoch of "
        f"warm-up, L1 loss, bf16 autocast. Widths are multiples of {multiple_of}. Before and after the cut: PSNR on "
        "the validation images; after the cut of an arm without a search, batch norms are measured anew.",
        "",
        "Times are of one pass in float32, channels-last, one thread, batch 1: the median ± the interquartile range of "
        f"{ROUNDS} passes, in ms of processor time, pruned and dense networks in turns in one process.",
        "",
        f"Machine: {machine()}.",
        "",
        *sections,
    ]
    return "\n".join(lines).rstrip() + "\n"


def machine() -> str:
    """The processor and the versions."""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    return f"{cpu}, one thread, torch {torch.__version__}"


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with the subfolders train and val")
    parser.add_argument("--set5", type=Path)
    parser.add_argument("--set12", type=Path)
    parser.add_argument("--networks", nargs="+", choices=sorted(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.4, 0.2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--multiple-of", type=int, default=MULTIPLE)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/restoration"))
    parser.add_argument("--table", action="store_true", help="only write the page of the runs there are")
    parser.add_argument("--quick", action="store_true", help="tiny networks and one budget; the page stays under --out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    settings = SETTINGS
    if args.quick:
        settings = {name: quick(setting) for name, setting in SETTINGS.items()}
        args.out, args.shares = args.out.with_name(f"{args.out.name}-quick"), [0.5]
    if not args.table:
        tests = {"Set5": args.set5, "Set12": args.set12}
        needed = [args.data, *(tests[settings[name].test] for name in args.networks)]
        if missing := [str(folder) for folder in needed if folder is None or not folder.is_dir()]:
            parser.error(f"expected folders of images as --data, --set5 and --set12, got {', '.join(missing)}")
        for name in args.networks:
            setting = settings[name]
            carry_out_all(setting, tests[setting.test], args, args.out / name, started + 60 * args.minutes)
    sections, seeds = [], set()
    for name, setting in settings.items():
        rows = rows_in(args.out / name)
        multiples = args.out / name / "multiples.json"
        if rows:
            sections += section(setting, rows, json.loads(multiples.read_text()) if multiples.exists() else None)
            seeds |= {row["seed"] for row in rows}
    if sections:
        command = "python benchmarks/restoration.py --data BSDS500 --set5 SET5 --set12 SET12" + " --quick" * args.quick
        command += f" --seeds {' '.join(map(str, sorted(seeds)))}" * (seeds != {0})
        command += f" --multiple-of {args.multiple_of}" * (args.multiple_of != MULTIPLE)
        text = page(sections, args.multiple_of, command)
        (args.out / PAGE.name if args.quick else PAGE).write_text(text)
        print(text)  # noqa: T201
    elif args.table:
        parser.error(f"expected finished runs in {args.out}, found none; leave --table out to begin them")


def carry_out_all(setting: Setting, test: Path, args: argparse.Namespace, out: Path, until: float) -> None:
    """All runs of one network that nobody has done or is doing."""
    same_setting(setting, args.multiple_of, out)
    runs = plan_of_runs(args.shares, args.seeds, args.arms)
    graph = mp.trace(setting.build(), (setting.input,))
    for run in runs:
        Allocation(graph, mp.Budget(macs=run.share, multiple_of=args.multiple_of))
    task = setting.task(args.data, test)
    if not (out / "multiples.json").exists():
        write_json(out / "multiples.json", times_of_multiples(setting, 0.4))
    try:
        network = dense_network(setting.build, task, setting.dense, out / "dense")
    except Busy as busy:
        print(busy)  # noqa: T201  # there may be another network to work on
        return
    for run in runs:
        if time.monotonic() <= until:
            carry_out(out / run.folder, partial(row_of, run, network, setting, task, args, out))


if __name__ == "__main__":
    main()
