"""Does MetaPruning's pruning network know which widths train well, and does its search find better ones than uniform?

Run `python benchmarks/metapruning.py --data DATA`: some two hours of one core. The network is a plain one of six
convolutions on CIFAR-10 at half resolution, cut to 0.3 of its MACs. A pruning network of each kind says how good
vectors of widths are, all of equal cost; each vector is then trained from scratch with several seeds. Beside the rank
correlation of the two stands that of a guess that asks nobody, nearness to uniform widths, and the correlation inside
a group of vectors that are equally near. Then the searched, uniform and random widths are trained from scratch and
tested, and a reward is set against the hard budget at several shares. Only the last step uses the test set.

Every finished piece is a folder under `--out`; started again it goes on where it was, and several processes may share
the folder. Rows are also kept beside the page, and another clone goes on from them. `--minutes 9` begins no piece after
so many minutes; `--table` only writes the page of what there is.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Kept, mean_and_spread, pyplot
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.data import load
from metaprune.methods.metapruning.genes import Genes, Widths
from metaprune.methods.metapruning.rewarded import front
from metaprune.methods.method import Problem
from metaprune.surgery.anew import begin_anew
from metaprune.surgery.resized import Resized
from metaprune.train.randomness import isolated
from metaprune.train.task import First, Task

PAGE = Path(__file__).with_suffix(".md")
KINDS = ("shared", "film", "mlp")
SHARE = 0.3
SHARES = (0.15, 0.2, 0.3, 0.4, 0.55)
CHANNELS = (32, 32, 64, 64, 128, 128)
DRAWS = 400


@dataclass(frozen=True)
class Setting:
    """How long everything takes."""

    epochs: int
    steps: int | None  # in an epoch; None for all
    vectors: int
    population: int
    generations: int


def build() -> nn.Module:
    """Six convolutions with batch norm, two to a resolution."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    for before, (place, after) in zip((3, *CHANNELS), enumerate(CHANNELS), strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if place % 2 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 10))


def kept_of(setting: Setting, out: Path) -> Kept:
    """The rows of a setting."""
    return Kept(out, PAGE.with_suffix(".jsonl"), str(setting))


class Bench:
    """The network, its graph, and what is tried of it."""

    def __init__(self, data: Any, setting: Setting, out: Path) -> None:
        train = data.train if setting.steps is None else First(data.train, setting.steps)
        self.task: Task = mp.Classification(train, data.val, data.test)
        self.setting, self.out = setting, out
        self.kept = kept_of(setting, out)
        torch.manual_seed(0)
        self.network = build()
        self.graph = mp.trace(self.network, (torch.zeros(2, *data.shape),))
        self.resized = Resized(self.network, self.graph)
        self.genes = Genes(Allocation(self.graph, mp.Budget(macs=SHARE, multiple_of=1)))

    def recipe(self, seed: int) -> mp.Recipe:
        """Of whatever is trained from scratch."""
        return mp.Recipe(self.setting.epochs, lr=0.1, warmup=min(0.5, self.setting.epochs / 4), seed=seed)

    def vectors(self) -> dict[str, list[Widths]]:
        """Two groups of equal cost: random ones with the uniform one, and some that are equally near to it."""
        numbers = random.Random(0)
        uniform = self.genes.within(self.genes.whole())
        drawn = list(dict.fromkeys(self.genes.anywhere(numbers) for _ in range(DRAWS)))
        middle = statistics.median(map(self.nearness, drawn))
        alike = sorted(drawn, key=lambda widths: abs(self.nearness(widths) - middle))
        return {"all": [uniform, *drawn][: self.setting.vectors], "equally near": alike[: self.setting.vectors]}

    def nearness(self, widths: Widths) -> float:
        """Minus the spread of the logarithms of the ratios: 0 where all are equal."""
        lanes = self.genes.allocation.lanes.values()
        ratios = torch.tensor([width / lane.size for width, lane in zip(widths, lanes, strict=True)])
        return -float(ratios.log().std(correction=0))

    def method(self, kind: str, fitness: Any = "metric") -> Any:
        """MetaPruning with a pruning network of a kind, trained for as many epochs as a network is."""
        population, generations = self.setting.population, self.setting.generations
        return mp.MetaPruning(
            generator=kind,
            search=1.0,
            population=population,
            generations=generations,
            fitness=fitness,  # type: ignore[arg-type]
            window=0.0,
        )

    def problem(self, kind: str, seed: int, share: float = SHARE) -> Problem:
        """What it is given."""
        folder = self.out / "pruning networks" / f"{kind}-{seed}"
        budget = mp.Budget(macs=share, multiple_of=1)
        return Problem(self.network, self.graph, budget, self.task, self.recipe(seed), folder, progress=True)

    def scratch(self, widths: Widths, seed: int) -> nn.Module:
        """A network of these widths, trained from fresh weights."""
        network = self.resized.copy(self.genes.plan(widths))
        with isolated():
            torch.manual_seed(seed)
            begin_anew(network)
        mp.fit(network, self.task, self.recipe(seed), name="from scratch")
        return network

    def asked(self, kind: str, seed: int) -> dict[str, Any]:
        """What a pruning network says of every vector, recalibrated and not; and what its search finds."""
        method, problem = self.method(kind), self.problem(kind, seed)
        net, history = method.trained(problem)
        whole = net.copy(mp.Plan({}))
        said: dict[str, list[dict[str, float]]] = {}
        for group, vectors in self.vectors().items():
            said[group] = []
            for widths in vectors:
                plan = self.genes.plan(widths)
                settled = mp.evaluate(net.copy(plan), self.task.val, self.task, problem.recipe)
                cropped = net.resized[0].copy(plan, net.weights(plan))
                _take_statistics(cropped, Resized(whole, self.graph).copy(plan))
                unsettled = mp.evaluate(cropped, self.task.val, self.task, problem.recipe)
                said[group].append({"recalibrated": settled, "not": unsettled})
        found = method.evolved(problem, net)
        return {
            "what": "asked",
            "kind": kind,
            "seed": seed,
            "said": said,
            "epochs": len(history),
            "widths": list(found[0].widths),
            "found": found[0].metric,
            "candidates": len(found),
        }

    def trained(self, group: str, place: int, seed: int) -> dict[str, Any]:
        """One vector from scratch, on the validation data."""
        widths = self.vectors()[group][place]
        network = self.scratch(widths, seed)
        return {
            "what": "scratch",
            "group": group,
            "place": place,
            "seed": seed,
            "widths": list(widths),
            "nearness": self.nearness(widths),
            "val": mp.evaluate(network, self.task.val, self.task, self.recipe(seed)),
        }

    def final(self, arm: str, seed: int) -> dict[str, Any]:
        """Searched, uniform or random widths from scratch, on the test data."""
        if arm == "uniform":
            widths = self.genes.within(self.genes.whole())
        elif arm == "random":
            widths = self.genes.anywhere(random.Random(1000 + seed))
        else:
            asked = _of(self.kept.rows(), what="asked", kind=arm, seed=0)
            if not asked:
                raise SystemExit(f"another process searches with {arm}; wait for it, or name another --out")
            widths = tuple(asked[0]["widths"])
        network = self.scratch(widths, seed)
        assert self.task.test is not None
        return {
            "what": "final",
            "arm": arm,
            "seed": seed,
            "widths": list(widths),
            "nearness": self.nearness(widths),
            "share": self.genes.share(widths),
            "test": mp.evaluate(network, self.task.test, self.task, self.recipe(seed)),
        }

    def traced(self, kind: str) -> dict[str, Any]:
        """The fronts of a reward, and of the hard budget at several shares; on one pruning network."""
        problem = self.problem(kind, 0)
        net, _ = self.method(kind).trained(problem)
        points: dict[str, list[tuple[float, float]]] = {"hard budgets": []}
        for share in SHARES:
            alone = replace(self.problem(kind, 0, share), checkpoint=None)
            best = self.method(kind).evolved(alone, net)[0]
            points["hard budgets"].append((best.share, best.metric))
        base = mp.evaluate(net.copy(mp.Plan({})), self.task.val, self.task, problem.recipe)
        for exponent in (1.0, 2.0, 4.0):
            reward = mp.rewarded(base, exponent=exponent)
            alone = replace(self.problem(kind, 0, max(SHARES)), checkpoint=None)
            found = self.method(kind, reward).evolved(alone, net)
            points[f"reward, exponent {exponent:g}: all"] = [(one.share, one.metric) for one in front(found)]
            points[f"reward, exponent {exponent:g}: the fittest"] = [(found[0].share, found[0].metric)]
        return {"what": "fronts", "kind": kind, "points": points, "dense": base}


def _take_statistics(network: nn.Module, of: nn.Module) -> None:
    """Give batch norms the statistics of another network of the same shape."""
    theirs = dict(of.named_buffers())
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(theirs[name])


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of ranks; of equals, the mean rank."""

    def ranks(values: Sequence[float]) -> list[float]:
        return [sum(v < value for v in values) + 0.5 * (sum(v == value for v in values) - 1) for value in values]

    if len(set(one)) < 2 or len(set(other)) < 2:
        return float("nan")
    return statistics.correlation(ranks(one), ranks(other))


def _is(row: Mapping[str, Any], **fields: Any) -> bool:
    return all(row.get(name) == value for name, value in fields.items())


def _of(rows: Sequence[Mapping[str, Any]], **fields: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if _is(row, **fields)]


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables of what there is."""
    lines = [
        "# MetaPruning: does the pruning network know, and does the search find?",
        "",
        "Written by `python benchmarks/metapruning.py --data DATA`.",
        "",
        f"Six convolutions on CIFAR-10 at half resolution, all vectors at {SHARE:g} of the MACs. Rank correlations "
        "(Spearman) with the mean validation accuracy from scratch.",
        "",
        "| who says which widths are good | all vectors | equally near to uniform ones | vectors | scratch seeds |",
        "|---|--:|--:|--:|--:|",
        *_correlations(rows),
        "",
        "Validation accuracy of pruning networks over all vectors, in percent: statistics of batch norms recalibrated "
        "for each, and cropped from those of the whole network.",
        "",
        "| pruning network | recalibrated | cropped |",
        "|---|--:|--:|",
    ]
    for kind in KINDS:
        if asked := _of(rows, what="asked", kind=kind):
            said = [one for row in asked for group in row["said"].values() for one in group]
            both = (mean_and_spread([one[name] for one in said]) for name in ("recalibrated", "not"))
            lines.append(f"| {kind} | {' | '.join(both)} |")
    lines += [
        "",
        "From scratch, test accuracy in percent, the mean ± the standard deviation over the seeds.",
        "",
        "| widths | accuracy | nearness to uniform | share of the MACs | seeds |",
        "|---|--:|--:|--:|--:|",
    ]
    for arm in ("uniform", "random", *KINDS):
        if found := _of(rows, what="final", arm=arm):
            accuracy = mean_and_spread([row["test"] for row in found])
            near, share = (statistics.mean(row[name] for row in found) for name in ("nearness", "share"))
            name = f"searched, {arm}" if arm in KINDS else arm
            lines.append(f"| {name} | {accuracy} | {near:.3f} | {share:.4f} | {len(found)} |")
    if fronts := _of(rows, what="fronts"):
        lines += ["", "![Fronts of rewards and of hard budgets](metapruning.svg)", ""]
        lines += ["| pruning network | who | share of the MACs: accuracy |", "|---|---|---|"]
        for row in fronts:
            for who, points in row["points"].items():
                said = ", ".join(f"{share:.3f}: {metric:.2f}" for share, metric in points)
                lines.append(f"| {row['kind']} | {who} | {said} |")
    return "\n".join(lines) + "\n"


def _means(rows: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[float]:
    """The mean over seeds of the accuracy from scratch, vector by vector."""
    return [statistics.mean(row["val"] for row in rows if row["place"] == place) for place in places]


def _correlations(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row for each who says something, the guess that asks nobody among them."""
    groups = ("all", "equally near")
    scratch = {group: _of(rows, what="scratch", group=group) for group in groups}
    places = {group: sorted({row["place"] for row in scratch[group]}) for group in groups}
    mean = {group: _means(scratch[group], places[group]) for group in groups}
    seeds = sorted({row["seed"] for found in scratch.values() for row in found})

    def line(name: str, said: Mapping[str, Sequence[float]]) -> str:
        found = [f"{spearman(said[group], mean[group]):.2f}" if len(places[group]) > 1 else "" for group in groups]
        return f"| {name} | {' | '.join(found)} | {len(places['all'])} | {len(seeds)} |"

    for kind in KINDS:
        for row in _of(rows, what="asked", kind=kind):
            said = {
                group: [row["said"][group][place]["recalibrated"] for place in places[group]]
                for group in groups
                if all(place < len(row["said"][group]) for place in places[group])
            }
            if len(said) == len(groups):
                yield line(f"pruning network, {kind}, seed {row['seed']}", said)
    near = {
        group: [next(row["nearness"] for row in scratch[group] if row["place"] == place) for place in places[group]]
        for group in groups
    }
    yield line("nearness to uniform widths, no training at all", near)
    for one, other in itertools.combinations(seeds, 2):
        pairs = {
            group: [
                [row["val"] for row in scratch[group] if row["place"] == place and row["seed"] == seed]
                for place in places[group]
                for seed in (one, other)
            ]
            for group in groups
        }
        if all(all(found) for found in pairs.values()) and all(pairs.values()):
            cells = [f"{spearman([v[0] for v in pairs[g][::2]], [v[0] for v in pairs[g][1::2]]):.2f}" for g in groups]
            yield f"| scratch seed {one} against seed {other} | {' | '.join(cells)} | {len(places['all'])} | 1 |"


def picture(rows: Sequence[Mapping[str, Any]], to: Path) -> None:
    """Left, what pruning networks say against what comes of it; right, the fronts."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    scratch = _of(rows, what="scratch", group="all")
    for kind in KINDS:
        for row in _of(rows, what="asked", kind=kind, seed=0):
            places = sorted({one["place"] for one in scratch if one["place"] < len(row["said"]["all"])})
            said = [row["said"]["all"][place]["recalibrated"] for place in places]
            left.scatter(said, _means(scratch, places), s=14, label=kind)
    left.set_xlabel("pruning network, val (%)")
    left.set_ylabel("from scratch, val (%)")
    for row in _of(rows, what="fronts")[:1]:
        for who, points in row["points"].items():
            shares, metrics = zip(*points, strict=True)
            right.plot(shares, metrics, "o-" if len(points) > 1 else "*", ms=4 if len(points) > 1 else 10, label=who)
    right.set_xlabel("share of the MACs")
    right.set_ylabel("pruning network, val (%)")
    for panel in (left, right):
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Do what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=120, help="batches in an epoch")
    parser.add_argument("--vectors", type=int, default=12, help="in each of the two groups")
    parser.add_argument("--seeds", type=int, default=3, help="of each vector from scratch")
    parser.add_argument("--final-seeds", type=int, default=5, help="of searched, uniform and random widths")
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="begin no piece after so many")
    parser.add_argument("--out", type=Path, default=Path("runs/metapruning"))
    parser.add_argument("--table", action="store_true", help="only write the page of the pieces there are")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    setting = Setting(args.epochs, args.steps, args.vectors, args.population, args.generations)
    if not args.table:
        begun = time.monotonic()
        bench = Bench(load(args.data), setting, args.out)
        pieces: list[tuple[str, Any]] = [(f"asked-{kind}-0", partial(bench.asked, kind, 0)) for kind in args.kinds]
        for seed, group in itertools.product(range(args.seeds), bench.vectors()):
            for place in range(len(bench.vectors()[group])):
                name = f"scratch-{group.replace(' ', '_')}-{place}-{seed}"
                pieces.append((name, partial(bench.trained, group, place, seed)))
        for seed, arm in itertools.product(range(args.final_seeds), ("uniform", "random", *args.kinds)):
            pieces.append((f"final-{arm}-{seed}", partial(bench.final, arm, seed)))
        pieces.append((f"fronts-{args.kinds[0]}", partial(bench.traced, args.kinds[0])))
        for name, piece in pieces:
            if args.minutes is None or time.monotonic() - begun < 60 * args.minutes:
                bench.kept.carry_out(name, piece)
    rows = kept_of(setting, args.out).write()
    if rows:
        written = page(rows)
        PAGE.write_text(written)
        picture(rows, PAGE.with_suffix(".svg"))
        print(written)  # noqa: T201


if __name__ == "__main__":
    main()
