"""The one place that says which methods there are: public names, command line, contracts and documentation read it.

A method of this package is an import below, and nothing else anywhere. Methods of other packages are their entry points
in the group `metaprune.methods`: a name for the command line, and the class.

    [project.entry-points."metaprune.methods"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from metaprune.methods.dhp.dhp import DHP as DHP
from metaprune.methods.graph_metanetwork.graph_metanetwork import GraphMetanetwork as GraphMetanetwork
from metaprune.methods.intra_fusion.intra_fusion import IntraFusion as IntraFusion
from metaprune.methods.magnitude.magnitude import Magnitude as Magnitude
from metaprune.methods.magnitude.magnitude import Random as Random
from metaprune.methods.magnitude.magnitude import Uniform as Uniform
from metaprune.methods.metapruning.metapruning import MetaPruning as MetaPruning
from metaprune.methods.method import Method
from metaprune.methods.taylor.taylor import Taylor as Taylor
from metaprune.methods.transportation.transportation import Transportation as Transportation

GROUP = "metaprune.methods"
"""The group of entry points in which other packages offer methods."""


class Others(NamedTuple):
    """The methods of other packages, by their names on the command line; and in a line each, what cannot be used."""

    methods: Mapping[str, type[Method]]
    broken: Mapping[str, str]


def others() -> Others:
    """What the packages that are installed here offer. Their code is imported; what fails is said, never raised."""
    methods: dict[str, type[Method]] = {}
    broken: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            found = entry.load()
            wrong = _lacking(found)
        except (Exception, SystemExit) as error:
            found, wrong = None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if entry.name in METHODS or entry.name in methods:
            wrong = "another method has this name"
        if wrong is None:
            methods[entry.name] = found
        else:
            owner = f"of the package {entry.dist.name}" if entry.dist is not None else entry.value
            said = f"method {entry.name!r} {owner} cannot be used ({wrong}); mend or uninstall the package"
            broken.setdefault(entry.name, said)
    return Others(methods, broken)


def _lacking(value: Any) -> str | None:
    """What a value lacks to be a method; None where it is one."""
    if not isinstance(value, type):
        return f"expected a class, got {type(value).__name__}"
    if not is_dataclass(value):
        return f"{value.__name__} is no dataclass"
    missing = [word for word in ("name", "reference", "find") if not hasattr(value, word)]
    return f"{value.__name__} has no {', '.join(missing)}" if missing else None


def word(method: type[Method]) -> str:
    """What a method of this package is called on the command line: "graph metanetwork" is graph_metanetwork."""
    return re.sub(r"\W+", "_", method.name.lower())


def decides_by(method: type[Method]) -> str:
    """What a method decides by: "weights", "data" (of the task, without training) or "training"."""
    if not (hasattr(method, "scores") and hasattr(method, "asks_data")):
        return "training"
    return "data" if method.asks_data else "weights"


def first_line(method: type[Method]) -> str:
    """The first line of its docstring."""
    return next(iter((method.__doc__ or method.name).strip().splitlines()))


METHODS: dict[str, type[Method]] = {word(each): each for each in list(vars().values()) if _lacking(each) is None}
"""Name on the command line -> class, of the methods of this package."""
