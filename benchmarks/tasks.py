"""Other tasks than classes of pictures: a detector, a U-Net that segments, a language model, each pruned to half.

Run `python benchmarks/tasks.py --photographs BSDS500`: half an hour on one core of a CPU. Boxes and maps are of shapes
cut from one photograph and laid on another (`scenes.py`); the text is that of Python's own `help()`, which lies in
every Python. One dense network for each task; then DHP, magnitude and uniform widths at half of the MACs, with as many
epochs for each, searches counted; and the dense network trained on for as many. Figures are of the test set after the
last epoch; nothing is chosen by them.

Every finished run is a folder under `--out`; started again it goes on where it was, and several processes may share the
folder. `--minutes 9` begins no run after so many minutes; `--table` only writes the page of what there is.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from experiment import Run, Setting, carry_out, dense_network, mark, mean_and_spread, means, pyplot, rows_in
from finder import Finder
from networks import DecoderSizes, LanguageModel
from scenes import CLASSES, SIDE, scenes
from torch import nn

import metaprune as mp
from metaprune.data import load_text
from metaprune.models import UNet

PAGE = Path(__file__).with_suffix(".md")
SHARE = 0.5
METHODS: dict[str, Callable[[], Any]] = {"DHP": mp.DHP, "magnitude": mp.Magnitude, "uniform": mp.Uniform}
TRAINED_ON = "dense, trained on"
PICTURES = {"train": 2400, "val": 300, "test": 600}
LENGTH = 128
"""Bytes that the language model sees at once."""


@dataclass(frozen=True)
class Kind:
    """A task and its network.

    Attributes:
        title: What it is, in words.
        metric: What is measured, in words.
        build: A fresh network.
        example: Its example inputs.
        task: Of the folder of photographs, and of one for files that are made.
        setting: How it is trained.
    """

    title: str
    metric: str
    build: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]
    task: Callable[[Path, Path], mp.Task]
    setting: Setting


def recipes(dense: int, pruned: int, lr: float, steps: tuple[int, int] | None = None) -> Setting:
    """So many epochs of AdamW, each over all batches, or so many steps in all."""
    recipe = mp.Recipe(dense, lr=lr, warmup=1.0, weight_decay=0.01, optimizer="adamw", clip_norm=5.0)
    setting = Setting(recipe, replace(recipe, epochs=pruned, lr=lr / 2, warmup=0.0))
    if steps is None:
        return setting
    return Setting(replace(setting.dense, max_steps=steps[0]), replace(setting.pruned, max_steps=steps[1]))


def parts(photographs: Path, contract: Any) -> list[Any]:
    """Pictures to learn from, to choose by and to report; no two parts share a photograph."""
    counts = enumerate(PICTURES.items())
    return [scenes(photographs / part, count, seed, contract, part == "train") for seed, (part, count) in counts]


def detection(photographs: Path, out: Path) -> mp.Task:
    """Boxes around shapes."""
    return mp.Detection(*parts(photographs, "detection"))


def segmentation(photographs: Path, out: Path) -> mp.Task:
    """The class of each pixel."""
    return mp.Segmentation(*parts(photographs, "segmentation"), classes=CLASSES)


def language(photographs: Path, out: Path) -> mp.Task:
    """The next byte of what `help()` says of the language."""
    path = out / "text.txt"
    path.write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    text = load_text(path, length=LENGTH, batch_size=16)
    return mp.LanguageModelling(text.train, text.val, text.test)


def unet() -> nn.Module:
    """The denoiser of `metaprune.models`, with a class for each pixel in place of colours."""
    network = UNet(3, depth=4, width=8)
    network.tail = nn.Conv2d(8, CLASSES, 1)
    return network


def pictures() -> torch.Tensor:
    """Two of them."""
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


KINDS = {
    "detector": Kind(
        "detection: shapes on photographs, torchvision's contract",
        "mAP",
        lambda: Finder(CLASSES - 1),
        lambda: (list(pictures()),),
        detection,
        recipes(24, 12, 2e-3),
    ),
    "unet": Kind(
        "segmentation: the same shapes, a U-Net",
        "mIoU",
        unet,
        lambda: (pictures(),),
        segmentation,
        recipes(12, 6, 2e-3),
    ),
    "language_model": Kind(
        f"language: bytes of Python's help, {LENGTH} at once, a causal transformer with grouped queries",
        "perplexity",
        lambda: LanguageModel(DecoderSizes(256, 96, 4, 6, 3, 256)),
        lambda: (torch.randint(256, (2, LENGTH), generator=torch.Generator().manual_seed(0)),),
        language,
        recipes(6, 4, 2e-3, steps=(600, 240)),
    ),
}


def row_of(run: Run, name: str, network: nn.Module, task: mp.Task) -> dict[str, Any]:
    """Prune, fine-tune and measure; the row of the table."""
    kind = KINDS[name]
    started = time.process_time()
    result = mp.prune(
        network,
        kind.example(),
        method=METHODS.get(run.arm, mp.Uniform)(),
        budget=mp.Budget(macs=run.share, multiple_of=1),
        task=task,
        recipe=replace(kind.setting.pruned, seed=run.seed),
    )
    seconds = time.process_time() - started
    report = result.report
    if len(report.history) != kind.setting.pruned.epochs:
        raise SystemExit(f"{run.arm}: {len(report.history)} epochs, and not {kind.setting.pruned.epochs}")
    return {
        "task": name,
        "arm": run.arm,
        "share": run.share,
        "seed": run.seed,
        "epochs": [kind.setting.dense.epochs, kind.setting.pruned.epochs],
        "higher": task.higher_is_better,
        "seconds": seconds,
        "dense": report.dense.metric,
        "test": report.pruned.metric,
        "val": report.history[-1].metric,
        "after_cut": report.after_cut,
        "macs": report.pruned.macs / report.dense.macs,
        "params": report.pruned.params / report.dense.params,
        "dense_macs": report.dense.macs,
        "dense_params": report.dense.params,
        "kept": {axis: list(stays) for axis, stays in result.plan.kept.items()},
    }


def groups(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Mapping[str, Any]]]:
    """The runs of each arm of a task, the best first; the dense network before them."""
    found = {arm: [row for row in rows if (row["task"], row["arm"]) == (name, arm)] for arm in (TRAINED_ON, *METHODS)}

    def rank(arm: str) -> tuple[bool, float]:
        mean = statistics.mean(row["test"] for row in found[arm])
        return arm != TRAINED_ON, -mean if found[arm][0]["higher"] else mean

    return {arm: found[arm] for arm in sorted(filter(found.get, found), key=rank)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page: mean and spread per task and arm, the best first."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [
        "# Detection, segmentation, language",
        "",
        f"Written by `python benchmarks/tasks.py --photographs BSDS500`, with Python {version}.",
        "",
        f"One dense network for each task, pruned to {SHARE:g} of its MACs with free widths; the same epochs for every "
        "arm, searches counted. Figures are of the test set after the last epoch: the mean ± the standard deviation "
        "over the seeds (one seed: no spread). mAP and mIoU: more is better; perplexity of a byte: less. Time is of "
        "the processor, on one thread.",
    ]
    for name, kind in KINDS.items():
        found = groups(rows, name)
        if not found:
            continue
        first = next(iter(found.values()))[0]
        digits = 3 if kind.metric == "perplexity" else 4
        lines += [
            "",
            f"## {kind.title[0].upper()}{kind.title[1:]}",
            "",
            f"Dense: {kind.metric} {first['dense']:.{digits}f} after {first['epochs'][0]} epochs; "
            f"{first['dense_macs'] / 1e6:.1f} million MACs, {first['dense_params']:,} parameters. "
            f"{first['epochs'][1]} further epochs.",
            "",
            f"| arm | {kind.metric}, test | seeds | val | right after the cut (val) | MACs | parameters | minutes |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for arm, runs in found.items():
            mean = means(runs, "val", "after_cut", "macs", "params", "seconds")
            lines.append(
                f"| {arm} | {mean_and_spread([row['test'] for row in runs], digits)} | {len(runs)} | "
                f"{mean['val']:.{digits}f} | {mean['after_cut']:.{digits}f} | {mean['macs']:.3f} | "
                f"{mean['params']:.3f} | {mean['seconds'] / 60:.1f} |"
            )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The metric of each arm, a point with the spread over its seeds, a panel for each task."""
    plt = pyplot()
    names = [name for name in KINDS if groups(rows, name)]
    figure, panels = plt.subplots(1, len(names), figsize=(4 * len(names), 2.4), squeeze=False, layout="constrained")
    for panel, name in zip(panels[0], names, strict=True):
        found = groups(rows, name)
        for place, runs in enumerate(found.values()):
            mark(panel, place, [row["test"] for row in runs])
        panel.axvline(next(iter(found.values()))[0]["dense"], color="grey", linestyle=":")
        direction = "less" if KINDS[name].metric == "perplexity" else "more"
        panel.set(title=name.replace("_", " "), xlabel=f"{KINDS[name].metric} ({direction} is better); dotted: dense")
        panel.set_yticks(range(len(found)), list(found))
        panel.set_ylim(len(found) - 0.5, -0.5)
        panel.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="a folder with train, val and test")
    parser.add_argument("--tasks", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--arms", nargs="+", choices=[*METHODS, TRAINED_ON], default=[*METHODS, TRAINED_ON])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--table", action="store_true", help="only write the page of the runs there are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too, where its backward pass takes most of a step
    started = time.monotonic()
    for name in [] if args.table else args.tasks:
        if time.monotonic() - started > 60 * args.minutes:
            break
        kind, out = KINDS[name], args.out / name
        out.mkdir(parents=True, exist_ok=True)
        task = kind.task(args.photographs, out)
        network = dense_network(kind.build, task, kind.setting.dense, out / "dense")
        for seed, arm in itertools.product(args.seeds, args.arms):
            if time.monotonic() - started <= 60 * args.minutes:
                run = Run(arm, 1.0 if arm == TRAINED_ON else SHARE, seed)
                carry_out(out / run.folder, partial(row_of, run, name, network, task))
    rows = [row for name in KINDS for row in rows_in(args.out / name)]
    if rows:
        draw(rows, PAGE.with_suffix(".svg"))
        page = table(rows) + f"\n![The metric of each arm]({PAGE.stem}.svg)\n"
        PAGE.write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
