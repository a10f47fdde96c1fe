"""One tree by Borůvka's algorithm is the one that Prim's finds, or nothing is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from niwaki.methods.mint.single_tree import crossing_edges
from niwaki.methods.mint.spanning_tree import DistanceTable, _Walk


def prim(distances: Tensor, labels: Tensor, coins: Tensor) -> int:
    points = len(distances)
    table = DistanceTable(1, points, 1, torch.device("cpu"))
    table[0].copy_(distances)
    walk = _Walk(table, torch.zeros(1, 1, dtype=torch.int64), labels, coins)
    for step in range(points - 1):
        walk.join(step)
    return int(walk.count()[0])


def drawn(seed: int, *, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances of points on a grid, or anywhere; samples; coins."""
    generator = torch.Generator().manual_seed(seed)
    points, features = (int(torch.randint(2, most, (1,), generator=generator)) for most in (90, 6))
    rows = torch.randn(points, features, generator=generator, dtype=torch.float64)
    rows = (rows * 2).round() if whole else rows
    distances = (rows[:, None] - rows[None]).square().sum(-1).float()
    labels, coins = (torch.randint(0, 2, (points,), generator=generator).int() for _ in range(2))
    return distances, labels, coins


def test_the_count_is_that_of_prims_tree() -> None:
    counts = [drawn(seed, whole=False) for seed in range(40)]
    single = [crossing_edges(distances, labels) for distances, labels, _ in counts]
    assert single == [prim(*one) for one in counts]


def test_where_edges_are_equally_long_nothing_is_said_or_the_same() -> None:
    silent = 0
    for seed in range(40):
        distances, labels, coins = drawn(seed, whole=True)
        found = crossing_edges(distances, labels)
        silent += found is None
        assert found in (None, prim(distances, labels, coins))
    assert silent > 20


def test_by_hand() -> None:
    places = torch.tensor([0.0, 1.0, 5.0])
    distances = (places[:, None] - places).square()
    assert crossing_edges(distances, torch.tensor([0, 1, 1], dtype=torch.int32)) == 1
    assert crossing_edges(distances, torch.tensor([0, 1, 0], dtype=torch.int32)) == 2


@pytest.mark.parametrize("points", [1, 2])
def test_one_point_has_no_edge_and_two_have_one(points: int) -> None:
    distances = torch.ones(points, points)
    labels = torch.tensor([0, 1][:points], dtype=torch.int32)
    assert crossing_edges(distances, labels) == points - 1
