"""The basis of a head's queries and keys in which the first dimensions say most of their products.

Queries q and keys k have d dimensions, of which r are to stay. For any M of rank r, the error of
qᵀMk in the place of qᵀk, over queries and keys drawn apart with second moments Cq = Lq·Lqᵀ and
Ck = Lk·Lkᵀ, is

    E|qᵀk - qᵀMk|² = ‖Lqᵀ·(I - M)·Lk‖²

and least where Lqᵀ·M·Lk is Lqᵀ·Lk = U·S·Vᵀ with its first r singular values alone (Eckart and
Young, 1936): what is lost then is the sum of the others squared. In the basis

    q' = S^½·Uᵀ·Lq⁻¹·q,   k' = S^½·Vᵀ·Lk⁻¹·k,   q'ᵀk' = qᵀk

that is to keep the first r dimensions. To keep some of the given dimensions and to fit what goes to
them by ridge regression, as CORP does, is such an M too, so that it cannot lose less by this
measure. A constant that all keys of an input share adds the same to all products of a query, which
a softmax does not see: Ck is then taken around the keys' mean.

Source: the idea to make up for lost dimensions of queries and keys in closed form is that of CORP,
arXiv 2602.05243.

>>> import torch
>>> basis = paired_basis(torch.eye(2).double(), torch.diag(torch.tensor([1.0, 9.0])).double())
>>> [round(value, 6) for value in basis.strength.tolist()]
[3.0, 1.0]
>>> round(basis.lost(1), 6)
0.1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-8  # of the mean second moment: what both never do is given so much


@dataclass(frozen=True, eq=False)
class Basis:
    """A change of basis of queries and of keys.

    Attributes:
        query, key: float64 (d, d), with queryᵀ · key = identity.
        strength: the root of what each dimension says of the products, descending: (d,).
    """

    query: Tensor
    key: Tensor
    strength: Tensor

    def lost(self, kept: int) -> float:
        """The share of the products' mean square that goes with all but the first dimensions."""
        squares = self.strength.square()
        return float(squares[kept:].sum() / squares.sum()) if float(squares.sum()) > 0 else 0.0

    def laid(self, kept: Tensor) -> Basis:
        """The same with the strongest dimensions where units stay, in order.

        Args:
            kept: int64 (r,), units that stay.
        """
        goes = torch.ones(len(self.strength), dtype=torch.bool, device="cpu")
        goes[kept] = False
        places = torch.cat([kept, goes.nonzero().flatten()])
        order = places.argsort()
        return Basis(self.query[order], self.key[order], self.strength[order])


def paired_basis(queries: Tensor, keys: Tensor) -> Basis:
    """The basis of second moments of queries and of keys, float64 (d, d) each.

    Raises:
        RuntimeError: of torch, where the moments are not finite.
    """
    left, right = _root(queries), _root(keys)
    u, strength, vt = torch.linalg.svd(left.T @ right)
    half = strength.clamp(min=torch.finfo(torch.float64).tiny).sqrt()[:, None]
    query = half * torch.linalg.solve_triangular(left.T, u, upper=True).T
    key = half * torch.linalg.solve_triangular(right.T, vt.T, upper=True).T
    return Basis(query, key, strength)


def _root(moments: Tensor) -> Tensor:
    """L with L·Lᵀ the moments, made definite."""
    width = len(moments)
    mean = float(moments.diagonal().mean()) or 1.0
    eye = torch.eye(width, dtype=moments.dtype, device=moments.device)
    root: Tensor = torch.linalg.cholesky((moments + moments.T) / 2 + FLOOR * mean * eye)
    return root
