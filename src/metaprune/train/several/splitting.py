"""Weights that are split between processes while a network trains (PyTorch's FSDP), and whole again afterwards.

A network whose weights, gradients and optimizer's state are too large for one device lies on the host, is trained in
pieces, and comes back: who decides and who cuts see it whole. Only large weights are split. The others, and with them
the gates of a search, are what they were, in each process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.train.processes import Group

__all__ = ["LEAST", "is_split", "put", "split", "split_like", "total_norm", "whole"]

LEAST = 1 << 10
"""Smaller weights are not split."""


@contextmanager
def split(module: nn.Module, group: Group) -> Iterator[None]:
    """The network on the device with its large weights split, until it is given back where it was, whole.

    Entries of lists of modules of one class, the blocks of most networks, are put together one after another as they
    are called. A network that reads the weights of other modules by itself says so in `reads_weights`, and is put
    together at once.

    Args:
        module: On any device; its parameters are the same objects afterwards.
        group: The processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    places: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    parameters = dict(module.named_parameters())
    large = {name for name, p in parameters.items() if p.dim() >= 2 and p.numel() >= LEAST and len(places[id(p)]) == 1}
    home = {name: parameter.device for name, parameter in parameters.items()}
    group.begin_alike([*parameters.values(), *module.buffers()])
    small = {parameter for name, parameter in parameters.items() if name not in large}
    for parameter in small:
        parameter.data = parameter.data.to(group.device)
    kept = [_Kept(child) for child in module.modules()]
    mesh = init_device_mesh(group.device.type, (group.size,))
    blocks = [] if getattr(module, "reads_weights", False) else _blocks(module, large)
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=small, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, ignored_params=small, reshard_after_forward=bool(blocks))
    for each in kept:
        each.notice()
    try:
        yield
    finally:
        _come_apart(module)
        now = dict(module.named_parameters())
        with torch.no_grad():
            for name in sorted(large):  # one after another, so that one is whole at a time
                parameters[name].data.copy_(_whole(now[name]))
        for each in kept:
            each.back()
        for name, parameter in parameters.items():
            parameter.data = parameter.data.to(home[name])
            if parameter.grad is not None and parameter.grad.device != home[name]:
                parameter.grad = None
        for buffer in module.buffers():
            buffer.data = buffer.data.to(next(iter(home.values())))


def is_split(tensor: Tensor) -> bool:
    """Whether a process has a piece of it only."""
    return hasattr(tensor, "full_tensor")


def whole(tree: Any) -> Any:
    """A tree with every split tensor put together, on the CPU; all processes call it with trees of one form."""
    return tree_map_only(Tensor, _whole, tree)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().full_tensor().cpu() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def split_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as a piece, on the device, in the layout of another tensor; all processes call it."""
    if not is_split(like):
        return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    there = value.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements)  # type: ignore[attr-defined]


@torch.no_grad()
def put(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Whole tensors into a module, some of which may be split."""
    tensors = dict(module.named_parameters())
    if not any(map(is_split, tensors.values())):
        module.load_state_dict(state)
        return
    _come_apart(module)
    tensors = dict(module.named_parameters(remove_duplicate=False))
    plain = {name: value for name, value in state.items() if not is_split(tensors.get(name, value))}
    module.load_state_dict(plain, strict=False)
    for name, value in state.items():
        if name not in plain:
            tensors[name].copy_(split_like(value, tensors[name]))


def total_norm(gradients: list[Tensor], group: Group) -> Tensor:
    """The norm of all gradients, of which some are split."""
    wide = torch.float64 if any(gradient.dtype == torch.float64 for gradient in gradients) else torch.float32
    pieces = torch.zeros((), device=group.device, dtype=wide)
    others = pieces.clone()
    for gradient in gradients:
        if is_split(gradient):
            pieces += gradient.to_local().to(wide).square().sum()  # type: ignore[attr-defined]
        else:
            others += gradient.to(wide).square().sum()
    return (group.total(pieces) + others).sqrt()


class _Kept:
    """What splitting changes of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind = module, module.__class__
        own = [name for name, value in vars(nn.Module()).items() if isinstance(value, dict) and name != "_modules"]
        self.held = {name: (vars(module)[name], dict(vars(module)[name])) for name in own if name in vars(module)}
        self.names = set(vars(module))

    def notice(self) -> None:
        """Once it is split: what was written to it."""
        self.added = set(vars(self.module)) - self.names

    def back(self) -> None:
        """As it was."""
        from torch.distributed import _composable_state

        for name in self.added:
            vars(self.module).pop(name, None)
        for table, entries in self.held.values():
            table.clear()
            table.update(entries)
        self.module.__class__ = self.kind
        _composable_state._module_state_mapping.pop(self.module, None)  # it remembers whom it has split


def _blocks(module: nn.Module, large: set[str]) -> list[nn.Module]:
    """Entries of lists of modules, two or more of one class, that hold large weights; none inside another."""
    found: list[tuple[str, nn.Module]] = []
    for path, child in module.named_modules():
        if not isinstance(child, nn.ModuleList | nn.Sequential) or any(path.startswith(f"{p}.") for p, _ in found):
            continue
        entries = list(child.named_children())
        kinds = [type(entry) for _, entry in entries]
        for name, entry in entries:
            place = f"{path}.{name}" if path else name
            if kinds.count(type(entry)) > 1 and any(one.startswith(f"{place}.") for one in large):
                found.append((place, entry))
    return [entry for _, entry in found]


def _come_apart(module: nn.Module) -> None:
    """Let go of weights that were put together to be called."""
    from torch.distributed.fsdp import FSDPModule

    for child in module.modules():
        if isinstance(child, FSDPModule):
            child.reshard()
