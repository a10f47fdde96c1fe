"""What an element-wise function makes of Gaussian channels.

With z ~ N(μ, σ²) a channel and Heₙ the Hermite polynomials,

    Cov(f(zᵢ), f(zⱼ)) = Σₙ cᵢₙ·cⱼₙ·ρᵢⱼⁿ / n!,   cᵢₙ = E[f(zᵢ)·Heₙ((zᵢ - μᵢ)/σᵢ)]   (Mehler's
    formula, n ≥ 1),

by Gauss-Hermite quadrature for any f: ReLU, leaky ReLU, GELU, SiLU, hard-swish alike. Where f is
not defined for all numbers (a root, a logarithm, an arc sine), z is held to where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

TERMS, NODES = 24, 160  # of the series at most, and of the quadrature
ENOUGH = 1e-4  # of a channel's variance: terms of the series that add less are left out
TINY = 1e-12


def expansion(
    function: Callable[[Tensor], Tensor], mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Mean and variance (channels,) of the results, and cᵢₙ of orthonormal polynomials (channels,
    terms); None where the function is defined for none of a channel's values.

    >>> mean, variance, _ = expansion(torch.relu, torch.zeros(1).double(), torch.ones(1).double())
    >>> round(float(mean), 2), round(float(variance), 2)  # 1/sqrt(2π), 1/2 - 1/(2π)
    (0.4, 0.34)
    """
    nodes, weights, polynomials = _quadrature()
    values = _in_domain(function(mean[:, None] + scale[:, None] * nodes))
    if values is None:
        return None
    average = values @ weights
    variance = ((values - average[:, None]) ** 2) @ weights
    return average, variance, (values * weights) @ polynomials.T


def series(block: Tensor, scale: Tensor, coefficients: Tensor, variance: Tensor) -> Tensor:
    """Σₙ cᵢₙ·cⱼₙ·ρᵢⱼⁿ off the diagonal (coefficients of orthonormal polynomials), by Horner's
    rule; the variance on it.
    """
    inverse = (1 / scale).to(block.dtype)
    correlation = (block * inverse[:, None]).mul_(inverse).clamp_(-1, 1)
    correlation.fill_diagonal_(0)
    columns = coefficients[:, 1 : _terms(correlation, coefficients, variance) + 1]
    total = torch.zeros_like(block)
    for column in columns.to(block.dtype).flip(1).T:
        total.addr_(column, column).mul_(correlation)
    total.diagonal().copy_(variance)
    return total


def _terms(correlation: Tensor, coefficients: Tensor, variance: Tensor) -> int:
    """How many terms leave out no more than ENOUGH of any channel's variance; of few channels, all
    that there are.
    """
    if correlation.dtype == torch.float64:
        return TERMS
    most = max(float(correlation.max()), -float(correlation.min()))
    shares = (coefficients.square() / variance.clamp(min=TINY)[:, None]).amax(0)
    adds = shares[1:] * most ** torch.arange(1, TERMS + 1, dtype=torch.float64, device="cpu")
    left = adds.flip(0).cumsum(0).flip(0)
    return max(1, int((left > ENOUGH).sum()))


def _in_domain(values: Tensor) -> Tensor | None:
    """A function's values at ascending nodes, where it has none those of the nearest node that has:
    (channels, nodes); None where a channel has none at all.
    """
    good = torch.isfinite(values)
    if bool(good.all()):
        return values
    if not bool(good.any(1).all()):
        return None
    place = torch.arange(values.shape[1], device="cpu").expand_as(values)
    below = place.masked_fill(~good, -1).cummax(1).values
    above = place.masked_fill(~good, values.shape[1]).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(
        (below < 0) | (above - place < place - below) & (above < values.shape[1]), above, below
    )
    return values.gather(1, nearest)


@cache
def _quadrature() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes and weights of the standard normal, and the orthonormal Hermite polynomials there
    (terms, nodes).
    """
    places, weights = np.polynomial.hermite_e.hermegauss(NODES)
    nodes = torch.from_numpy(places)
    rows = [torch.ones_like(nodes), nodes]
    for n in range(2, TERMS + 1):
        rows.append((nodes * rows[-1] - math.sqrt(n - 1) * rows[-2]) / math.sqrt(n))
    return nodes, torch.from_numpy(weights / weights.sum()), torch.stack(rows)
