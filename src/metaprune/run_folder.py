"""The folder of a run: whose it is, and what an earlier start of the same run left in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.budget import Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph, WidthLimits
from metaprune.graph.tensors import digest
from metaprune.methods.method import Method
from metaprune.saving import taken
from metaprune.train.atomic import FileError, read_json, write_json
from metaprune.train.recipe import Recipe

__all__ = ["RunFolder", "check", "remembered"]

RUN = "run.json"
TIME = "budget.json"
"""Where a run keeps what it found out of time."""

FORMAT = "metaprune.run.1"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def claim(
        cls,
        out: str | Path,
        model: nn.Module,
        graph: ChannelGraph,
        method: Method,
        budget: Budget,
        recipe: Recipe,
        data: str,
        settings: Mapping[str, str],
        *,
        only_look: bool = False,
    ) -> RunFolder:
        """The folder, fresh, or of the same run, which then goes on; nothing is written if `only_look`.

        Raises:
            MetapruneError: It cannot be written, or holds another run, or a file of that name which is none of ours.
        """
        folder = Path(out)
        given = tree_leaves((graph.args, [value for _, value in sorted(graph.kwargs.items())]))
        identity = {
            "method": f"{method!r}",
            "budget": f"{budget!r}",
            "recipe": f"{recipe!r}",
            "data": data,
            "preprocessing": dict(settings),
            "inputs": [list(leaf.shape) for leaf in given if isinstance(leaf, torch.Tensor)],
            "axes": {name: axis.size for name, axis in graph.free.items()},
            "weights": digest(model.state_dict()),
            **({"calls": list(map(str, calls))} if (calls := graph.calls[1:]) and len(calls) > 1 else {}),
            **({"limits": f"{graph.limits!r}"} if graph.limits != WidthLimits() else {}),
        }
        known = folder / RUN
        try:
            if known.exists():
                before = read_json(known)
                if not before.keys() & identity.keys():
                    raise FileError(f"{known} was not written by metaprune")
                asked = dict.fromkeys((*identity, "limits", "calls"))
                if changed := [key for key in asked if before.get(key) != identity.get(key)]:
                    raise MetapruneError(
                        f"prune: {folder} holds another run (its {', '.join(changed)} differ); "
                        "name another folder, or delete it"
                    )
            elif not only_look:
                folder.mkdir(parents=True, exist_ok=True)
                write_json(known, {"format": FORMAT, **identity})
        except (FileError, OSError) as error:
            raise MetapruneError(
                f"prune: cannot use the folder {folder} ({error}); name one that can be written"
            ) from error
        return cls(folder)

    def stage(self, name: str) -> Path:
        """Where the checkpoints of a stage lie."""
        return self.path / "checkpoints" / name

    def remember(self, budget: Budget, tree: Mapping[str, Any]) -> None:
        """Keep what was found out of time: measured again, it would be another."""
        write_json(self.path / TIME, {**tree, "for": f"{budget!r}"})


def check(out: Path) -> None:
    """See that a folder has no files of others under the names that a run and its result write.

    Raises:
        MetapruneError: It has.
    """
    reason = taken(out)
    for path in (out / RUN, out / TIME) if reason is None else ():
        if path.exists():
            try:
                ours = read_json(path).keys() & {"method", "for"}
            except FileError:
                ours = set()
            if not ours:
                reason = f"{path} is damaged, or was not written by metaprune; move it away, or name another folder"
    if reason is not None:
        raise MetapruneError(f"prune: {reason}")


def remembered(out: str | Path | None, budget: Budget) -> dict[str, Any] | None:
    """What an earlier start of the run found out of time for a budget; None where it did not.

    Raises:
        MetapruneError: The file that says so is damaged.
    """
    path = Path(out or "") / TIME
    if out is None or not budget.is_timed or not path.is_file():
        return None
    try:
        known = read_json(path)
    except ValueError as error:
        raise MetapruneError(f"prune: {path} is damaged ({error}); delete the folder, or name another") from error
    return known if known.get("for") == f"{budget!r}" else None
