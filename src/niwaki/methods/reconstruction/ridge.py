"""How large a ridge is, without trying any: generalised cross-validation.

With C_zz = V·Λ·Vᵀ the kept units' covariance over n rows, one factorisation says for every λ how
much of what a consumer reads is left, and how many rows the fit can follow:

    left(λ) = tr(G·C_rr) - Σⱼ qⱼ·(2/(Λⱼ + λ) - Λⱼ/(Λⱼ + λ)²),   q = diag(Vᵀ·C_zr·G·C_rz·V),
    df(λ) = 1 + Σⱼ Λⱼ/(Λⱼ + λ),                                  score(λ) = left(λ)/(1 - df(λ)/n)².

The score is what leaving out one row after the other would find, averaged over rotations of the
rows. The λ of the least score is taken.

Source: Golub, Heath, Wahba, Generalized Cross-Validation as a Method for Choosing a Good Ridge
Parameter, Technometrics 21, 1979.
"""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.methods.reconstruction.least_squares import Joint

LEAST, MOST, STEPS = 3e-3, 30.0, 17  # of λ as a share of the mean variance of the kept units
FOLLOWED = 0.95  # of the rows at most may be followed


def cross_validated(joint: Joint, gram: Tensor, rows: float, *, shift: bool = True) -> float:
    """λ as a share of the mean variance of the kept units.

    Args:
        gram: Wᵀ·W of the consumer (width, width).
        rows: for how many rows drawn alone the moments count.
        shift: whether a constant is fitted too.

    >>> from niwaki.methods.reconstruction.least_squares import Joint
    >>> one = torch.ones(1, 1).double()
    >>> unrelated = Joint(one[0], one[0], one, 0 * one, one)
    >>> cross_validated(unrelated, one, 10.0)  # nothing to be learned: the largest
    30.0
    """
    used = joint if shift else joint.uncentred()
    values, vectors = torch.linalg.eigh(used.zz)
    values = values.clamp(min=0)
    level = float(values.mean())
    if not level > 0:
        return LEAST
    across = used.rz @ vectors
    known = ((gram @ across) * across).sum(0)  # q
    ridges = torch.logspace(0, 1, STEPS, base=MOST / LEAST, dtype=torch.float64) * LEAST
    damped = values + ridges[:, None] * level
    left = (gram * used.rr).sum() - (known * (2 / damped - values / damped.square())).sum(1)
    followed = (float(shift) + (values / damped).sum(1)) / max(rows, 1.0)
    score = left.clamp(min=0) / (1 - followed).square()
    score[followed > FOLLOWED] = torch.inf
    least = torch.nan_to_num(score, posinf=torch.inf, nan=torch.inf)
    if not bool(torch.isfinite(least).any()):
        return MOST
    return float(ridges[len(ridges) - 1 - int(least.flip(0).argmin())])
