"""The ridge that is found without trying any: near the best on rows that the fit has not seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.reconstruction.least_squares import Joint, solve
from niwaki.methods.reconstruction.ridge import LEAST, MOST, cross_validated

KEPT, WIDTH = 12, 20


def rows(count: int, noise: float, seed: int) -> Tensor:
    """Units of which the last eight are sums of the others and noise."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(KEPT, WIDTH - KEPT, generator=torch.Generator().manual_seed(9)).double()
    kept = torch.randn(count, KEPT, generator=generator, dtype=torch.float64)
    more = torch.randn(count, WIDTH - KEPT, generator=generator, dtype=torch.float64)
    return torch.cat([kept, kept @ mixed / 4 + noise * more], 1)


def joint_of(units: Tensor) -> Joint:
    left = units.clone()
    left[:, :KEPT] = 0
    moments = Moments(WIDTH + KEPT)
    moments.add(torch.cat([left, units[:, :KEPT]], 1), "the test")
    return Joint.of_rows(moments.mean, moments.covariance, WIDTH)


@pytest.mark.parametrize(("count", "noise"), [(20, 1.0), (20, 3.0), (60, 2.0), (2000, 0.1)])
def test_it_is_near_the_best_on_unseen_rows(count: int, noise: float) -> None:
    joint, unseen = joint_of(rows(count, noise, 0)), rows(5000, noise, 1)
    gram = torch.eye(WIDTH, dtype=torch.float64)

    def error(ridge: float) -> float:
        mixing = solve(joint, range(KEPT), ridge)
        assert mixing.shift is not None
        return float((unseen - unseen[:, :KEPT] @ mixing.matrix.T - mixing.shift).square().mean())

    ridges = torch.logspace(-2.5, 1.5, 30).tolist()
    best = min(error(ridge) for ridge in ridges)
    chosen = cross_validated(joint, gram, count)
    assert LEAST <= chosen <= MOST * (1 + 1e-9)
    assert error(chosen) <= 1.1 * best


def test_many_rows_want_little_and_unrelated_units_want_much() -> None:
    gram = torch.eye(WIDTH, dtype=torch.float64)
    assert cross_validated(joint_of(rows(5000, 0.1, 0)), gram, 5000) < 0.02
    generator = torch.Generator().manual_seed(0)
    unrelated = torch.randn(60, WIDTH, generator=generator, dtype=torch.float64)
    assert cross_validated(joint_of(unrelated), gram, 60) > 0.5


def test_constant_units_have_a_ridge_too() -> None:
    gram = torch.eye(WIDTH, dtype=torch.float64)
    assert cross_validated(joint_of(torch.ones(30, WIDTH).double()), gram, 30) == LEAST
