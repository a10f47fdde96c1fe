"""Euclidean minimal spanning trees of many point sets at once, and how many of their edges join two
samples.

Prim's algorithm on dense squared distances, one step for all trees together. Everything per step is
a handful of vector operations over (trees, points):

* an estimate's distances are a sum of a few matrices that other estimates share; the rows that are
  needed next are gathered and added by one embedding bag, so that the sums are never stored;
* points that are in the tree are kept out by a very large number in one more row of that sum;
* where there is but one tree, Borůvka's algorithm finds it sooner
  (niwaki.methods.mint.single_tree);
* which sample the nearest tree point belongs to rides along in the lowest bit of the distance.
  Non-negative floats are ordered as their bits are, so the bit breaks ties only. It is xor-ed with
  a fair coin a point, else ties would prefer (or avoid) edges that join the samples.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from niwaki.methods.mint.single_tree import crossing_edges

WALL = 2.0**127  # above every squared distance; an infinity with its lowest bit set would be NaN


class DistanceTable:
    """Squared distances between the points of several sets, float32, to be summed as estimates need
    them.

    Args:
        matrices: how many (points, points) matrices it holds.
        trees: how many trees will grow from it at once at most.
    """

    def __init__(self, matrices: int, points: int, trees: int, device: torch.device) -> None:
        self.points = points
        self._columns = math.ceil(math.sqrt(points))
        self._lines = math.ceil(points / self._columns)
        self._width = (
            self._columns * self._lines
        )  # the minimum of a row is taken in two steps, so rows are padded
        self._matrices = matrices
        self._rows = torch.empty(
            matrices * points + trees, self._width, dtype=torch.float32, device=device
        )
        self._rows[:, points:] = 0

    @staticmethod
    def bytes(matrices: int, points: int) -> int:
        """Memory of a table, about."""
        return 4 * matrices * points * (points + 2 * math.ceil(math.sqrt(points)))

    def __getitem__(self, matrix: int) -> Tensor:
        """One matrix (points, points), to be written to."""
        start = matrix * self.points
        return self._rows[start : start + self.points, : self.points]

    def cross_edges(self, picks: Tensor, labels: Tensor, coins: Tensor) -> Tensor:
        """Grow one tree an estimate, and count the edges that join the two samples.

        Args:
            picks: int64 (trees, summands), the matrices whose sum is an estimate's squared
                distances.
            labels: int32 (points,), 0 or 1: the sample of each point.
            coins: int32 (points,), 0 or 1, drawn by chance; they break ties.

        Returns:
            int64 (trees,). With ties the tree is one of several of the same, smallest length.
        """
        if len(picks) == 1 and picks.device.type == "cpu":
            first, *others = picks[0].tolist()
            distances = sum((self[matrix] for matrix in others), self[first])
            single = crossing_edges(distances, labels)
            if single is not None:
                return torch.tensor([single], device=picks.device)
        walk = _Walk(self, picks, labels, coins)
        for step in range(self.points - 1):
            walk.join(step)
        return walk.count()


class _Walk:
    """All trees on their way; the first point of each is point 0."""

    def __init__(self, table: DistanceTable, picks: Tensor, labels: Tensor, coins: Tensor) -> None:
        device, trees = picks.device, len(picks)
        self._rows, self._width = table._rows, table._width
        self._shape = (trees, table._lines, table._columns)
        self._columns = table._columns
        self._labels, self._points = labels, table.points
        self._coins = F.pad(coins, (0, self._width - table.points))
        self._each = torch.arange(trees, device=device)
        self._starts = self._each * self._width
        first_wall = table._matrices * table.points
        self._walls = self._rows[first_wall : first_wall + trees]
        self._walls.zero_()
        self._walls[:, table.points :] = WALL
        walls = (first_wall + self._each)[:, None]
        self._bases = torch.cat([picks * table.points, walls], 1)
        self._moves = torch.tensor([1] * picks.shape[1] + [0], device=device)
        self._nearest = torch.full((trees, self._width), WALL, device=device)
        self._joined = torch.zeros(table.points, trees, dtype=torch.int64, device=device)
        self._bits = torch.zeros(table.points, trees, dtype=torch.int32, device=device)

    def join(self, step: int) -> None:
        """Let every tree look out from its newest point, then take in the point that is nearest to
        it.
        """
        newest = self._joined[step]
        places = self._starts + newest
        self._walls.view(-1).index_fill_(0, places, WALL)
        self._nearest.view(-1).index_fill_(0, places, WALL)
        seen = F.embedding_bag(self._bases + newest[:, None] * self._moves, self._rows, mode="sum")
        bits = seen.view(torch.int32)
        bits.bitwise_and_(-2).bitwise_or_(self._coins).bitwise_xor_(self._labels[newest][:, None])
        torch.minimum(self._nearest, seen, out=self._nearest)
        nearest = self._nearest.view(torch.int32).view(self._shape)
        column = nearest.amin(1).argmin(1)
        line = nearest[self._each, :, column].argmin(1)
        chosen = torch.add(column, line, alpha=self._columns, out=self._joined[step + 1])
        torch.take(self._nearest.view(torch.int32), self._starts + chosen, out=self._bits[step + 1])

    def count(self) -> Tensor:
        """Edges whose ends are of different samples."""
        points = self._joined[1:]
        other_end = (self._bits[1:] & 1) ^ self._coins[points]
        return (other_end != self._labels[points]).sum(0)
