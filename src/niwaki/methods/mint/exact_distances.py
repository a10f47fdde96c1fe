"""Squared Euclidean distances without rounding errors.

Activations are rounded to whole multiples of a power of two, about 2⁻²⁰ of the largest. Sums of
squares are then exact in
float64 whatever their order: equal rows are at distance zero, the same numbers come out of every
    batch size, number of
threads and device, and the distances of a layer's groups can be computed once, added, and taken out
again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = (
    2**19
)  # distances that are computed at once: small enough to stay in the cache until they are rounded
Factors = tuple[Tensor, Tensor]  # two matrices whose product, left @ right.T, is what is meant


@dataclass(frozen=True, eq=False)
class Grid:
    """Activations as whole numbers: parts (samples, features) float64, times 2^-exponent what they
    were less a constant.
    """

    parts: list[Tensor]
    exponent: int


def on_grid(parts: list[Tensor], device: torch.device) -> Grid:
    """Parts that are added up, on one grid, so fine that no sum of squares over all features
    exceeds 2^53.
    """
    parts = [part.to(device).double() for part in parts]
    features = max(1, sum(part.shape[1] for part in parts))
    bits = math.floor((53 - math.log2(16 * features)) / 2)
    centres = [part.mean(0) for part in parts]
    largest = max(
        (
            float((part - centre).abs().max())
            for part, centre in zip(parts, centres, strict=True)
            if part.numel()
        ),
        default=0.0,
    )
    exponent = bits - math.frexp(largest)[1] if largest else 0
    # two factors, as 2^exponent alone may be out of float64's range
    half, other = 2.0 ** (exponent // 2), 2.0 ** (exponent - exponent // 2)
    whole = [
        (part * half * other).round() - (centre * half * other).round()
        for part, centre in zip(parts, centres, strict=True)
    ]
    return Grid(whole, exponent)


def squared(left: Tensor, right: Tensor, sign: int = 1) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is sign · squared distance between the rows of left and right."""
    ones = torch.ones_like(left[:, :1]), torch.ones_like(right[:, :1])
    norms = left.square().sum(1, keepdim=True), right.square().sum(1, keepdim=True)
    return torch.cat([-2 * sign * left, sign * norms[0], sign * ones[0]], 1), torch.cat(
        [right, ones[1], norms[1]], 1
    )


def side_by_side(*factors: Factors) -> Factors:
    """Factors of the sum of products."""
    return torch.cat([left for left, _ in factors], 1), torch.cat(
        [right for _, right in factors], 1
    )


def tiles(left: Tensor, right: Tensor) -> list[slice]:
    """Rows of a product, a tile at a time."""
    step = max(1, TILE // len(right))
    return [slice(start, min(start + step, len(left))) for start in range(0, len(left), step)]


def product(factors: Factors, base: Tensor | None = None, rows: slice = slice(None)) -> Tensor:
    """Some rows of what two factors stand for, added to those of a base."""
    left, right = factors[0][rows], factors[1]
    return left @ right.T if base is None else torch.addmm(base[rows], left, right.T)
