"""The basis of queries and keys, against least squares done outright on single products."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from niwaki.methods.heads import paired_basis


def drawn(width: int, rows: int = 40) -> tuple[Tensor, Tensor]:
    """Queries and keys of strongly correlated dimensions: float64 (rows, width)."""
    generator = torch.Generator().manual_seed(width)
    q, k, mix = (
        torch.randn(size, width, generator=generator, dtype=torch.float64)
        for size in (rows, rows, width)
    )
    return q @ mix, k * torch.linspace(0.2, 2, width, dtype=torch.float64)


def products_of(q: Tensor, k: Tensor, kept: int) -> Tensor:
    basis = paired_basis(q.T @ q, k.T @ k)
    return (q @ basis.query.T)[:, :kept] @ (k @ basis.key.T)[:, :kept].T


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_it_is_the_best_approximation_of_all_products(kept: int) -> None:
    q, k = drawn(6)
    u, s, vt = torch.linalg.svd(q @ k.T)
    best = u[:, :kept] * s[:kept] @ vt[:kept]
    assert torch.allclose(products_of(q, k, kept), best, rtol=1e-5, atol=1e-5 * float(s[0]))


def test_no_choice_of_dimensions_with_least_squares_is_better() -> None:
    """For every index set, the products of all dimensions are fitted by M on the kept ones: one
    column a pair of kept dimensions, solved as one linear problem.
    """
    q, k = drawn(5, rows=12)
    wanted = (q @ k.T).flatten()
    errors = []
    for kept in combinations(range(5), 2):
        columns = torch.stack(
            [torch.outer(q[:, a], k[:, b]).flatten() for a in kept for b in kept], 1
        )
        fit = torch.linalg.lstsq(columns, wanted[:, None]).solution
        errors.append(float((columns @ fit - wanted[:, None]).square().sum()))
    ours = float((products_of(q, k, 2).flatten() - wanted).square().sum())
    assert ours <= min(errors) * (1 + 1e-6)
    assert ours > 0


def test_it_says_what_share_is_lost() -> None:
    q, k = drawn(6)
    basis = paired_basis(q.T @ q, k.T @ k)
    off = (products_of(q, k, 2) - q @ k.T).square().sum() / (q @ k.T).square().sum()
    assert basis.lost(2) == pytest.approx(float(off), rel=1e-5)
    assert basis.lost(6) == 0


def test_all_dimensions_say_what_was_said() -> None:
    q, k = drawn(6)
    basis = paired_basis(q.T @ q, k.T @ k).laid(torch.tensor([1, 4]))
    eye = torch.eye(6, dtype=torch.float64)
    assert torch.allclose(basis.query.T @ basis.key, eye, atol=1e-9)
    assert basis.strength.argsort(descending=True)[:2].tolist() == [1, 4]


@pytest.mark.parametrize("dead", ["one dimension", "all"])
def test_dimensions_that_do_nothing_are_survived(dead: str) -> None:
    q, k = drawn(4)
    q[:, 2] = 0
    q = q * 0 if dead == "all" else q
    basis = paired_basis(q.T @ q, k.T @ k)
    assert bool(basis.query.isfinite().all())
    assert bool(basis.key.isfinite().all())
    assert dead == "all" or basis.lost(3) < 1e-6
