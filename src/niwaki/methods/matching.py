"""Matching: Neuron Merging in which no kept unit takes more than its share of those that go.

Merging gives every dropped unit to the kept one that is most like it, and a few kept units may take
most of them. Here each kept unit takes at most ⌈dropped/kept⌉, and of all such assignments the one
with the least sum of distances is taken; scales, distances and thresholds are those of merging.

Source: the assignment problem, by shortest augmenting paths: Jonker and Volgenant, A Shortest
Augmenting Path Algorithm for Dense and Sparse Linear Assignment Problems, Computing 38, 1987.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.neuron_merging import Merge, Table

NEVER = 1e6  # for distances, which are of the order of one


@COMPENSATIONS.register("match")
@dataclass(frozen=True)
class Match(Merge):
    """Merging one to one, or few to one where more go than stay; the settings are those of
    merging.
    """

    done: ClassVar[str] = "matched"

    def _choose(self, table: Table) -> Tensor:
        dropped, kept = table.distance.shape
        if not dropped:
            return torch.zeros(0, dtype=torch.int64, device="cpu")
        cost = table.distance.masked_fill(~table.usable, NEVER)
        share = -(-dropped // kept)
        return torch.from_numpy(assigned(cost.repeat(1, share).numpy())) % kept


def assigned(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """A column of its own for every row, with the least sum of costs: (rows,), for a table of rows
    ≤ columns.
    """
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    taker = np.full(columns, -1)
    for start in range(rows):
        row, reach, before, seen = (
            start,
            np.full(columns, np.inf),
            np.full(columns, -1),
            np.zeros(columns, dtype=bool),
        )
        tree, column = [start], -1  # rows that are reached, by paths of least reduced cost
        while row >= 0:
            reduced = cost[row] - row_price[row] - column_price
            nearer = ~seen & (reduced < reach)
            reach[nearer], before[nearer] = reduced[nearer], column
            step = reach[~seen].min()
            row_price[tree] += step
            column_price[seen] -= step
            reach[~seen] -= step
            column = int(np.where(seen, np.inf, reach).argmin())
            seen[column] = True
            row = int(taker[column])
            tree.append(row)
        while column >= 0:  # back along the path, everyone moves up
            previous = int(before[column])
            taker[column] = start if previous < 0 else taker[previous]
            column = previous
    matches = np.empty(rows, dtype=np.int64)
    matches[taker[taker >= 0]] = (taker >= 0).nonzero()[0]
    return matches
