"""Selection that knows the repair: against brute force, and next to selection by weights alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.criteria.reconstruction import eliminated
from niwaki.errors import SettingError


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
    every = sorted(lost(covariance, gram, list(subset)) for subset in itertools.combinations(range(8), 4))
    assert lost(covariance, gram, kept) <= every[len(every) // 10]  # among the best tenth of 70


def test_a_copy_goes_first_and_a_unit_that_nobody_reads() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 3 * model[0].weight[1], 3 * model[0].bias[1]
        model[2].weight[:, 2] = 0
    data = [torch.randn(300, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)]
    graph = niwaki.trace(model, data[0][:2])
    for calibration in (niwaki.Calibration.of(data), None):
        scores = niwaki.score(graph, "reconstruct", calibration=calibration)["0"]
        gone = set(scores.argsort()[:2].tolist())
        assert 2 in gone
        assert gone & {1, 4}
    plan = niwaki.select(graph, niwaki.score(graph, "reconstruct", calibration=niwaki.Calibration.of(data)), 2 / 6)
    fitted = niwaki.compensate(graph, plan, "reconstruct:ridge=0", calibration=niwaki.Calibration.of(data))
    torch.testing.assert_close(niwaki.shrink(graph, plan, fitted.mixings)(data[0]), model(data[0]), rtol=1e-5, atol=1e-5)


def test_it_loses_less_than_selection_by_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 5)).double().eval()
    calibration = niwaki.Calibration.of([torch.randn(500, 10, dtype=torch.float64)])
    graph = niwaki.trace(model, torch.randn(2, 10, dtype=torch.float64))
    left = {}
    for criterion in ("l1", "l2", "reconstruct"):
        plan = niwaki.select(graph, niwaki.score(graph, criterion, calibration=calibration), 0.6)
        left[criterion] = niwaki.compensate(graph, plan, "reconstruct", calibration=calibration).residuals["0"]
    assert left["reconstruct"] < 0.9 * min(left["l1"], left["l2"])


def test_settings() -> None:
    graph = niwaki.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 4))
    for spec in ("reconstruct:ridge=0", "reconstruct:places=0"):
        with pytest.raises(SettingError, match="must be"):
            niwaki.score(graph, spec)
