"""Clusters of units that are computed alike: of every cluster one unit stays.

The clusters are nested (agglomerative clustering), so that no budget need be known: two clusters at
a time are merged, always those whose union adds the least to Σ |unit - mean of its cluster|², with
units as niwaki.methods.folding.likeness describes them. Each cluster has a representative. Of the
two representatives, the one that is nearer to all units of the union stays, and the other is
scored: by what the union added, as a share of the spread of all units. So the best k units
represent k clusters. A representative r is near where Σ |unit - its best multiple of r|² is small,
if multiples of a unit can be read in its place; else where Σ |unit - r|² is small. Together with
the compensation `fold` this is folding.

Example: three units described by the numbers 1, 2 and 6, with a mean of 3 and a spread of
4 + 1 + 9 = 14. The first union is that of 1 and 2; it adds 0.5² + 0.5² = 0.5. Both represent it
equally well, so the first stays, and 2 scores 0.5/14. The second union adds 13.5. With r = 1 the
sum is 0 + 1 + 25 = 26, with r = 6 it is 25 + 16 + 0 = 41: 1 stays, 6 scores 13.5/14. The unit that
is left scores twice as much as the last union.

Source: Wang et al., Forget the Data and Fine-Tuning! Just Fold the Network to Compress, ICLR 2025,
who cluster by k-means, with a number of clusters that is known; Ward, Hierarchical Grouping to
Optimize an Objective Function, JASA 1963, which lessens the same sum; by chains of nearest
neighbours: Murtagh, A Survey of Recent Advances in Hierarchical Clustering Algorithms, 1983.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.folding.likeness import likeness

Table = npt.NDArray[np.float64]
Union = tuple[float, int, int]  # what it adds, and a member of each of the two clusters


@CRITERIA.register("fold")
@dataclass(frozen=True)
class FoldClusters(Criterion):
    """Each unit's score: the share of the spread of a group's units that is lost when another unit
    represents it too, after all unions before.
    """

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return torch.from_numpy(
            stood_for(likeness(group, evidence.state).numpy(), multiples=group.multiplies)
        )


def stood_for(gram: Table, *, multiples: bool) -> Table:
    """Scores (width,) from the Gram matrix of the units: the k best units represent k clusters.

    >>> units = np.array([[1.0], [2.0], [6.0]])
    >>> (14 * stood_for(units @ units.T, multiples=False)).round(6).tolist()
    [27.0, 0.5, 13.5]
    """
    width = len(gram)
    # how well unit r predicts a cluster is a sum over its members, so those of a union add up
    predicted = np.square(np.maximum(gram, 0)) if multiples else 2 * gram
    own = np.maximum(gram.diagonal(), 1e-300)
    spread = max(np.trace(gram) - gram.sum() / width, 1e-300)
    clusters = {
        unit: (unit, predicted[unit].copy(), 1) for unit in range(width)
    }  # root → its representative, Σ predicted, members
    root = list(range(width))
    scores, most = np.zeros(width), 0.0
    for step, (added, one, other) in enumerate(sorted(unions(gram), key=lambda union: union[0])):
        a, b = _root(root, one), _root(root, other)
        (first, sums, many), (second, more, few) = clusters.pop(a), clusters.pop(b)
        sums, many = sums + more, many + few
        gains = [
            sums[unit] / own[unit] if multiples else sums[unit] - many * own[unit]
            for unit in (first, second)
        ]
        stays, goes = (
            (first, second) if (-gains[0], first) <= (-gains[1], second) else (second, first)
        )
        most = max(most, added / spread)
        scores[goes] = (
            most * (1 + 1e-9 * step) + 1e-15 * step
        )  # of equal ones, the later stays longer
        root[a] = b
        clusters[b] = (stays, sums, many)
    (last, _, _) = next(iter(clusters.values()))
    scores[last] = max(2 * most, 1e-15 * width)
    return scores


def _root(root: list[int], unit: int) -> int:
    while root[unit] != unit:
        root[unit] = root[root[unit]]
        unit = root[unit]
    return unit


def unions(gram: Table) -> list[Union]:
    """All unions of Ward's clustering, in no order."""
    width = len(gram)
    sizes = np.ones(width)
    squares = gram.diagonal()
    cost = (
        np.maximum(squares[:, None] + squares - 2 * gram, 0) / 2
    )  # what the union of two units adds
    np.fill_diagonal(cost, np.inf)
    chain: list[int] = []
    there = np.ones(width, dtype=bool)
    merges: list[Union] = []
    while len(merges) < width - 1:
        if not chain:
            chain = [int(there.argmax())]
        row = cost[chain[-1]]
        nearest = int(row.argmin())
        if len(chain) == 1 or row[nearest] < row[chain[-2]]:
            chain.append(nearest)
            continue
        one, other = chain.pop(), chain.pop()  # nearest to each other
        added = float(cost[one, other])
        merges.append((added, one, other))
        total = sizes[one] + sizes[other] + sizes
        # Lance and Williams' formula; a cluster that is gone is infinitely far
        new = (
            (sizes[one] + sizes) * cost[one] + (sizes[other] + sizes) * cost[other] - sizes * added
        ) / total
        sizes[other] += sizes[one]
        there[one] = False
        new[[one, other]] = np.inf
        cost[other], cost[:, other] = new, new
        cost[one], cost[:, one] = np.inf, np.inf
    return merges
