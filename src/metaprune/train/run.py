"""A training while it runs: where it is, what it has seen, and how that is saved and found again."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metaprune.graph.notebook import html_table
from metaprune.train import randomness
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.checks import TrainError
from metaprune.train.partners import NETWORK
from metaprune.train.processes import ALONE, Group
from metaprune.train.several.dividing import Part
from metaprune.train.several.splitting import put, split_like, whole

__all__ = ["History", "Projector", "Row", "Run", "TrainError"]


@dataclass(frozen=True)
class Row:
    """What was known at the end of an epoch."""

    epoch: float  # of the whole schedule, done
    phase: str
    loss: float  # mean over the epoch
    metric: float  # on the validation part
    seconds: float  # of training since `start`; the time between a kill and the next start is not counted


@dataclass
class History:
    """One row an epoch.

    Attributes:
        rows: Of all epochs.
        kept: The epoch whose weights the network has, where that was the best; None where it is the last.
    """

    rows: list[Row] = field(default_factory=list)
    kept: float | None = None

    def __repr__(self) -> str:
        """How many epochs, and from where to where."""
        return f"History({self._counted()})"

    def _repr_html_(self) -> str:
        columns = ("epoch", "phase", "loss", "metric", "seconds")
        rows = [(f"{r.epoch:g}", r.phase, f"{r.loss:.4g}", f"{r.metric:.4g}", f"{r.seconds:.1f}") for r in self.rows]
        return html_table(self._counted(), columns, rows)

    def _counted(self) -> str:
        if not self.rows:
            return "no epochs"
        a, b = self.rows[0], self.rows[-1]
        metric = f"metric {a.metric:.4g} → {b.metric:.4g}"
        return f"{len(self.rows)} epochs, loss {a.loss:.3g} → {b.loss:.3g}, {metric}"


@runtime_checkable
class Projector(Protocol):
    """What changes a network while it trains: a search, a mask that keeps zeros. Its state goes into checkpoints.

    One that leaves weights alone, and changes what few numbers lie beside them, may say `leaves_weights = True`.
    """

    def after_step(self, step: int, steps: int, /) -> None:
        """Called after each step of the optimizer: its index, counted from 0 in the phase, and the number of all."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, in dicts and lists."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go back to such a state; the network is back already, and what the state says of it holds again."""


HOW = ("fused", "foreach", "capturable")
"""What optimizers say of how they compute, which is a matter of the device."""

ASKED = 20
"""Steps between two questions, on several processes, whether it is time for a checkpoint."""


class Run:
    """All that changes while a training runs: what a checkpoint holds."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        during: Sequence[Projector],
        identity: dict[str, Any],
        group: Group = ALONE,
    ) -> None:
        """Begin at `identity["start"]`; runs of the same identity go on from one another's checkpoints.

        Args:
            modules: The network, under `NETWORK`, and its partners.
            optimizers: Of those that have one, under the same names.
            during: What changes the network after steps.
            identity: What the run is.
            group: The processes that train together.
        """
        self.modules, self.optimizers, self.during, self.identity = modules, optimizers, during, identity
        self.group = group
        self.name, self.batches = identity["name"], identity["batches"]
        self.epoch, self.batch = identity["start"], 0  # the next ones
        self.half = False  # whether gradients of batches wait for others before the optimizer steps
        self.loss = 0.0  # sum over the batches of this epoch
        self.rows: list[Row] = []
        self.best: dict[str, Any] | None = None  # the epoch that `Best` keeps
        self._pending: list[tuple[Tensor, float]] = []  # losses and rates that nobody has looked at yet
        self._random: dict[str, Any] | None = None  # where this epoch was interrupted
        self._begun = self._saved = time.monotonic()

    def rest_of_epoch(self, remaining: Iterator[Part]) -> Iterator[Part]:
        """What is not done yet of this epoch's batches, with the random numbers that belong to them.

        On several processes loaders draw from numbers of their own, so that all make the same batches, and each step
        begins with numbers that are the same in all.

        Args:
            remaining: A pass that has not begun.
        """
        epoch = (self.identity["seed"], self.identity["before"] + self.epoch)
        randomness.seed(*epoch)
        for _ in range(self.batch):
            next(remaining)
        if self.group.size == 1:
            if self._random is not None:
                randomness.restore(self._random)
                self._random = None
            yield from remaining
        else:
            for part in remaining:
                of_data = randomness.capture(devices=False)
                randomness.seed(*epoch, part.place)
                yield part
                randomness.restore(of_data)
        self.look()

    def count(self, loss: Tensor, lr: float, *, weight: float = 1.0, half: bool = False) -> None:
        """One more batch is done; `half`: the optimizer waits for others before it steps.

        Args:
            loss: Of this process's part.
            lr: The rate.
            weight: Of the part.
            half: See above.
        """
        loss = loss.detach()
        if self.group.size > 1:
            loss = loss * (weight / self.group.size) if weight else torch.zeros_like(loss)
        self._pending.append((loss, lr))
        self.batch, self.half = self.batch + 1, half

    def look(self) -> float:
        """Adds up the losses since the last look; the mean of this epoch so far.

        Raises:
            TrainError: one is not finite.
        """
        values = self.group.total(torch.stack([loss for loss, _ in self._pending])).tolist() if self._pending else []
        for i, (value, (_, lr)) in enumerate(zip(values, self._pending, strict=True)):
            if not math.isfinite(value):
                step = self.batch - len(values) + i
                raise TrainError(
                    f"{self.name}: the loss is {value} at epoch {self.epoch + 1}, step {step + 1} "
                    f"of {self.batches}, lr {lr:.3g}; lower the learning rate, warm up, clip the "
                    "gradient (clip_norm), or look for numbers in the data that are not finite, and labels that are no "
                    "class"
                )
            self.loss += value
        self._pending.clear()
        return self.loss / max(self.batch, 1)

    def end_epoch(self, metric: float) -> Row:
        """Notes how the epoch went, and is ready for the next."""
        seconds = round(time.monotonic() - self._begun, 3)
        row = Row(self.epoch + 1, self.name, self.look(), metric, seconds)
        self.rows.append(row)
        self.epoch, self.batch, self.loss = self.epoch + 1, 0, 0.0
        return row

    def save_every(self, checkpoint: Checkpoint) -> None:
        """Saves, if the last time is long enough ago; several processes ask the first one every so many steps."""
        if self.group.size > 1 and (self.batch % ASKED or self.half):
            return
        if self.group.told(lambda: time.monotonic() - self._saved >= checkpoint.seconds):
            self.save(checkpoint)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes everything, unless a loss was not finite; the first of several processes does."""
        self.look()
        self._saved = time.monotonic()
        tree = {
            "identity": self.identity,
            "modules": {name: dict(module.state_dict()) for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "gradients": self._gradients() if self.half else None,
            "during": [projector.state_dict() for projector in self.during],
            "random": randomness.capture() if self.group.size == 1 else None,
            "rows": [asdict(row) for row in self.rows],
            "best": self.best,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss": self.loss,
            "seconds": time.monotonic() - self._begun,
        }
        tree = tree if self.group.size == 1 else whole(tree)
        self.group.told(lambda: checkpoint.save(tree))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on where the checkpoint was written, if there is one.

        Raises:
            CheckpointError: it is of another run, or of another network.
        """
        tree = self.group.told(checkpoint.load)
        if tree is None:
            return
        try:
            self._go_to(tree, checkpoint)
        except CheckpointError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: not of a training ({error!r:.200}); give another folder"
            ) from error

    def _go_to(self, tree: Any, checkpoint: Checkpoint) -> None:
        was, now = tree["identity"], self.identity
        changes = [f"{key} was {was.get(key)}, is {now[key]}" for key in now if was.get(key) != now[key]]
        if list(tree["modules"]) != list(self.modules):
            changes.append("what trains beside the network has other names")
        for name, module in self.modules.items():
            if _shapes(module.state_dict()) != _shapes(tree["modules"].get(name, {})):
                changes.append(f"the {name if name == NETWORK else f'partner {name!r}'} has other parameters")
        if changes:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: of another run ({'; '.join(changes)}); "
                "give another folder, or delete this one"
            )
        for name, module in self.modules.items():
            put(module, tree["modules"][name])
        for name, optimizer in self.optimizers.items():
            how = [{key: one[key] for key in HOW if key in one} for one in optimizer.param_groups]
            optimizer.load_state_dict(tree["optimizers"][name])
            for one, here in zip(optimizer.param_groups, how, strict=True):
                one.update(here)
            for parameter, kept in optimizer.state.items():  # in its layout, or steps get slower
                for key, value in kept.items():
                    if isinstance(value, Tensor) and value.dim() and value.shape == parameter.shape:
                        kept[key] = split_like(value, parameter.detach())
        for projector, state in zip(self.during, tree["during"], strict=True):
            projector.load_state_dict(state)
        self.half = tree["gradients"] is not None
        self._back(tree["gradients"] or {})
        self.rows = [Row(**row) for row in tree["rows"]]
        self.best = tree["best"]
        self.epoch, self.batch, self.loss = tree["epoch"], tree["batch"], tree["loss"]
        self._random = tree["random"] if self.batch else None
        self._begun -= tree["seconds"]

    def _gradients(self) -> dict[str, dict[str, Tensor]]:
        """Those that wait; the means over processes, which are as good."""
        if self.group.size > 1:
            self.group.average([p for module in self.modules.values() for p in module.parameters()])
        return {
            name: {path: p.grad for path, p in module.named_parameters() if p.grad is not None}
            for name, module in self.modules.items()
        }

    def _back(self, gradients: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Where they were."""
        for name, of_module in gradients.items():
            parameters = dict(self.modules[name].named_parameters())
            for path, gradient in of_module.items():
                parameters[path].grad = split_like(gradient, parameters[path].detach())


class Best:
    """Keeps the weights of the best epoch of a run, on the CPU; they are in its checkpoints."""

    def __init__(self, run: Run, higher_is_better: bool) -> None:
        """Of this run."""
        self.run, self.sign = run, 1 if higher_is_better else -1

    def look(self, row: Row) -> None:
        """At an epoch that just ended; of two as good, the later one counts."""
        best = self.run.best
        if best is None or self.sign * row.metric >= self.sign * best["metric"]:
            states = {
                name: {key: whole(value).detach().to("cpu", copy=True) for key, value in module.state_dict().items()}
                for name, module in self.run.modules.items()
            }
            self.run.best = {"epoch": row.epoch, "metric": row.metric, "modules": states}

    def back(self) -> float | None:
        """Give the modules the weights of the best epoch, and say which it was; None where there was none."""
        if self.run.best is None:
            return None
        for name, module in self.run.modules.items():
            put(module, self.run.best["modules"][name])
        return float(self.run.best["epoch"])


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: getattr(value, "shape", None) for key, value in state.items()}
