"""Exchanges: widths that bring the cost near to the limit and leave a ranking as little as possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["close"]

_FEW = 200_000
"""Up to so many combinations of widths, all are tried."""

_FEW_AXES = 24
"""With more lanes than this, widths are changed in pairs only."""

_CHUNK = 512
"""So many candidates are looked at together, and then four times as many each time, the cheapest first."""

_DRAWS = 1000
"""So many changes of all widths at once are drawn where changes of a few come no nearer."""


def close(
    widths: Mapping[str, int],
    ladders: Mapping[str, Sequence[int]],
    spread: Mapping[str, Sequence[float]],
    left: Callable[[Tensor], Tensor],
    near: float,
    most: float,
) -> dict[str, int]:
    """Bring the cost near to the limit, leaving the ranking as little as possible.

    What it costs to leave the ranking: the scores of the channels that change sides, as distances from the
    threshold. All combinations of widths are tried where they are few. Else changes of up to three lanes by a step,
    again and again; where those come no nearer (a head, or a trunk beside slim layers, may cost more than three
    other steps make up for), changes of all lanes by up to two steps are drawn, the same each time, and one lane
    after the other goes as far as the limit then allows.

    Args:
        widths: Lane -> width, as the ranking gave it.
        ladders: For each lane, its possible widths, the widest first.
        spread: For each lane and number of channels, the summed distance of their scores from the threshold.
        left: Of widths, shape (candidates, lanes) in the order of `widths`: how far the cost is below the limit.
        near: A cost so near below the limit is not improved further.
        most: More than `left` ever gives.
    """
    names = list(widths)
    start = torch.tensor([ladders[name].index(widths[name]) for name in names], dtype=torch.int64)
    longest = max((len(ladders[name]) for name in names), default=0)
    table = torch.tensor([[*ladders[name], *[ladders[name][-1]] * (longest - len(ladders[name]))] for name in names])
    price = torch.tensor(
        [[abs(spread[n][int(w)] - spread[n][widths[n]]) for w in row] for n, row in zip(names, table, strict=True)]
    )
    rungs = torch.tensor([len(ladders[name]) for name in names])
    lanes = torch.arange(len(names))

    def gaps(places: Tensor) -> Tensor:
        return left(table[lanes, places])

    def combinations(start: Tensor) -> Tensor:
        return torch.cartesian_prod(*(torch.arange(int(count)) for count in rungs)).reshape(-1, len(start))

    def moves(start: Tensor) -> Tensor:
        places = start + _moves(len(start))
        return places[((places >= 0) & (places < rungs)).all(1)]

    def draws(start: Tensor) -> Tensor:
        steps = torch.randint(-2, 3, (_DRAWS, len(start)), generator=torch.Generator().manual_seed(0))
        places = (start + steps).clamp(min=0).minimum(rungs - 1)
        return torch.cat([_widest(places, lane, int(rungs[lane]) - 1, gaps) for lane in range(len(start))])

    few = math.prod(rungs.tolist()) <= _FEW
    untried = [combinations] if few else [moves, draws]
    closest = gaps(start[None])[0]
    while untried:
        places = untried.pop(0)(start)
        places = places[torch.argsort(price[lanes, places].sum(1), stable=True)]
        found, done, count = None, 0, _CHUNK
        while done < len(places):
            some = places[done : done + count]
            below = gaps(some)
            inside = (below >= 0) & (below <= near)
            if inside.any():  # the cheapest of all, since they are in order
                return dict(zip(names, table[lanes, some[int(inside.int().argmax())]].tolist(), strict=True))
            below = torch.where(below >= 0, below, most)
            if below.min() < closest:
                found, closest = some[below.argmin()], below.min()
            done, count = done + count, 4 * count
        if found is not None:
            start = found
            untried = [] if few else [moves, draws]
    return dict(zip(names, table[lanes, start].tolist(), strict=True))


def _widest(places: Tensor, lane: int, last: int, gaps: Callable[[Tensor], Tensor]) -> Tensor:
    """The places with one lane as wide as the limit then allows, or at its narrowest where nothing fits.

    Args:
        places: Steps down from the widest, shape (candidates, lanes).
        lane: Which lane may go anywhere.
        last: Its narrowest place.
        gaps: Of places, how far below the limit they are: shape (candidates,).
    """
    places = places.clone()
    low, high = torch.zeros(len(places), dtype=torch.int64), torch.full((len(places),), last)
    while (low < high).any():
        places[:, lane] = (low + high) // 2
        fits = gaps(places) >= 0
        low = torch.where(fits, low, (places[:, lane] + 1).minimum(high))
        high = torch.where(fits, places[:, lane], high)
    places[:, lane] = low
    return places


@lru_cache(maxsize=4)
def _moves(lanes: int) -> Tensor:
    """Changes of no, one, two or (where lanes are few) three lanes by a step up or down: shape (moves, lanes)."""
    found = []
    for count in range((3 if lanes <= _FEW_AXES else 2) + 1):
        where = torch.combinations(torch.arange(lanes), count) if count else torch.zeros(1, 0, dtype=torch.int64)
        signs = torch.tensor(list(itertools.product((-1, 1), repeat=count)), dtype=torch.int64).reshape(2**count, count)
        moves = torch.zeros(len(where), len(signs), lanes, dtype=torch.int64)
        at = where[:, None].expand(-1, len(signs), -1)
        found.append(moves.scatter(2, at, signs.expand(len(where), -1, -1)).reshape(-1, lanes))
    return torch.cat(found)
