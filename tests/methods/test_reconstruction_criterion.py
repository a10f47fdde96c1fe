"""Selection that knows the repair: against brute force, and next to selection by weights alone."""

from __future__ import annotations

import itertools

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.reconstruction.subsets import Seen, eliminated, exchanged, tableaus


def problem(width: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    roots = [torch.randn(width, width, generator=generator, dtype=torch.float64) for _ in range(2)]
    return roots[0] @ roots[0].T, roots[1] @ roots[1].T


def lost(covariance: Tensor, gram: Tensor, kept: list[int]) -> float:
    """E|W·(x - M·x_kept)|², by definition."""
    if not kept:
        return float((gram * covariance).sum())
    matrix = torch.linalg.solve(covariance[kept][:, kept], covariance[kept]).T
    change = torch.eye(len(gram), dtype=torch.float64)
    change[:, kept] -= matrix
    return float((gram * (change @ covariance @ change.T)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_every_step_takes_the_unit_whose_going_costs_least(seed: int) -> None:
    covariance, gram = problem(7, seed)
    order = eliminated([(covariance, gram)], 1e-12).argsort().tolist()
    there = list(range(7))
    for unit in order[:-1]:
        costs = {j: lost(covariance, gram, [i for i in there if i != j]) for j in there}
        assert costs[unit] == pytest.approx(min(costs.values()), rel=1e-5)
        there.remove(unit)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_near_the_best_of_all_subsets(seed: int) -> None:
    covariance, gram = problem(8, seed)
    kept = sorted(eliminated([(covariance, gram)], 1e-12).argsort(descending=True)[:4].tolist())
    every = sorted(
        lost(covariance, gram, list(subset)) for subset in itertools.combinations(range(8), 4)
    )
    assert lost(covariance, gram, kept) <= every[len(every) // 10]  # among the best tenth of 70


# exchanges


def both_lost(seen: list[Seen], kept: list[int]) -> float:
    return sum(lost(covariance, gram, kept) for covariance, gram in seen)


def mask(width: int, kept: list[int]) -> Tensor:
    return torch.zeros(width, dtype=torch.bool).index_fill(0, torch.tensor(kept), True)


@pytest.mark.parametrize("seed", range(5))
def test_the_table_says_what_every_step_costs_and_follows_it(seed: int) -> None:
    seen = [problem(7, seed)]
    kept, gone = [0, 2, 3, 6], [1, 4, 5]
    (table,) = tableaus(seen, mask(7, kept), 1e-13)
    now = both_lost(seen, kept)
    losses = table.losses(torch.tensor(kept)).tolist()
    assert losses == pytest.approx(
        [both_lost(seen, [i for i in kept if i != unit]) - now for unit in kept], rel=1e-5
    )
    exchanges = table.exchanges(torch.tensor(kept), torch.tensor(gone))
    for row, goes in enumerate(kept):
        for column, comes in enumerate(gone):
            new = sorted({*kept, comes} - {goes})
            assert float(exchanges[row, column]) == pytest.approx(
                both_lost(seen, new) - now, rel=1e-5, abs=1e-5 * now
            )
    assert table.unexplained(seen[0][1], ~mask(7, kept)) == pytest.approx(now, rel=1e-5)
    gains = table.gains()[gone].tolist()
    assert gains == pytest.approx(
        [now - both_lost(seen, sorted([*kept, unit])) for unit in gone], rel=1e-5
    )
    for unit in (4, 2, 0, 1, 5):
        table.pivot(unit)
    (wanted,) = tableaus(seen, mask(7, [1, 3, 4, 5, 6]), 1e-13)
    torch.testing.assert_close(table.swept, wanted.swept, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table.products, wanted.products, rtol=1e-5, atol=1e-5)


def test_exchanges_never_do_harm_and_mostly_find_the_best_of_all_subsets() -> None:
    best = greedy_best = 0
    for seed in range(40):
        seen = [problem(8, seed), problem(8, seed + 1000)]  # two consumers
        kept = sorted(eliminated(seen, 1e-13).argsort(descending=True)[:4].tolist())
        better = exchanged(seen, kept, 1e-13, 100)
        assert len(better) == 4
        before, after = both_lost(seen, kept), both_lost(seen, better)
        assert after <= before * (1 + 1e-9)
        least = min(both_lost(seen, list(subset)) for subset in itertools.combinations(range(8), 4))
        best += after <= least * (1 + 1e-6)
        greedy_best += before <= least * (1 + 1e-6)
        for goes, comes in itertools.product(
            better, set(range(8)) - set(better)
        ):  # no single exchange is left
            assert both_lost(seen, sorted({*better, comes} - {goes})) >= after * (1 - 1e-5)
    assert best >= 36
    assert greedy_best < best


def test_no_exchanges_of_nothing_of_everything_and_of_none() -> None:
    seen = [problem(6, 0)]
    assert exchanged(seen, [0, 1, 2], 1e-6, 0) == [0, 1, 2]
    assert exchanged(seen, list(range(6)), 1e-6, 9) == list(range(6))
    assert exchanged(
        [(seen[0][0], torch.zeros(6, 6, dtype=torch.float64))], [0, 1, 2], 1e-6, 9
    ) == [0, 1, 2]


def test_a_refined_plan_keeps_as_many_and_loses_no_more() -> None:
    torch.manual_seed(1)
    layers = [nn.Linear(10, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 5)]
    model = nn.Sequential(*layers).double().eval()
    data = [torch.randn(500, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)]
    calibration = niwaki.Calibration.of(data)
    graph = niwaki.trace(model, data[0][:2])
    criterion = "reconstruct:fisher=false"
    plan = niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, criterion, calibration=calibration)), 0.6
    ).plan
    better = niwaki.refine(graph, plan, criterion, calibration=calibration)
    assert {name: len(kept.units) for name, kept in better.items()} == {
        name: len(kept.units) for name, kept in plan.items()
    }
    assert better != plan
    first = [
        niwaki.compensate(
            niwaki.Cut(graph, p), "reconstruct:order=parallel", calibration=calibration
        ).residuals
        for p in (plan, better)
    ]
    assert all(first[1][name] <= first[0][name] * (1 + 1e-6) for name in first[0])
    again = niwaki.prune(model, data[0][:2], criterion=criterion, budget=0.6, calibration=data)
    assert again.plan.kept == better.kept
    assert niwaki.refine(graph, plan, f"{criterion},swaps=0", calibration=calibration) == plan
    assert niwaki.refine(graph, plan, "l1") == plan


def test_a_copy_goes_first_and_a_unit_that_nobody_reads() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    with torch.no_grad():
        within.tensor(model, "0.weight")[4], within.tensor(model, "0.bias")[4] = (
            3 * within.tensor(model, "0.weight")[1],
            3 * within.tensor(model, "0.bias")[1],
        )
        within.tensor(model, "2.weight")[:, 2] = 0
    data = [torch.randn(300, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)]
    graph = niwaki.trace(model, data[0][:2])
    for calibration in (niwaki.Calibration.of(data), None):
        scores = niwaki.score(graph, "reconstruct", calibration=calibration)["0"]
        gone = set(scores.argsort()[:2].tolist())
        assert 2 in gone
        assert gone & {1, 4}
    plan = niwaki.select(
        niwaki.Scores(
            graph, niwaki.score(graph, "reconstruct", calibration=niwaki.Calibration.of(data))
        ),
        2 / 6,
    ).plan
    fitted = niwaki.compensate(
        niwaki.Cut(graph, plan), "reconstruct:ridge=0", calibration=niwaki.Calibration.of(data)
    )
    torch.testing.assert_close(
        niwaki.shrink(niwaki.Cut(graph, plan, fitted.mixings))(data[0]),
        model(data[0]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_it_loses_less_than_selection_by_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 5)).double().eval()
    calibration = niwaki.Calibration.of([torch.randn(500, 10, dtype=torch.float64)])
    graph = niwaki.trace(model, torch.randn(2, 10, dtype=torch.float64))
    left = {}
    for criterion in ("l1", "l2", "reconstruct"):
        plan = niwaki.select(
            niwaki.Scores(graph, niwaki.score(graph, criterion, calibration=calibration)), 0.6
        ).plan
        left[criterion] = niwaki.compensate(
            niwaki.Cut(graph, plan), "reconstruct", calibration=calibration
        ).residuals["0"]
    assert left["reconstruct"] < 0.9 * min(left["l1"], left["l2"])


def test_settings() -> None:
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 4)
    )
    for spec in ("reconstruct:ridge=0", "reconstruct:places=0", "reconstruct:swaps=-1"):
        with pytest.raises(SettingError, match="must be"):
            niwaki.score(graph, spec)
