"""A Gaussian in the place of a value: one mean and one covariance over the channels, the same at
every place.

Through an element-wise function f, with z ~ N(μ, σ²) a channel and Heₙ the Hermite polynomials,

    Cov(f(zᵢ), f(zⱼ)) = Σₙ cᵢₙ·cⱼₙ·ρᵢⱼⁿ / n!,   cᵢₙ = E[f(zᵢ)·Heₙ((zᵢ - μᵢ)/σᵢ)]   (Mehler's
    formula, n ≥ 1),

by Gauss-Hermite quadrature for any f: ReLU, leaky ReLU, GELU, SiLU, hard-swish alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

TERMS, NODES = 24, 160  # of Mehler's series, and of the quadrature
TINY = 1e-12


@dataclass(frozen=True)
class Prior:
    """What is taken for granted of neighbouring places: correlation w at none but the same place, 1
    - w decaying.
    """

    white: float = 0.5
    reach: float = 3.0  # places

    def correlation(self, sizes: tuple[int, ...], steps: tuple[int, ...] | None = None) -> Tensor:
        """Of all places of a grid with each other: (places, places)."""
        axes = [
            torch.arange(size, dtype=torch.float64, device="cpu") * step
            for size, step in zip(sizes, steps or (1,) * len(sizes), strict=True)
        ]
        grid = (
            torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
            if axes
            else torch.zeros(1, 1, device="cpu")
        )
        near = torch.exp(-torch.cdist(grid, grid) / self.reach)
        return (1 - self.white) * near.double() + self.white * torch.eye(
            len(grid), dtype=torch.float64, device="cpu"
        )


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Channels of a value: mean (channels,), covariance (channels, channels); `space` the sizes of
    its map.
    """

    mean: Tensor
    covariance: Tensor
    space: tuple[int, ...] = ()

    @classmethod
    def white(cls, channels: int, space: tuple[int, ...] = ()) -> Gaussian:
        """Zero mean, unit covariance."""
        return cls(
            torch.zeros(channels, dtype=torch.float64, device="cpu"),
            torch.eye(channels, dtype=torch.float64, device="cpu"),
            space,
        )

    @property
    def size(self) -> int:
        return len(self.mean)

    def block(self, start: int, stop: int) -> Gaussian:
        """Some consecutive channels."""
        return replace(
            self, mean=self.mean[start:stop], covariance=self.covariance[start:stop, start:stop]
        )

    def scaled(self, factor: Tensor) -> Gaussian:
        """Each channel times a number."""
        return replace(
            self, mean=self.mean * factor, covariance=self.covariance * factor[:, None] * factor
        )

    def through(self, weight: Tensor, correlation: Tensor, bias: Tensor | None) -> Gaussian:
        """weight (out, channels, places) · the values at places that are correlated so (places,
        places) + bias.
        """
        values, vectors = torch.linalg.eigh(correlation)
        root = vectors * values.clamp(min=0).sqrt()
        spread = weight @ root
        mixed = torch.einsum("ocp,cd->odp", spread, self.covariance)
        covariance = mixed.flatten(1) @ spread.flatten(1).T
        mean = weight.sum(2) @ self.mean
        return Gaussian(mean if bias is None else mean + bias, covariance, self.space)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Gaussian:
        """An element-wise function of the values, by Mehler's formula."""
        nodes, weights, polynomials = _quadrature()
        scale = self.covariance.diagonal().clamp(min=TINY).sqrt()
        values = function(self.mean[:, None] + scale[:, None] * nodes)
        mean = values @ weights
        variance = ((values - mean[:, None]) ** 2) @ weights
        coefficients = (
            values * weights
        ) @ polynomials.T  # (channels, terms), of orthonormal polynomials
        correlation = (self.covariance / scale[:, None] / scale).clamp(-1, 1)
        power, covariance = torch.ones_like(correlation), torch.zeros_like(correlation)
        for column in coefficients.T[1:]:
            power = power * correlation
            covariance += torch.outer(column, column) * power
        covariance.diagonal().copy_(variance)
        return replace(self, mean=mean, covariance=covariance)


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
