"""Conditional geometric mutual information: against brute force, against analytic truth, and what
its docstring promises.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.methods.mint import exact_distances
from niwaki.methods.mint.mutual_information import conditional_mutual_information, dependencies
from niwaki.methods.mint.resampling import Draw, Resampling, matched_once
from niwaki.methods.mint.spanning_tree import DistanceTable

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def union_find_tree(distances: Tensor, order: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Kruskal over all edges in the given order: O(n³) with this plain relabelling, and plainly
    right.
    """
    component = list(range(len(distances)))
    edges = []
    for i, j in order:
        if component[i] != component[j]:
            old, new = component[j], component[i]
            component = [new if c == old else c for c in component]
            edges.append((i, j))
    return edges


def brute_force(points: Tensor, labels: Tensor) -> tuple[int, int]:
    """The fewest and the most edges between the samples that a minimal spanning tree can have."""
    distances = (points[:, None] - points[None]).square().sum(-1)
    pairs = list(itertools.combinations(range(len(points)), 2))
    counts = []
    for preferred in (0, 1):
        order = sorted(
            pairs,
            key=lambda e: (float(distances[e]), int(labels[e[0]] != labels[e[1]]) != preferred),
        )
        edges = union_find_tree(distances, order)
        counts.append(sum(int(labels[i] != labels[j]) for i, j in edges))
    return counts[0], counts[1]


def test_two_hundred_small_trees_agree_with_brute_force_ties_among_them() -> None:
    tied = 0
    for seed in range(200):
        generator = seeded(seed)
        n = int(torch.randint(2, 24, (1,), generator=generator))
        grid = seed % 2 == 0  # points on a small grid: many ties, and equal points
        points = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        points = (2 * points).round() if grid else points
        labels = torch.randint(0, 2, (n,), generator=generator, dtype=torch.int32)
        table = DistanceTable(1, n, 1, torch.device("cpu"))
        table[0].copy_((points[:, None] - points[None]).square().sum(-1))
        coins = torch.randint(0, 2, (n,), generator=generator, dtype=torch.int32)
        (found,) = table.cross_edges(torch.zeros(1, 1, dtype=torch.int64), labels, coins).tolist()
        fewest, most = brute_force(points, labels)
        assert fewest <= found <= most, seed
        tied += fewest < most
        assert grid or fewest == most
    assert tied > 40


def test_trees_of_summed_distances_are_those_of_the_points_side_by_side() -> None:
    generator = seeded(5)
    parts = [torch.randn(40, 2, generator=generator, dtype=torch.float64) for _ in range(4)]
    labels = torch.randint(0, 2, (40,), generator=generator, dtype=torch.int32)
    table = DistanceTable(4, 40, 4, torch.device("cpu"))
    for place, part in enumerate(parts):
        table[place].copy_((part[:, None] - part[None]).square().sum(-1))
    picks = torch.tensor([[0, 2], [0, 3], [1, 2], [1, 3]])
    found = table.cross_edges(picks, labels, torch.zeros_like(labels)).tolist()
    for (a, b), count in zip(picks.tolist(), found, strict=True):
        assert brute_force(torch.cat([parts[a], parts[b]], 1), labels) == (count, count)


def by_the_definition(x: Tensor, y: Tensor, z: Tensor, draw: Draw) -> float:
    """The estimator row by row, on the given split."""
    resampled = []
    for row in draw.receivers.tolist():
        nearest = min(
            draw.donors.tolist(), key=lambda other: float((z[row] - z[other]).square().sum())
        )
        resampled.append(torch.cat([x[row], y[nearest], z[row]]))
    used = set(draw.receivers.tolist()) | set(draw.donors.tolist())
    joint = [torch.cat([x[row], y[row], z[row]]) for row in range(len(x)) if row not in used]
    q, p = len(resampled), len(joint)
    labels = torch.tensor([1] * q + [0] * p)
    fewest, most = brute_force(torch.stack(resampled + joint), labels)
    assert fewest == most
    return max(0.0, 1 - fewest * (p + q) / (2 * p * q))


@pytest.mark.parametrize("seed", range(6))
def test_the_value_is_that_of_the_definition(seed: int) -> None:
    generator = seeded(seed)
    z = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    x = y + 0.3 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    found = conditional_mutual_information(x, y, z, generator=seeded(seed))
    wanted = by_the_definition(x, y, z, Draw.of(60, seeded(seed), torch.device("cpu")))
    assert found.item() == pytest.approx(wanted, abs=1e-12)


def test_the_split_is_in_three_and_every_row_is_used_once() -> None:
    draw = Draw.of(2500, seeded(0), torch.device("cpu"))
    joint = set(draw.points[draw.labels == 0].tolist())
    assert (len(draw.receivers), len(draw.donors), len(joint)) == (833, 834, 833)
    assert joint | set(draw.receivers.tolist()) | set(draw.donors.tolist()) == set(range(2500))
    assert torch.equal(draw.points[draw.place], draw.receivers)
    assert bool((draw.labels[draw.place] == 1).all())


def gaussians(seed: int, samples: int = 2500) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(seed)
    child, parent, rest = (torch.randn(samples, width, generator=generator) for width in (8, 8, 56))
    return child, parent, rest


@pytest.mark.parametrize(("resampling", "bound"), [("nearest", 0.08), ("once", 0.03)])
def test_independent_variables_score_next_to_nothing(resampling: Resampling, bound: float) -> None:
    values = []
    for seed in range(20):
        values.append(
            conditional_mutual_information(
                *gaussians(seed), generator=seeded(seed), resampling=resampling
            )
        )
    assert torch.stack(values).mean().item() <= bound


@pytest.mark.parametrize("resampling", ["nearest", "once"])
def test_the_score_grows_with_the_correlation(resampling: Resampling) -> None:
    x, y, z = gaussians(0, 1500)
    children = torch.stack(
        [rho * y + (1 - rho**2) ** 0.5 * x for rho in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)]
    )
    runs = [
        conditional_mutual_information(
            children, y, z[:, :8], generator=seeded(seed), resampling=resampling
        )
        for seed in range(4)
    ]
    mean = torch.stack(runs).mean(0)
    assert bool((mean.diff() > 0).all()), mean
    assert mean[-1] > 0.3


def test_what_the_rest_already_tells_is_not_counted() -> None:
    """X and Y are both noisy copies of Z: dependent, but hardly so given Z."""
    generator = seeded(1)
    z = torch.randn(1500, 2, generator=generator)
    x, y = (z + 0.5 * torch.randn(1500, 2, generator=generator) for _ in range(2))
    given_z = conditional_mutual_information(x, y, z)
    alone = conditional_mutual_information(x, y, z[:, :0])
    assert given_z < 0.1 < alone - 0.1


def test_pairs_of_groups_are_the_estimates_one_by_one() -> None:
    generator = seeded(2)
    parents = [torch.randn(90, width, generator=generator) for width in (3, 1, 4, 2)]
    children = [
        parents[1] + 0.2 * torch.randn(90, 1, generator=generator),
        parents[2].relu(),
        100 * parents[0][:, :2],
    ]
    found = dependencies(children, parents, generator=seeded(7))
    assert found.shape == (3, 4)
    for c, g in itertools.product(range(3), range(4)):
        rest = torch.cat([parent for place, parent in enumerate(parents) if place != g], 1)
        one = conditional_mutual_information(children[c], parents[g], rest, generator=seeded(7))
        assert found[c, g] == one


@pytest.mark.parametrize("memory", [1, 2 * DistanceTable.bytes(1, 60), 2**29])
@pytest.mark.parametrize("resampling", ["nearest", "once"])
def test_neither_batch_nor_chunks_change_a_bit(memory: int, resampling: Resampling) -> None:
    generator = seeded(3)
    child = torch.randn(3, 1, 90, 2, generator=generator)
    parent = torch.randn(1, 2, 90, 3, generator=generator) + child[:1, :, :, :1]
    rest = torch.randn(1, 1, 90, 4, generator=generator)
    settings_: dict[str, Any] = {"resampling": resampling, "memory": memory}
    together = conditional_mutual_information(child, parent, rest, **settings_)
    assert together.shape == (3, 2)
    for c, g in itertools.product(range(3), range(2)):
        one = conditional_mutual_information(
            child[c, 0], parent[0, g], rest[0, 0], resampling=resampling
        )
        assert together[c, g] == one
    rows = conditional_mutual_information(child[:, 0], parent[0, [0, 1, 0]], rest[0], **settings_)
    assert rows.tolist() == [together[0, 0], together[1, 1], together[2, 0]]
    assert torch.equal(together, dependencies_of(child, parent, rest, resampling, memory))


def dependencies_of(
    child: Tensor, parent: Tensor, rest: Tensor, resampling: Resampling, memory: int
) -> Tensor:
    columns = [
        dependencies(
            list(child[:, 0]), [parent[0, g], rest[0, 0]], resampling=resampling, memory=memory
        )[:, 0]
        for g in range(parent.shape[1])
    ]
    return torch.stack(columns, 1)


def test_deterministic_for_a_seed_and_not_the_same_for_another() -> None:
    x, y, z = gaussians(4, 300)
    first, again, other = (
        conditional_mutual_information(x, x + y, z, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert first == again != other
    state = torch.get_rng_state()
    assert conditional_mutual_information(x, x + y, z) == conditional_mutual_information(
        x, x + y, z, generator=seeded(0)
    )
    assert torch.equal(state, torch.get_rng_state())


def test_threads_change_nothing() -> None:
    x, y, z = gaussians(4, 600)
    one = conditional_mutual_information(x, x + y, z)
    torch.set_num_threads(2)
    assert conditional_mutual_information(x, x + y, z) == one


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_the_activations_does_not_matter(scale: float) -> None:
    x, y, z = (part.double() for part in gaussians(6, 200))
    plain = conditional_mutual_information(x, x + y, z)
    power = 2.0 ** round(torch.tensor(scale).double().log2().item())
    assert conditional_mutual_information(power * x, power * (x + y), power * z) == plain


def test_equal_points_are_at_distance_zero_though_far_from_the_origin() -> None:
    """|a|² + |b|² - 2ab of rows near 10⁴ loses the distance in float32; on the grid nothing is
    lost.
    """
    rows = torch.randn(40, 3, generator=seeded(8)) + 1e4
    grid = exact_distances.on_grid([torch.cat([rows, rows])], torch.device("cpu"))
    left, right = exact_distances.squared(grid.parts[0], grid.parts[0])
    distances = left @ right.T
    assert bool((distances.diagonal(40) == 0).all())
    assert torch.equal(distances, distances.T)
    wanted = torch.cdist(rows.double(), rows.double()).square()
    torch.testing.assert_close(
        distances[:40, :40] * 4.0**-grid.exponent, wanted, rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["all equal", "two values", "many zeros"])
def test_ties_favour_neither_side(kind: str) -> None:
    """Independent variables with many equal points: a tree that prefers edges within a sample would
    score near one.
    """
    values = []
    for seed in range(12):
        x, y, z = (part[:, :2] for part in gaussians(seed, 450))
        if kind == "all equal":
            x, y, z = (torch.ones_like(part) for part in (x, y, z))
        elif kind == "two values":
            x, y, z = ((part[:, :1] > 0).float() for part in (x, y, z))
        else:
            x, y, z = ((part - 1).relu() for part in (x, y, z))
        values.append(conditional_mutual_information(x, y, z, generator=seeded(seed)))
    assert torch.stack(values).mean() < 0.1


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_value_is_a_share(seed: int) -> None:
    generator = seeded(seed)
    n = int(torch.randint(6, 40, (1,), generator=generator))
    x, y, z = (
        torch.randn(n, int(torch.randint(0, 4, (1,), generator=generator)), generator=generator)
        for _ in range(3)
    )
    for resampling in ("nearest", "once"):
        value = conditional_mutual_information(x, y, z, generator=generator, resampling=resampling)
        assert 0 <= value <= 1


def test_half_precision_and_whole_numbers_are_taken() -> None:
    x = torch.randint(0, 5, (50, 2), generator=seeded(0))
    wanted = conditional_mutual_information(x.double(), x.double(), x[:, :0].double())
    for dtype in (torch.float16, torch.bfloat16, torch.uint8):
        found = conditional_mutual_information(x.to(dtype), x.to(dtype), x[:, :0].to(dtype))
        assert found == wanted
        assert found.dtype == torch.float64


def test_every_donor_gives_once() -> None:
    distances = torch.rand(30, 33, generator=seeded(0), dtype=torch.float64)
    matches = matched_once(distances)
    assert len(set(matches.tolist())) == 30
    # the nearest of all pairs is among them
    row, column = divmod(int(distances.argmin()), 33)
    assert matches[row] == column


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 1), (5, 1), (5, 1)), "5 samples cannot be split in three"),
        (((9, 1), (8, 1), (9, 1)), "same samples"),
        (((9,), (9, 1), (9, 1)), "samples, features"),
        (((2, 9, 1), (3, 9, 1), (9, 1)), "leading axes"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(
    shapes: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        conditional_mutual_information(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    x, y, z = gaussians(0, 30)
    y[3, 2] = bad
    with pytest.raises(SettingError, match="of parent hold values that are not finite"):
        conditional_mutual_information(x, y, z)


def test_unknown_resampling_and_no_groups_are_refused() -> None:
    x, y, z = gaussians(0, 30)
    with pytest.raises(UnknownNameError, match="nearest"):
        conditional_mutual_information(x, y, z, resampling="neares")  # type: ignore[arg-type]  # refused
    with pytest.raises(SettingError, match="at least one group"):
        dependencies([x], [])
