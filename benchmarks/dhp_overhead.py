"""What a search step of DHP costs beside a plain training step: time and memory, both forms.

Run `python benchmarks/dhp_overhead.py`: some minutes; it prints a table and writes `dhp_overhead.md` beside itself. The
exit code is 1 if a bar is missed.

Time: plain, gate and hypernetwork steps in turns in one process, so that what else the machine does hits all alike; the
median of each. Memory: the largest resident set over some steps (Linux), above what the process held before the network
was made, in a process of its own for each.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory import forget_peak, status
from torch import nn

import metaprune as mp
from metaprune.models import MODELS

PAGE = Path(__file__).with_suffix(".md")
NETWORKS = ("resnet20", "resnet56", "vit")
FORMS = ("plain", "gate", "hypernetwork")
BATCH = 128
BAR = 1.10


def stepper(network: str, form: str) -> Callable[[], None]:
    """One training step on a fixed batch, with what a search does after it; half of the latents are dead."""
    torch.manual_seed(0)
    model = MODELS[network]()
    x = torch.randn(BATCH, 3, 32, 32)
    y = torch.randint(10, (BATCH,))
    recipe = mp.Recipe(10, lr=1e-4)
    after: Callable[[int], None] = lambda done: None  # noqa: E731
    trained: nn.Module = model
    groups: list[dict[str, object]] = [{"params": list(model.parameters())}]
    if form != "plain":
        graph = mp.trace(model, (x[:1],))
        method = mp.DHP(form=form)
        running = method.start(model, graph, mp.Budget(macs=0.5), steps=1000)
        generated, search = running.model, running.search
        trained, groups = generated, running.groups(recipe.lr)
        if form == "gate":
            plan = search.allocation.plan(search.ranking)
            with torch.no_grad():
                for name, z in generated.latents.named().items():
                    dead = torch.ones(len(z), dtype=torch.bool)
                    dead[list(plan.kept.get(name, range(len(z))))] = False
                    z[dead] = 0
                    search.due[name][dead] = 1
            generated.hide(plan)

        def after(done: int) -> None:
            search.after(done % 900 + 1, running.steps, recipe.lr)

    trained.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(list(groups), lr=1e-4, momentum=0.9)  # type: ignore[arg-type]
    done = 0

    def step() -> None:
        nonlocal done
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(trained(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(done)
        done += 1

    return step


def timed(network: str, repeats: int) -> dict[str, float]:
    """Milliseconds of processor time of a step, by form; with one thread, what it takes where nothing else runs."""
    steps = {form: stepper(network, form) for form in FORMS}
    taken: dict[str, list[float]] = {form: [] for form in FORMS}
    for turn in range(repeats + 2):
        for form, step in steps.items():
            start = time.process_time()
            step()
            if turn >= 2:
                taken[form].append(1e3 * (time.process_time() - start))
    return {form: statistics.median(values) for form, values in taken.items()}


def peak(network: str, form: str) -> float:
    """Megabytes that a network and some steps take, in this process; a trace before it has imported all there is."""
    mp.trace(MODELS[network](), (torch.randn(1, 3, 32, 32),))
    held = status("VmRSS")
    step = stepper(network, form)
    forget_peak()
    for _ in range(4):
        step()
    return (status("VmHWM") - held) / 1e6


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "FORM"), help="in a process of its own: print megabytes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too, where its backward pass takes most of a step
    if args.peak:
        print(json.dumps(peak(*args.peak)))  # noqa: T201
        return
    rows, missed = [], []
    for network in NETWORKS:
        times = timed(network, args.repeats)
        peaks = {form: _peak_in_a_process(network, form) for form in FORMS}
        for form in FORMS:
            ratios = times[form] / times["plain"], peaks[form] / peaks["plain"]
            rows.append(
                f"| {network} | {form} | {times[form]:.0f} | {ratios[0]:.2f} | {peaks[form]:.0f} | {ratios[1]:.2f} |"
            )
            if form == "gate":
                missed += [f"{network}: {ratio:.2f}" for ratio in ratios if ratio > BAR]
    page = "\n".join(
        [
            "# What a search step of DHP costs",
            "",
            "Written by `python benchmarks/dhp_overhead.py`.",
            "",
            f"Batch {BATCH} of 3x32x32, bf16 autocast, channels last, one thread; half of the MACs dead (gate form). "
            f"Processor time, the median of {args.repeats} turns. Memory: above what the process held before the "
            f"network was made. Python {platform.python_version()}, PyTorch {torch.__version__}.",
            "",
            "| network | step | ms | times plain | MB | times plain |",
            "|---|---|--:|--:|--:|--:|",
            *rows,
            "",
            f"Bar: the gate form at most {BAR:.2f} times plain, in time and in memory: "
            + ("met." if not missed else f"**missed** ({', '.join(missed)})."),
            "",
        ]
    )
    PAGE.write_text(page)
    print(page)  # noqa: T201
    sys.exit(bool(missed))


def _peak_in_a_process(network: str, form: str) -> float:
    command = [sys.executable, __file__, "--peak", network, form]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
