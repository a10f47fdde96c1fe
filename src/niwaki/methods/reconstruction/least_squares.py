"""The best mixing for given second moments: ridge least squares of all units on the kept ones.

With x all units where they are read, z the kept ones there (of the original, or of the network as
it is after the pruning of what comes before), and M₀ the mixing of plain pruning,

    M = M₀ + C_rz·(C_zz + λ·I)⁻¹,   shift = mean(r) - (M - M₀)·mean(z),   r = x - M₀·z,

which minimises E|x - M·z - shift|² + λ·|M - M₀|². Its residual covariance is no larger than plain
pruning's in any direction, so that no consumer, whatever its weights, is worse off than without it
on the inputs that were counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing

TINY = 1e-9  # of the mean variance: keeps a singular matrix solvable


@dataclass(frozen=True, eq=False)
class Joint:
    """Means and covariances of what plain pruning leaves out, r (width,), and of the kept units, z
    (kept,).
    """

    r_mean: Tensor
    z_mean: Tensor
    rr: Tensor  # (width, width)
    rz: Tensor  # (width, kept)
    zz: Tensor  # (kept, kept)

    @classmethod
    def of_original(cls, mean: Tensor, covariance: Tensor, units: Sequence[int]) -> Joint:
        """Where the kept units are those of the original network: r is zero for them."""
        kept = torch.as_tensor(units, device="cpu")
        dropped = torch.ones(len(mean), dtype=torch.float64, device="cpu").index_fill(0, kept, 0)
        rr = covariance * dropped[:, None] * dropped
        return cls(
            mean * dropped,
            mean[kept],
            rr,
            covariance[:, kept] * dropped[:, None],
            covariance[kept][:, kept],
        )

    @classmethod
    def of_rows(cls, mean: Tensor, covariance: Tensor, width: int) -> Joint:
        """From the moments of rows [r | z]."""
        r, z = slice(0, width), slice(width, None)
        return cls(mean[r], mean[z], covariance[r, r], covariance[r, z], covariance[z, z])

    def uncentred(self) -> Joint:
        """With second moments in the place of covariances, for a least squares without a
        constant.
        """
        r, z = self.r_mean, self.z_mean
        rz, zz = self.rz + torch.outer(r, z), self.zz + torch.outer(z, z)
        return Joint(r * 0, z * 0, self.rr + torch.outer(r, r), rz, zz)


def solve(joint: Joint, units: Sequence[int], ridge: float, *, shift: bool = True) -> Mixing:
    """The mixing with the least residual.

    Args:
        units: the kept units.
        ridge: λ as a share of the mean variance of the kept units.
        shift: whether a constant is allowed.
    """
    used = joint if shift else joint.uncentred()
    width, kept = used.rz.shape
    level = float(used.zz.diagonal().mean())
    plain = Mixing.selecting(width, units).matrix
    if not level > 0:  # nothing kept ever changes: a constant is all that can be done
        return Mixing(plain, used.r_mean.clone() if shift else None)
    damped = used.zz + max(ridge, TINY) * level * torch.eye(kept, dtype=torch.float64, device="cpu")
    change = solved(damped, used.rz.T).T
    return Mixing(plain + change, used.r_mean - change @ used.z_mean if shift else None)


def solved(damped: Tensor, right: Tensor) -> Tensor:
    """damped⁻¹ · right, for a symmetric matrix that should be positive."""
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not bool(failed):
        return torch.cholesky_solve(right, factor)
    values, vectors = torch.linalg.eigh(damped)  # rounding made it indefinite
    floor = values.max() * TINY
    product: Tensor = vectors @ ((vectors.T @ right) / values.clamp(min=floor)[:, None])
    return product


def residual(
    joint: Joint, mixing: Mixing, units: Sequence[int], gram: Tensor | None = None
) -> float:
    """E|W·(x - M·z - shift)|², with W's Gram matrix over the units (width, width); the identity
    without it.
    """
    change = mixing.matrix - Mixing.selecting(len(mixing.matrix), units).matrix
    cross = change @ joint.rz.T
    covariance = joint.rr - cross - cross.T + change @ joint.zz @ change.T
    mean = joint.r_mean - change @ joint.z_mean
    if mixing.shift is not None:
        mean = mean - mixing.shift
    gram = torch.eye(len(mean), dtype=torch.float64, device="cpu") if gram is None else gram
    return max(0.0, float((gram * covariance).sum() + mean @ gram @ mean))


def signal(joint: Joint, units: Sequence[int], gram: Tensor | None = None) -> float:
    """E|W·(x - E x)|²: what the consumers see of the units of the original."""
    plain = Mixing.selecting(len(joint.r_mean), units).matrix
    cross = plain @ joint.rz.T
    covariance = joint.rr + cross + cross.T + plain @ joint.zz @ plain.T
    return float(covariance.trace() if gram is None else (gram * covariance).sum())


def as_one(mixings: Mapping[str, Mixing]) -> Mixing:
    """One mixing a group out of one a consumer weight."""
    first = next(iter(mixings.values()))
    return first if len(mixings) == 1 else replace(first, readers=dict(mixings))
