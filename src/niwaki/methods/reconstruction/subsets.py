"""Which units to keep of those that can be foretold from one another: elimination one by one, and
exchanges.

With C the covariance of all units where a consumer reads them and S the kept ones, the least
squares of all units on S leaves the covariance R = C - C·[S]·P·[S]ᵀ·C, P = (C_SS)⁻¹, of which the
consumer sees tr(G·R), G the Gram matrix of its weights. Let z be the columns of M = C·[S]·P for
kept units and those of R for the others. One table A with -P, M and R for its blocks (C, swept over
S) and the products B = zᵀ·G·z say what every step costs:

    unit i goes:    B_ii / p_i                                            p_i = -A_ii
    unit j comes:  -B_jj / A_jj
    both:           B_ii/p_i - (B_jj + 2·B_ij·m + B_ii·m²) / (A_jj + m²·p_i),   m = A_ji/p_i

Either step changes A by rank one and B by rank two. A group with several consumers has a table for
each; costs add up.

Source: the sweep operator, Goodnight, A Tutorial on the SWEEP Operator, The American Statistician
33, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-300
ENOUGH = 1e-6  # of the signal; a smaller gain is not worth an exchange
Seen = tuple[Tensor, Tensor]  # covariance of the units and Gram matrix of one consumer


@dataclass(frozen=True, eq=False)
class Tableau:
    """A and B of the module's first lines, for one consumer: (width, width) each, changed in
    place.
    """

    swept: Tensor
    products: Tensor

    @classmethod
    def of(cls, covariance: Tensor, gram: Tensor, there: Tensor) -> Tableau:
        """Where the units that the mask says are kept."""
        kept, gone = there.nonzero().flatten(), (~there).nonzero().flatten()
        precision = torch.linalg.inv(covariance[kept][:, kept])
        foretold = covariance[:, kept] @ precision  # M
        left = covariance[:, gone] - foretold @ covariance[kept][:, gone]
        swept = torch.empty_like(covariance)
        swept[kept[:, None], kept] = -precision
        swept[gone[:, None], kept] = foretold[gone]
        swept[kept[:, None], gone] = foretold[gone].T
        swept[gone[:, None], gone] = left[gone]
        columns = torch.empty_like(covariance)
        columns[:, kept], columns[:, gone] = foretold, left
        return cls(swept, columns.T @ gram @ columns)

    def pivot(self, unit: int) -> None:
        """A kept unit goes, or one that is gone comes."""
        column = self.swept[:, unit].clone()
        own = float(column[unit])
        share = column / own
        self.swept.sub_(torch.outer(column, share))
        self.swept[:, unit] = self.swept[unit] = column / abs(own)
        self.swept[unit, unit] = -1 / own
        share[unit] = 1 - 1 / abs(own)
        reach = self.products[unit].clone()
        half = torch.outer(reach - reach[unit] / 2 * share, share)
        self.products.sub_(half).sub_(half.T)

    def losses(self, kept: Tensor) -> Tensor:
        """What is lost by each kept unit's going: (kept,)."""
        return self.products.diagonal()[kept] / (-self.swept.diagonal()[kept]).clamp(min=TINY)

    def gains(self) -> Tensor:
        """What is won by each unit's coming; of kept ones it means nothing: (width,)."""
        return self.products.diagonal() / self.swept.diagonal().clamp(min=TINY)

    def unexplained(self, gram: Tensor, gone: Tensor) -> float:
        """tr(G·R), with a mask of the units that are not kept."""
        return float((gram[gone][:, gone] * self.swept[gone][:, gone]).sum())

    def exchanges(self, kept: Tensor, gone: Tensor) -> Tensor:
        """What is lost by each kept unit's going for each other's coming: (kept, gone); below zero
        where that is better.
        """
        own = (-self.swept.diagonal()[kept]).clamp(min=TINY)[:, None]
        moved = self.swept[kept][:, gone] / own
        loses = self.products.diagonal()[kept][:, None]
        gains = self.products.diagonal()[gone] + moved * (
            2 * self.products[kept][:, gone] + moved * loses
        )
        return loses / own - gains / (self.swept.diagonal()[gone] + moved.square() * own).clamp(
            min=TINY
        )


def tableaus(seen: Sequence[Seen], there: Tensor, ridge: float) -> list[Tableau]:
    """One for each consumer, with a ridge that is a share of the mean variance."""
    eye = torch.eye(len(there), dtype=torch.float64, device="cpu")
    levels = [float(covariance.diagonal().mean()) for covariance, _ in seen]
    return [
        Tableau.of(covariance + ridge * (level if level > 0 else 1.0) * eye, gram, there)
        for (covariance, gram), level in zip(seen, levels, strict=True)
    ]


def signal(seen: Sequence[Seen]) -> float:
    """All that the consumers read."""
    return sum(float((gram * covariance).sum()) for covariance, gram in seen)


def eliminated(seen: Sequence[Seen], ridge: float) -> Tensor:
    """What is lost of the signal by each unit's going, in the order of going, and never falling:
    (width,).
    """
    width, whole = len(seen[0][0]), signal(seen)
    lost, most = torch.zeros(width, dtype=torch.float64, device="cpu"), 0.0
    if not whole > 0:
        return lost
    there = torch.ones(width, dtype=torch.bool, device="cpu")
    tables = tableaus(seen, there, ridge)
    every = torch.arange(width, device="cpu")
    for step in range(width):
        losses = torch.stack([table.losses(every) for table in tables]).sum(0)
        unit = int(losses.masked_fill(~there, torch.inf).argmin())
        most = max(most, float(losses[unit]) / whole)
        lost[unit] = (
            most * (1 + 1e-9 * step) + 1e-15 * step
        )  # of equal ones, the later stays longer
        there[unit] = False
        for table in tables:
            table.pivot(unit)
    return lost


def exchanged(seen: Sequence[Seen], units: Sequence[int], ridge: float, most: int) -> list[int]:
    """As many units as are given, with no more left unexplained: the best exchange of two, again
    and again.

    That ends where no single exchange is better, which depends on the start. A second start is the
    greedy choice from nothing, always the unit that explains most; the better end is taken.

    Args:
        units: the kept ones.
        most: exchanges at most, from either start.

    Returns:
        the kept ones, ascending.
    """
    whole = signal(seen)
    there = torch.zeros(len(seen[0][0]), dtype=torch.bool, device="cpu").index_fill(
        0, torch.tensor(units, device="cpu"), True
    )
    if not whole > 0 or bool(there.all()) or not most:
        return list(units)
    ends = []
    for start in (there, _greedy(seen, len(units), ridge)):
        tables = tableaus(seen, start, ridge)
        _descend(tables, start, most, ENOUGH * whole)
        left = sum(
            table.unexplained(gram, ~start) for table, (_, gram) in zip(tables, seen, strict=True)
        )
        ends.append((left, start))
    best = ends[0] if ends[0][0] <= ends[1][0] + ENOUGH * whole else ends[1]
    return best[1].nonzero().flatten().tolist()


def _descend(tables: Sequence[Tableau], there: Tensor, most: int, enough: float) -> None:
    """Exchange units of a mask, in place, as long as that gains enough."""
    for _ in range(most):
        kept, gone = there.nonzero().flatten(), (~there).nonzero().flatten()
        costs = torch.stack([table.exchanges(kept, gone) for table in tables]).sum(0)
        best = int(costs.argmin())
        if not float(costs.flatten()[best]) < -enough:
            return
        for unit in (int(gone[best % len(gone)]), int(kept[best // len(gone)])):
            there[unit] = not there[unit]
            for table in tables:
                table.pivot(unit)


def _greedy(seen: Sequence[Seen], count: int, ridge: float) -> Tensor:
    """A mask of so many units, each the one that explains most of what those before it leave."""
    there = torch.zeros(len(seen[0][0]), dtype=torch.bool, device="cpu")
    tables = tableaus(seen, there, ridge)
    for _ in range(count):
        gains = torch.stack([table.gains() for table in tables]).sum(0)
        unit = int(gains.masked_fill(there, -torch.inf).argmax())
        there[unit] = True
        for table in tables:
            table.pivot(unit)
    return there
