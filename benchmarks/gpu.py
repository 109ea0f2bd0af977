"""Everything that only a GPU can show, in at most 8 minutes, the most telling first, with a table at the end.

Run `make gpu`, or `python benchmarks/gpu.py [--data DATA]`, where `DATA` is CIFAR-10 as a folder or a name on the Hub;
without it pictures are made up, and accuracies mean nothing. Each part is a process of its own with a time limit: what
it had found by then is kept. `--cpu` runs every part on the CPU at tiny sizes, which shows that they run and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from networks import NETWORKS, ResNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.cost.latency import latencies
from metaprune.data import Batches, load
from metaprune.models import MODELS, MobileNetV2, VisionTransformer
from metaprune.train import Recipe, Task
from metaprune.train.task import First

TOTAL = 480.0
"""Seconds for all parts together."""

Row = tuple[str, str]
"""What was looked at, and what was found."""


@dataclass(frozen=True)
class Place:
    """Where the parts run, and on what.

    Attributes:
        tiny: Whether on the CPU, at sizes that say nothing.
        data: CIFAR-10, or None for pictures that are made up.
    """

    tiny: bool
    data: str | None

    @property
    def device(self) -> str:
        """As PyTorch names it."""
        return "cpu" if self.tiny else "cuda"


def tests(place: Place) -> Iterator[Row]:
    """The tests marked `gpu`; on the CPU they are skipped, and so one that is not is run."""
    chosen = ["-m", "gpu"] if not place.tiny else ["tests/graph/test_tensors.py"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", *chosen], cwd=root, capture_output=True, text=True, check=False
    )
    *_, last = done.stdout.strip().splitlines() or ["pytest said nothing: " + done.stderr[-200:]]
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for line in failed:
        yield "test", line
    yield "tests", last if done.returncode == 0 else f"FAILED: {last}"


def pictures(place: Place) -> tuple[Task, str]:
    """The task, and what its data are called."""
    if place.data is not None:
        found = load(place.data)
        most = 3 if place.tiny else len(found.train)
        return mp.Classification(First(found.train, most), First(found.val, most)), place.data
    torch.manual_seed(0)
    side, count = (8, 48) if place.tiny else (32, 20_000)
    shown = torch.randn(10, 3, side, side)

    def made(many: int) -> DataLoader[Any]:
        labels = torch.arange(many) % 10
        return DataLoader(
            TensorDataset(shown[labels] + 3 * torch.randn(many, 3, side, side), labels),
            batch_size=16 if place.tiny else 128,
            shuffle=True,
        )

    return mp.Classification(made(count), made(max(count // 10, 20))), "pictures that are made up"


def pruning(place: Place, method: Any) -> Iterator[Row]:
    """A ResNet-56, trained a little and cut to half of its MACs."""
    task, data = pictures(place)
    yield "data", data
    name = "resnet8" if place.tiny else "resnet56"
    torch.manual_seed(0)
    network = MODELS[name](10, 3)
    epochs = 1 if place.tiny else 2
    recipe = Recipe(epochs, lr=0.1, device=place.device)
    begun = time.perf_counter()
    rows = mp.fit(network, task, recipe, progress=False).rows
    yield f"{name} dense", f"{rows[-1].metric:.1f} % after {epochs} epochs of {rows[-1].seconds / epochs:.1f} s"
    side = 8 if place.tiny else 32
    result = mp.prune(
        network,
        (torch.zeros(128 if not place.tiny else 2, 3, side, side),),
        method=method,
        budget=mp.Budget(macs=0.5),
        task=task,
        recipe=Recipe(2 if place.tiny else 3, lr=0.05, device=place.device),
        progress=False,
    )
    report = result.report
    for row in report.history:
        yield f"{name} {method.name} epoch {row.epoch:g}", f"{row.metric:.1f} %, loss {row.loss:.3f} ({row.phase})"
    share = report.pruned.macs / report.dense.macs
    yield (
        f"{name} {method.name}",
        f"{report.pruned.metric:.1f} % at {share:.3f} of the MACs (dense {report.dense.metric:.1f})",
    )
    for what, found in (("dense", report.dense.latency), ("cut", report.pruned.latency)):
        yield f"{name} {method.name} {what}", str(found)
    if not place.tiny:
        yield f"{name} {method.name} memory", f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at most"
    yield f"{name} {method.name} time", f"{time.perf_counter() - begun:.0f} s in all"


def epochs(place: Place) -> Iterator[Row]:
    """An epoch of a ResNet-56 on pictures that are in memory, with the step as it is, compiled, and as CUDA graphs."""
    name = "resnet8" if place.tiny else "resnet56"
    for batch, compiled in ((512, False), (128, False), (512, True), (512, "graphs"), (128, "graphs")):
        size = batch // 64 if place.tiny else batch
        train, data = in_memory(place, size)
        steps = 3 if place.tiny else train.examples // size  # without the last batch, which is smaller
        task = mp.Classification(First(train, steps), First(train, 1))
        torch.manual_seed(0)
        recipe = Recipe(2, lr=0.1, device=place.device, compile=compiled)
        with compiled_quickly(place):
            rows = mp.fit(MODELS[name](10, 3), task, recipe, progress=False).rows
        seconds = rows[1].seconds - rows[0].seconds
        how = {False: "as it is", True: "compiled", "graphs": "CUDA graphs"}[compiled]
        yield (
            f"{name}, batch {size}, {how}",
            f"{seconds:.2f} s an epoch of {steps} steps, {1e3 * seconds / steps:.1f} ms a step; the first "
            f"{rows[0].seconds:.1f} s ({data})",
        )


def in_memory(place: Place, batch: int) -> tuple[Batches, str]:
    """Pictures to train on, moved and mirrored at random, and what they are called."""
    if place.data is not None:
        return load(place.data, batch_size=batch).train, place.data
    count, side = (64, 8) if place.tiny else (50_000, 32)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8)
    middle = torch.full((3,), 127.5)
    made = Batches(images, torch.arange(count) % 10, batch, middle, middle / 2, shuffle=True, pad=4, flip=True)
    return made, "pictures that are made up"


@contextmanager
def compiled_quickly(place: Place) -> Iterator[None]:
    """At tiny sizes nothing is to be won, and a compiler that only traces will do."""
    usual = torch.compile
    if place.tiny:
        torch.compile = lambda call, mode=None, dynamic=None: usual(call, backend="aot_eager", dynamic=dynamic)  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.compile = usual


def network_called(name: str, tiny: bool) -> tuple[nn.Module, torch.Tensor]:
    """A network of the latency parts, and one picture."""
    if not tiny:
        found = NETWORKS[name]
        return found.build(), found.example()
    small: dict[str, Callable[[], nn.Module]] = {
        "ResNet-50": lambda: ResNet((1, 1, 1, 1)),
        "MobileNetV2": lambda: MobileNetV2(10, pixels=32),
        "ViT-B/16": lambda: VisionTransformer(10, 3, pixels=32, width=32, depth=2),
    }
    return small[name](), torch.zeros(1, 3, 32, 32)


def timing(place: Place, name: str) -> Iterator[Row]:
    """A network dense and at half of its MACs by magnitude: bfloat16, channels last, eager and compiled."""
    network, picture = network_called(name, place.tiny)
    graph = mp.trace(network.eval(), (picture,))
    plan = mp.plan(network, (picture,), method=mp.Magnitude(), budget=mp.Budget(macs=0.5))
    half = mp.slice(network, graph, plan)
    share = mp.macs(graph, plan) / mp.macs(graph)
    batch = 2 if place.tiny else 64
    both = {"dense": network, "half": half}
    ready = {what: model.to(place.device, torch.bfloat16) for what, model in both.items()}
    example = picture.repeat(batch, 1, 1, 1).to(place.device, torch.bfloat16)
    for backend in ("eager", "compiled"):
        if backend == "compiled":
            how = "aot_eager" if place.tiny else "inductor"
            ready = {what: torch.compile(model, backend=how) for what, model in ready.items()}  # type: ignore[misc]
        found = latencies(
            ready, (example,), device=place.device, channels_last=True, seconds=0.02 if place.tiny else 2.0
        )
        dense, cut = (found[what].median_ms for what in ("dense", "half"))
        yield (
            f"{name}, {backend}",
            f"dense {dense:.3g} ms, at {share:.2f} of the MACs {cut:.3g} ms: {dense / cut:.2f} times as fast "
            f"(batch {batch}, bfloat16, channels last)",
        )


def zeros(place: Place) -> Iterator[Row]:
    """Two of every four weights zero, in PyTorch's format for it, against the dense kernels."""
    inputs, outputs, rows = (64, 128, 64) if place.tiny else (4096, 4096, 8192)
    dense = nn.Linear(inputs, outputs, bias=False).to(place.device, torch.float16)
    sparse = mp.sparsify(dense, n=2, m=4).model
    x = torch.randn(rows, inputs, device=place.device, dtype=torch.float16)
    if place.tiny:
        from torch.sparse import _semi_structured_conversions as conversions

        packed = conversions.sparse_semi_structured_from_dense_cutlass(sparse.weight.detach())
        again = conversions.sparse_semi_structured_to_dense_cutlass(*packed)
        yield (
            "2:4 format",
            f"{'holds' if torch.equal(again, sparse.weight) else 'FAILED: loses'} the weights (kernels need a GPU)",
        )
        return
    from torch.sparse import to_sparse_semi_structured
    from torch.utils.benchmark import Timer

    expected = sparse(x)
    packed = to_sparse_semi_structured(sparse.weight.detach())
    got = nn.functional.linear(x, packed)
    far = float((got - expected).abs().max() / expected.abs().max())
    yield "2:4 kernels", f"outputs differ from the dense ones' by {far:.1e} of the largest"
    times = {}
    with torch.inference_mode():
        for what, weight in (("dense", sparse.weight.detach()), ("2:4", packed)):
            call = {"x": x, "weight": weight, "linear": nn.functional.linear}
            times[what] = Timer("linear(x, weight)", globals=call).blocked_autorange(min_run_time=1.0).median * 1e3
    yield (
        "2:4 speed",
        f"{inputs}×{outputs}, {rows} rows, float16: dense {times['dense']:.3g} ms, 2:4 {times['2:4']:.3g} ms",
    )


PARTS: dict[str, tuple[float, Callable[[Place], Iterator[Row]]]] = {
    "tests": (80, tests),
    "DHP": (80, lambda place: pruning(place, mp.DHP())),
    "epochs": (100, epochs),
    "latency of ResNet-50": (40, lambda place: timing(place, "ResNet-50")),
    "magnitude": (40, lambda place: pruning(place, mp.Magnitude())),
    "2:4": (20, zeros),
    "latency of ViT-B/16": (45, lambda place: timing(place, "ViT-B/16")),
    "latency of MobileNetV2": (40, lambda place: timing(place, "MobileNetV2")),
}
"""Name -> seconds at most, and what is done, the most telling first."""


def in_its_own_process(part: str, seconds: float, given: list[str]) -> list[Row]:
    """What a part found within its time; the last row says so where it did not come to its end."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        command = [sys.executable, str(Path(__file__)), *given, "--part", part]
        child = subprocess.Popen(command, stdout=said, stderr=complaints, text=True, start_new_session=True)
        problem = ""
        try:
            if child.wait(seconds):
                complaints.seek(0)
                problem = (complaints.read().strip().splitlines() or ["no word"])[-1]
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            problem = f"stopped after {seconds:.0f} s"
        said.seek(0)
        rows = [tuple(json.loads(line)) for line in said if line.startswith("[")]
    return [*rows, *([(part, f"FAILED: {problem}")] if problem else [])]


def main() -> int:
    """All parts, or one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU: shows that every part runs")
    parser.add_argument("--data", help="CIFAR-10: a folder or a name on the Hub; made up if left out")
    parser.add_argument("--part", choices=PARTS, help="one part, in this process")
    parser.add_argument("--seconds", type=float, help="for all parts together; on the CPU there is no hurry")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        sys.stderr.write("gpu: there is no CUDA device here; `--cpu` runs every part on the CPU at tiny sizes\n")
        return 1
    if options.part:
        for row in PARTS[options.part][1](Place(options.cpu, options.data)):
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
        return 0

    given = [*(["--cpu"] if options.cpu else []), *(["--data", options.data] if options.data else [])]
    patience = 20 if options.cpu else 1
    total = options.seconds or patience * TOTAL
    begun, found = time.monotonic(), list[tuple[str, Row]]()
    for part, (limit, _) in PARTS.items():
        left = total - (time.monotonic() - begun)
        rows = (
            in_its_own_process(part, min(patience * limit, left), given)
            if left > 5
            else [(part, "FAILED: no time was left")]
        )
        found += [(part, row) for row in rows]
        sys.stderr.write(f"{part}: {rows[-1][1]}\n")
    machine = "CPU, tiny sizes: times and accuracies mean nothing" if options.cpu else torch.cuda.get_device_name()
    lines = [f"{machine}; PyTorch {torch.__version__}; {time.monotonic() - begun:.0f} s", ""]
    lines += [
        "| part | what | found |",
        "|---|---|---|",
        *(f"| {part} | {what} | {said} |" for part, (what, said) in found),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if any(said.startswith("FAILED") for _, (_, said) in found) else 0


if __name__ == "__main__":
    sys.exit(main())
