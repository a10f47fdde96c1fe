"""The best mixing where the kept units are those of the original network, computed for the dropped
units alone.

The same least squares as niwaki.methods.reconstruction.least_squares, for moments that are known
once for all units: the kept units stand for themselves, so that only the rows X (dropped, kept) of
the mixing are sought, and with d the dropped units and k the kept ones

    X = C_dk·(C_kk + λ·I)⁻¹,   E|W·(x - x̂)|² = tr(G_dd·(C_dd - 2·X·C_kd + X·C_kk·Xᵀ)) + |W·m|²,

which costs a quarter to an eighth of what it does for all units at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.methods.reconstruction.least_squares import TINY, solved


@dataclass(frozen=True, eq=False)
class Move:
    """What dropped units are made of: rows (dropped, kept) and a constant (dropped,)."""

    rows: Tensor
    constant: Tensor | None


@dataclass(frozen=True, eq=False)
class Dropped:
    """Moments of dropped and kept units, float64.

    Attributes:
        dropped, kept: int64, the units.
    """

    dropped: Tensor
    kept: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, units: Sequence[int]) -> Dropped:
        """Where these units are kept."""
        kept = torch.as_tensor(units, dtype=torch.int64, device="cpu")
        gone = torch.ones(len(mean), dtype=torch.bool, device="cpu").index_fill_(0, kept, False)
        return cls(gone.nonzero().flatten(), kept, mean, covariance)

    def solve(self, ridge: float, *, shift: bool) -> Move:
        """The rows with the least residual.

        Args:
            ridge: λ as a share of the mean variance of the kept units.
        """
        within, across = self._second(self.kept, shift), self._second(self.dropped, shift)
        level = float(within.diagonal().mean()) if len(self.kept) else 0.0
        gone, left = self.mean[self.dropped], self.mean[self.kept]
        if not level > 0:  # nothing kept ever changes: a constant is all that can be done
            return Move(torch.zeros_like(across), gone if shift else None)
        damped = within.clone()
        damped.diagonal().add_(max(ridge, TINY) * level)
        rows = solved(damped, across.T).T
        return Move(rows, gone - rows @ left if shift else None)

    def _second(self, rows: Tensor, shift: bool) -> Tensor:
        """Covariances of some units with the kept ones; second moments where no constant is
        allowed.
        """
        table = self.covariance[rows][:, self.kept]
        return table if shift else table + torch.outer(self.mean[rows], self.mean[self.kept])

    def plain(self) -> Move:
        """Nothing in the place of what goes."""
        rows = torch.zeros(len(self.dropped), len(self.kept), dtype=torch.float64, device="cpu")
        return Move(rows, None)

    def residual(self, move: Move, gram: Tensor) -> float:
        """E|W·(x - x̂)|², with W's Gram matrix over all units."""
        form = gram.dtype
        rows = move.rows.to(form)
        between = gram[self.dropped][:, self.dropped]
        spread = (between * self.covariance[self.dropped][:, self.dropped].to(form)).sum()
        if bool(rows.any()):
            seen = between @ rows
            across = self.covariance[self.dropped][:, self.kept].to(form)
            within = self.covariance[self.kept][:, self.kept].to(form)
            spread += (seen * (rows @ within - 2 * across)).sum()
        mean = self.mean[self.dropped] - move.rows @ self.mean[self.kept]
        mean = (mean if move.constant is None else mean - move.constant).to(form)
        return max(0.0, float(spread + mean @ between @ mean))

    def signal(self, gram: Tensor) -> float:
        """E|W·(x - E x)|²."""
        return float((gram * self.covariance.to(gram.dtype)).sum())
