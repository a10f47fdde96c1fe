"""Samples as if a child and a parent were independent, given the rest of the parents: step 1 of
MINT's estimate (`mutual_information`).

A third of the rows is left as it is. Of the others, one half A takes its Y from that row of the
other half B whose Z is nearest to its own.

Example: receivers with Z = 0.1 and 0.9, donors with Z = 0, 1 and 2. The first takes the Y of the
donor at 0, the second that of the donor at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from niwaki.core.errors import UnknownNameError
from niwaki.methods.mint.exact_distances import (
    Factors,
    Grid,
    product,
    side_by_side,
    squared,
    tiles,
)

Resampling = Literal["nearest", "once"]


@dataclass(frozen=True, eq=False)
class Draw:
    """Which rows are used for what.

    Attributes:
        receivers, donors: rows of the halves A and B; receivers take the Y of donors.
        points: rows of A and of the joint sample, (p + q,), in an order that tells nothing of the
            two.
        labels: int32 (p + q,), 1 where a point is a receiver.
        place: (q,), at which points the receivers are, in their order.
        coins: int32 (p + q,), fair.
    """

    receivers: Tensor
    donors: Tensor
    points: Tensor
    labels: Tensor
    place: Tensor
    coins: Tensor

    @classmethod
    def of(cls, samples: int, generator: torch.Generator | None, device: torch.device) -> Draw:
        # drawn on the CPU, so that a seed means the same on every device
        generator = generator or torch.Generator().manual_seed(0)
        rows = torch.randperm(samples, generator=generator, device=generator.device).cpu()
        joint = samples // 3
        receivers, donors = (
            rows[: (samples - joint) // 2],
            rows[(samples - joint) // 2 : samples - joint],
        )
        union = torch.cat([receivers, rows[samples - joint :]])
        order = torch.randperm(len(union), generator=generator, device=generator.device).cpu()
        labels = (order < len(receivers)).int()
        coins = (
            torch.randint(0, 2, (len(union),), generator=generator, device=generator.device)
            .cpu()
            .int()
        )
        place = order.argsort()[: len(receivers)]
        return cls(
            *(part.to(device) for part in (receivers, donors, union[order], labels, place, coins))
        )


@dataclass(frozen=True, eq=False)
class Base:
    """Squared distances over all parents: between points (p + q, p + q), and from receivers to
    donors.
    """

    points: Tensor
    donors: Tensor

    @classmethod
    def of(cls, draw: Draw, grid: Grid, memory: int) -> Base | None:
        """None where it would take too much of the memory."""
        if 8 * len(draw.points) ** 2 > memory // 2:
            return None
        parents = torch.cat(grid.parts, 1)
        points, receivers, donors = (
            parents[draw.points],
            parents[draw.receivers],
            parents[draw.donors],
        )
        within, across = squared(points, points), squared(receivers, donors)
        return cls(product(within), product(across))


class Source:
    """The parents of an estimate: their distances between points, once the receivers have got
    another Y.

    Args:
        grid: all parents, of which `place` is Y and the others are Z.
        base: distances over all parents, where several estimates share them.
    """

    def __init__(
        self, draw: Draw, grid: Grid, place: int, resampling: Resampling, base: Base | None = None
    ) -> None:
        if resampling not in get_args(Resampling):
            raise UnknownNameError("resampling", resampling, get_args(Resampling))
        self._draw, self._grid, self._place, self._base, self._resampling = (
            draw,
            grid,
            place,
            base,
            resampling,
        )

    @property
    def exponent(self) -> int:
        """Of the grid."""
        return self._grid.exponent

    def distances(self) -> tuple[Factors, Tensor | None]:
        """Factors of the squared distances, and what is to be added to their product."""
        draw, y = self._draw, self._grid.parts[self._place]
        taken = y[draw.points]
        given = taken.clone()
        given[draw.place] = y[draw.donors[self._matches()]]
        if self._base is None:
            rest = torch.cat([part[draw.points] for part in self._others()], 1)
            points = torch.cat([given, rest], 1)
            return squared(points, points), None
        return side_by_side(squared(given, given), squared(taken, taken, -1)), self._base.points

    def _others(self) -> list[Tensor]:
        parts = self._grid.parts
        return [part for place, part in enumerate(parts) if place != self._place] or [
            parts[0][:, :0]
        ]

    def _matches(self) -> Tensor:
        """For every receiver the donor whose Z is nearest to its own: int64 (receivers,)."""
        draw, y = self._draw, self._grid.parts[self._place]
        if self._base is None:
            rest = torch.cat(self._others(), 1)
            factors, base = squared(rest[draw.receivers], rest[draw.donors]), None
        else:
            factors, base = squared(y[draw.receivers], y[draw.donors], -1), self._base.donors
        if self._resampling == "once":
            return matched_once(product(factors, base))
        return torch.cat(
            [_nearest(product(factors, base, rows), rows.start) for rows in tiles(*factors)]
        )


def _nearest(distances: Tensor, first: int) -> Tensor:
    """The nearest donor of each receiver; of several, the next one after the receiver's own number,
    so that all get turns.
    """
    best, donor = distances.min(1)
    tied = ((distances == best[:, None]).sum(1) > 1).nonzero().squeeze(1)
    if len(tied):
        donors = distances.shape[1]
        turn = (torch.arange(donors, device=donor.device) - (tied[:, None] + first)) % donors
        donor[tied] = turn.masked_fill(distances[tied] != best[tied, None], donors).argmin(1)
    return donor


def matched_once(distances: Tensor) -> Tensor:
    """Give every receiver a donor of its own, nearest pairs first; donors are at least as many."""
    receivers, donors = distances.shape
    result = torch.full((receivers,), -1, dtype=torch.int64, device=distances.device)
    open_rows = torch.arange(receivers, device=distances.device)
    open_columns = torch.arange(donors, device=distances.device)
    while len(open_rows):
        left = distances[open_rows][:, open_columns]
        wish = _nearest(left, 0)
        # a donor that is wished for by several goes to the nearest of them; who gets none wishes
        # again
        cost = left.gather(1, wish[:, None]).squeeze(1)
        order = cost.argsort(stable=True)
        winner = torch.full((len(open_columns),), -1, dtype=torch.int64, device=distances.device)
        winner[wish[order.flip(0)]] = order.flip(0)
        taken = winner >= 0
        result[open_rows[winner[taken]]] = open_columns[taken]
        open_rows, open_columns = (result < 0).nonzero().squeeze(1), open_columns[~taken]
    return result
