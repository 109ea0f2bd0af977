"""What happens to the weights in a step: backward, accumulate, clip, step; for the network and for its partners."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metaprune.train.checks import TrainError
from metaprune.train.optimizers import Factory, Groups, by_default, learning, optimizer_of
from metaprune.train.partners import NETWORK
from metaprune.train.processes import ALONE, Group
from metaprune.train.recipe import Recipe
from metaprune.train.several.splitting import is_split, total_norm
from metaprune.train.stepping import Training
from metaprune.train.task import Task

__all__ = ["Loop", "Window"]


class Window(NamedTuple):
    """The batches whose gradients make one step of the optimizer, as one of them sees it."""

    place: int  # of the step, in the phase
    size: int  # batches
    inside: int  # of those, done before this one

    @classmethod
    def at(cls, done: int, total: int, accumulate: int) -> Window:
        """Of the batch after `done` batches of a phase of `total`; the last window of a phase may be smaller."""
        place, inside = divmod(done, accumulate)
        return cls(place, min(accumulate, total - place * accumulate), inside)

    @property
    def opens(self) -> bool:
        """Whether this batch is the first."""
        return self.inside == 0

    @property
    def closes(self) -> bool:
        """Whether it is the last."""
        return self.inside == self.size - 1

    @property
    def middle(self) -> float:
        """How far it is from this batch to the middle of the step, in batches."""
        return self.size / 2 - self.inside


class Loop:
    """The network, its partners and their optimizers, on one device.

    Attributes:
        modules: All that trains, by name; "network" first.
        optimizers: "network", and one for each partner that has a rate of its own.
        training: What `Task.step` sees.
    """

    def __init__(
        self,
        fabric: Any,
        module: nn.Module,
        task: Task,
        recipe: Recipe,
        groups: Groups | None,
        who: str,
        factory: Factory | None = None,
        group: Group = ALONE,
    ) -> None:
        """Set up modules that are on the device already.

        Raises:
            TrainError: nothing learns, or a partner shares parameters with the network or another.
        """
        self.fabric, self.recipe, self.group = fabric, recipe, group
        self.modules = {NETWORK: module} | {name: partner.module for name, partner in task.partners.items()}
        _apart(self.modules, who)
        groups = list(by_default(module.parameters()) if groups is None else groups)
        heads = [partner.module for partner in task.partners.values() if partner.lr is None]
        groups = learning(groups)
        if not groups:
            raise TrainError(f"{who}: the network has no parameter to train; are all frozen?")
        groups += [group for head in heads for group in learning(by_default(head.parameters()))]
        self.optimizers = {NETWORK: optimizer_of(groups, recipe, recipe.lr, f"{who}: the network", factory)}
        for name, partner in task.partners.items():
            if partner.lr is not None:
                own = learning(by_default(partner.module.parameters()))
                told = f"{who}: the partner {name!r}"
                self.optimizers[name] = optimizer_of(own, recipe, partner.lr, told, factory)
        self._shares = {
            name: [group["lr"] / recipe.lr for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        callables: dict[str, Any] = {}
        self._steppers: dict[str, Any] = {}
        for name, trained in self.modules.items():
            if name in self.optimizers:
                callables[name], self._steppers[name] = fabric.setup(trained, self.optimizers[name])
            else:
                callables[name] = fabric.setup(trained)
        self._callables = callables
        partners = {name: called for name, called in callables.items() if name != NETWORK}
        self.training = Training(callables[NETWORK], module, partners, self.optimizers, task, self._update)
        alone = len(self.optimizers) == 1  # then every gradient is the network's
        self._inputs = {} if alone else {name: _parameters(found) for name, found in self.optimizers.items()}
        self._window = Window(0, 1, 0)
        self._weight = 1.0
        self.splits = any(map(is_split, module.parameters()))
        for optimizer in self.optimizers.values() if self.splits else ():
            for one in optimizer.param_groups:
                one.update({key: False for key in ("foreach", "fused") if key in one})  # split and whole do not mix
        if group.size > 1:
            self._agree(who)

    @property
    def sizes(self) -> list[int]:
        """The parameters of each group of each optimizer."""
        return [len(group["params"]) for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def train(self) -> None:
        """Training mode, for all."""
        for module in self.modules.values():
            module.train()

    def begin(self, window: Window, lr: float, weight: float = 1.0) -> None:
        """The next batch, of which this process has a part of so much weight; rates are set."""
        self._window, self._weight = window, weight
        for name, optimizer in self.optimizers.items():
            for group, share in zip(optimizer.param_groups, self._shares[name], strict=True):
                group["lr"] = lr * share

    def learn(self, loss: Tensor) -> None:
        """The network and the heads learn from the loss of a batch; where its window closes, they step."""
        if self._window.opens:
            self._steppers[NETWORK].zero_grad()
        self._backward(NETWORK, loss)
        if self._window.closes:
            self._step(NETWORK)

    def forget_gradients(self) -> None:
        """After the last step."""
        for stepper in self._steppers.values():
            stepper.zero_grad()

    def _update(self, name: str, loss: Tensor) -> None:
        """A partner learns from a loss of its own."""
        kind = self.fabric.device.type
        if torch.is_autocast_enabled(kind):  # `Task.step` runs in it; what goes backward should not
            with torch.autocast(kind, enabled=False):
                return self._alone(name, loss)
        return self._alone(name, loss)

    def _alone(self, name: str, loss: Tensor) -> None:
        self._backward(name, loss)
        if self._window.closes:
            self._step(name)
            self._steppers[name].zero_grad()

    def _backward(self, name: str, loss: Tensor) -> None:
        shared = loss if self._window.size == 1 else loss / self._window.size
        shared = shared if self._weight == 1 else shared * self._weight
        self.fabric.backward(shared, **({"inputs": self._inputs[name]} if self._inputs else {}))

    def _step(self, name: str) -> None:
        stepper = self._steppers[name]
        if self.group.size > 1:
            self.group.average(_parameters(self.optimizers[name]))
        if self.recipe.clip_norm is not None and self.splits:
            self._clip(name, self.recipe.clip_norm)
        elif self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(self._callables[name], stepper, max_norm=self.recipe.clip_norm)
        stepper.step()

    def _agree(self, who: str) -> None:
        """All begin with the weights of the first process, and see the same parameters."""
        shapes = {name: [tuple(p.shape) for p in module.parameters()] for name, module in self.modules.items()}
        self.group.same(shapes, f"{who}: the shapes of the network")
        for module in self.modules.values():
            with torch.no_grad():
                whole = [tensor for tensor in (*module.parameters(), *module.buffers()) if not is_split(tensor)]
                self.group.begin_alike(whole)

    @torch.no_grad()
    def _clip(self, name: str, most: float) -> None:
        """As Fabric does, where some gradients are split."""
        self.fabric.strategy.precision.unscale_gradients(self.optimizers[name])
        gradients = [p.grad for p in _parameters(self.optimizers[name]) if p.grad is not None]
        factor = (most / (total_norm(gradients, self.group) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            (gradient.to_local() if is_split(gradient) else gradient).mul_(factor)  # type: ignore[attr-defined]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _apart(modules: dict[str, nn.Module], who: str) -> None:
    """Refuse modules that share parameters: they would be trained twice, and be cut apart."""
    owner: dict[int, str] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            if owner.setdefault(id(parameter), name) != name:
                raise TrainError(
                    f"{who}: the partner {name!r} shares parameters with {owner[id(parameter)]!r}; a partner is a "
                    "module of its own"
                )
