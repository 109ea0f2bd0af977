"""What one metanetwork is worth on families of networks that it has not learned from, and what there is to win.

Run `python -m benchmarks.families --cifar10 DATA --omniglot ZIP --bsds500 FOLDER`: it takes many hours of one core.
Every finished piece is kept under `--out`, and so is every tuning of a search; started again it goes on where it was,
and several processes may share the folder. `--parts head_room` does that part alone; `--table` only writes the page of
what there is. The part `apart` looks at families and data that nothing is learned from or chosen by: once, in the end.
"""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from benchmarks.families import page
from benchmarks.families.data import Sources
from benchmarks.families.drawn import APART, DATA_APART, FAMILIES, KNOWN
from benchmarks.families.picture import draw
from benchmarks.families.work import (
    ABLATIONS,
    CHOOSE,
    EPOCHS,
    SHARES,
    TAUGHT,
    TEACH,
    TESTED,
    Member,
    Meta,
    Work,
    members,
)

from metaprune.methods.graph_metanetwork import load, save
from metaprune.methods.graph_metanetwork.expectation import fitted

PAGE = Path(__file__).parent.with_suffix(".md")
PARTS = ("head_room", "lessons", "left_out", "ship", "ablations", "apart")


def without(family: str) -> str:
    """The name of the metanetwork that has not learned from a family."""
    return f"without {family}"


def left_out(work: Work, families: Sequence[str], shares: Sequence[float]) -> None:
    """For each family a metanetwork of the others, and the family's networks pruned with it."""
    for family in families:
        others = [name for name in KNOWN if name != family]
        work.meta_train(without(family), Meta(), others)
        for member in members([family], TESTED):
            work.compare(member, without(family), shares, (0, 1))
            for share, seed in itertools.product(shares, (0, 1)):
                work.prune(member, f"{without(family)}, fused", partial(work.fused, without(family)), share, seed)


def ablations(work: Work, families: Sequence[str], shares: Sequence[float]) -> None:
    """One thing changed each, for some families left out."""
    for (what, meta), family in itertools.product(ABLATIONS.items(), families):
        name = f"{without(family)}, {what}"
        work.meta_train(name, meta, [other for other in KNOWN if other != family])
        for member in members([family], TESTED[:1]):
            work.compare(member, name, shares, (0, 1))


def ship(work: Work) -> None:
    """The metanetwork of all families, with what it can expect to gain as those of families left out did."""
    work.meta_train(page.ALL, Meta(), KNOWN)
    metanetwork = load(work.metanetwork(page.ALL))
    metanetwork.expectation = fitted(page.seen(work.kept("runs").rows()))
    shipped = work.home / "shipped"
    shipped.mkdir(exist_ok=True)
    save(metanetwork, shipped / "metanetwork.safetensors")


def apart(work: Work, shares: Sequence[float]) -> None:
    """Families and data that nothing was learned from and nothing chosen by."""
    work.meta_train(page.ALL, Meta(), KNOWN)
    pictures = [name for name in KNOWN if FAMILIES[name].data == "cifar10"]
    others = [Member(family, 0, data) for data, family in itertools.product(DATA_APART, pictures)]
    for member in [*members(APART, TESTED), *others]:
        work.compare(member, page.ALL, shares, (0, 1))


def main() -> None:
    """Do what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", default="uoft-cs/cifar10", help="a folder or a name on the Hub")
    parser.add_argument("--omniglot", default="", help="a folder or a zip of drawings")
    parser.add_argument("--bsds500", default="", help="a folder with train, val and test")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--parts", nargs="*", default=PARTS[:4], choices=PARTS)
    parser.add_argument("--families", nargs="*", default=list(KNOWN), choices=list(KNOWN))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="networks whose head room is asked")
    parser.add_argument("--shares", nargs="*", type=float, default=list(SHARES), help="of the MACs, in the table")
    parser.add_argument("--taught", nargs="*", type=float, default=list(TAUGHT), help="of the MACs, in searches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the page")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = Work(args.out, Sources(args.cifar10, args.omniglot, args.bsds500))
    parts = () if args.table else args.parts
    if "head_room" in parts:
        for seed, share in itertools.product(args.seeds, args.taught):
            for member in members(args.families, [seed]):
                work.head_room(member, share)
    if "lessons" in parts:
        for seed, share in itertools.product((*TEACH, *CHOOSE), args.taught):
            for member in members(args.families, [seed]):
                work.lessons(member, share)
    if "left_out" in parts:
        left_out(work, args.families, args.shares)
    if "ship" in parts:
        ship(work)
    if "ablations" in parts:
        ablations(work, args.families, args.shares)
    if "apart" in parts:
        apart(work, args.shares)
    room, lessons, meta, runs = (work.kept(what).write() for what in ("head_room", "lessons", "meta", "runs"))
    now, was = page.latter(runs), page.former(runs)
    learned = [row for row in meta if not row["name"].endswith(page.BEFORE)]
    sections = [
        page.HEAD,
        page.head_room(room, EPOCHS),
        page.table(now, room),
        page.expecting(now),
        page.apart(now),
        page.ablations(now),
        page.savings(now, learned, room, lessons),
    ]
    if draw(now, PAGE.with_suffix(".svg"), len(KNOWN) - 1):
        sections.append(f"![What each family gains, and how that grows]({PAGE.stem}.svg)")
    if any(of_before := [page.table(was, room), page.expecting(was), page.ablations(was)]):
        sections += [page.FORMER, *(section.replace("## ", "### ") for section in of_before)]
        if draw(was, PAGE.with_name(f"{PAGE.stem}_held.svg"), len(KNOWN) - 1):
            sections.append(f"![What each family gained, and how that grew]({PAGE.stem}_held.svg)")
    PAGE.write_text("\n".join(filter(None, sections)).rstrip() + "\n")
    print(PAGE.read_text())  # noqa: T201


if __name__ == "__main__":
    main()
