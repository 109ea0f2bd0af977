"""Do zeros keep a meta-learner from fitting its training classes? Reptile, dense and with weights or channels at zero.

Run `python benchmarks/few_shot.py --data FOLDER_OR_ZIP`, with Omniglot's alphabets or anything of their layout: some
ninety minutes of one core; `--epochs 20 --tasks 5 --test-steps 50` takes four times as long, and trains further. The
network is four convolutions. Every arm trains as long; then it adapts to new tasks, of its own training classes and of
others that it never saw: the gap between the two is what it fitted too much. Both have an interval, and so has the gap.
No arm is chosen by them.

Every finished run is a folder under `--out`; started again it goes on where it was, and several processes may share the
folder. `--minutes 9` begins no run after so many minutes; `--table` only writes the page of what there is.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import carry_out, mean_and_spread, rows_in
from torch import nn

import metaprune as mp
from metaprune.data import Characters, load_characters
from metaprune.train.scores import Scores, scores
from metaprune.train.tasks.few_shot import Episodes, Inner

PAGE = Path(__file__).with_suffix(".md")
ARMS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "DSD 0.5": {"schedule": "dsd"},
    "IHT 0.5": {"schedule": "iht"},
    "random zeros 0.5": {"schedule": "iht", "random": 0},
    "channels, IHT 0.5, cut": {"schedule": "iht", "graph": True},
}
SHARE = 0.5


@dataclass(frozen=True)
class Setting:
    """How large and how long everything is."""

    filters: int
    epochs: int
    steps: int
    tasks: int
    train_shots: int
    episodes: int
    transductive: bool
    inner: Inner
    testing: Inner


def build(filters: int, ways: int, channels: int, size: int) -> nn.Module:
    """Four convolutions of stride 2 with batch norm, and a linear layer."""
    layers: list[nn.Module] = []
    for before in (channels, filters, filters, filters):
        layers += [nn.Conv2d(before, filters, 3, stride=2, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        size = (size + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters * size * size, ways))


def task_of(classes: Characters, ways: int, shots: int, setting: Setting, project: Any) -> mp.Task:
    """Learning to tell classes apart after a few examples."""
    return mp.FewShot(
        classes,
        ways,
        shots,
        tasks=setting.tasks,
        steps=setting.steps,
        train_shots=setting.train_shots,
        episodes=setting.episodes,
        val_episodes=min(20, setting.episodes),
        inner=setting.inner,
        testing=setting.testing,
        transductive=setting.transductive,
        project=project,
    )


def row_of(
    arm: str, ways: int, shots: int, seed: int, classes: Characters, setting: Setting, folder: Path
) -> dict[str, Any]:
    """Train one arm and measure it on both kinds of classes."""
    channels, size = classes.train[0].shape[1:3]
    torch.manual_seed(seed)
    network = build(setting.filters, ways, channels, size)
    how = dict(ARMS[arm] or {})
    graph = mp.trace(network, (torch.zeros(2, channels, size, size),)) if how.pop("graph", False) else None
    zeros = mp.Sparsity(SHARE, graph=graph, **how).on(network) if ARMS[arm] is not None else None
    task = task_of(classes, ways, shots, setting, zeros.project if zeros else lambda weights: None)
    recipe = mp.Recipe(
        setting.epochs,
        lr=1.0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        schedule="linear",
        precision="32-true",
        seed=seed,
    )
    started = time.process_time()
    mp.fit(network, task, recipe, name=arm, during=[zeros] if zeros else [], checkpoint=folder / "checkpoints")
    seconds = time.process_time() - started
    if graph is not None and zeros is not None:
        network = mp.slice(network, graph, zeros.plan)
        task = task_of(classes, ways, shots, setting, lambda weights: None)
    seen = Episodes(classes.train, ways, shots, 5, 1, setting.episodes, seed=2)

    def measured(episodes: Any) -> Scores:
        return scores(network, episodes, task, recipe)

    own, others = measured(seen), measured(task.test)
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    return {
        "arm": arm,
        "ways": ways,
        "shots": shots,
        "seed": seed,
        "own": own.metric,
        "own_half": own.further["± (95 %)"],
        "others": others.metric,
        "others_half": others.further["± (95 %)"],
        "zeros": sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "transductive": setting.transductive,
        "steps": setting.epochs * setting.steps,
        "filters": setting.filters,
        "episodes": setting.episodes,
        "classes": [len(part) for part in (classes.train, classes.val, classes.test)],
        "seconds": seconds,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    first = rows[0]
    lines = [
        "# A few examples: dense, and with zeros",
        "",
        "Written by `python benchmarks/few_shot.py --data DATA`.",
        "",
        f"Four convolutions of {first['filters']} filters, Reptile for {first['steps']:,} steps; "
        f"{first['classes'][0]} classes to train on, {first['classes'][2]} others to test; "
        f"{first['episodes']} episodes of each, {'' if first['transductive'] else 'not '}transductive. Accuracy in "
        "percent, the mean over the seeds ± its 95 % interval over the episodes of all of them; the gap's is of both.",
        "",
        "| task | arm | training classes | other classes | gap | zeros | parameters | seeds | spread over seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for ways, shots in sorted({(row["ways"], row["shots"]) for row in rows}):
        for arm in ARMS:
            found = [row for row in rows if (row["arm"], row["ways"], row["shots"]) == (arm, ways, shots)]
            if not found:
                continue
            own, others = (statistics.mean(row[name] for row in found) for name in ("own", "others"))
            halves = [
                math.sqrt(sum(row[f"{name}_half"] ** 2 for row in found)) / len(found) for name in ("own", "others")
            ]
            zeros = statistics.mean(row["zeros"] for row in found)
            lines.append(
                f"| {ways}-way {shots}-shot | {arm} | {own:.1f} ± {halves[0]:.1f} | {others:.1f} ± {halves[1]:.1f} | "
                f"{own - others:.1f} ± {math.hypot(*halves):.1f} | {zeros:.2f} | {found[0]['parameters']:,} | "
                f"{len(found)} | {mean_and_spread([row['others'] for row in found])} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder or zip of alphabet/character/drawing.png")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="in an epoch")
    parser.add_argument("--tasks", type=int, default=3, help="in a step")
    parser.add_argument("--train-shots", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--test-steps", type=int, default=25, help="of adaptation, where it is measured")
    parser.add_argument("--transductive", action="store_true")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="begin no run after so many")
    parser.add_argument("--out", type=Path, default=Path("runs/few_shot"))
    parser.add_argument("--table", action="store_true", help="only write the page of the runs there are")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.table:
        begun = time.monotonic()
        classes = load_characters(args.data, size=args.size)
        setting = Setting(
            args.filters,
            args.epochs,
            args.steps,
            args.tasks,
            args.train_shots,
            args.episodes,
            args.transductive,
            inner=Inner(8, 10, 1e-3),
            testing=Inner(args.test_steps, 5, 1e-3),
        )
        for seed, shots, arm in itertools.product(range(args.seeds), args.shots, args.arms):
            if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
                break
            folder = args.out / f"{arm}-{args.ways}-{shots}-{seed}".replace(" ", "_").replace(",", "")
            carry_out(folder, partial(row_of, arm, args.ways, shots, seed, classes, setting, folder))
    rows = rows_in(args.out)
    if rows:
        page = table(rows)
        PAGE.write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
