"""Neuron Merging: the role of a dropped unit moves to the kept unit that is most like it. No data,
no training.

A dropped unit's weights are about s times those of one kept unit, s ≥ 0 the ratio of the norms.
Through a ReLU (any map with f(c·x) = c·f(x) for c ≥ 0) the unit itself then is about s times the
kept one, and the next layer takes that up: W' = W · Z, where Z is the identity on the kept rows and
has the one entry s in the row of each dropped unit.

With a BatchNorm between (unit 1 dropped, 2 kept, σ = sqrt(var + eps)), x₁ ≈ s·x₂ gives for the
normalised outputs

    BN₁(x₁) ≈ BN₁(s·x₂) = S·BN₂(x₂) + B,   S = s·(γ₁/γ₂)·(σ₂/σ₁),
                                            B = (γ₁/σ₁)·(s·μ₂ - s·σ₂·β₂/γ₂ - μ₁) + β₁,

found by putting x₂ = σ₂·(BN₂(x₂) - β₂)/γ₂ + μ₂ into BN₁. S takes the place of s; the constant B
cannot go through the ReLU, so that among the kept units one with a small B is sought: by λ·(cosine
distance) + (1 - λ)·(|B/S|, min-max normalised over the kept units).

Source: Kim, Kim, Park, Jeon, Neuron Merging: Compensating for Pruned Neurons, NeurIPS 2020 (arXiv
2010.13160), sections 3.1-3.3, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.graph import Group, Normaliser, Slice, Writer
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.one_for_one import OneForOne

PAPER_THRESHOLD_LINEAR, PAPER_THRESHOLD_NORM = 0.45, 0.1


@COMPENSATIONS.register("merge")
@dataclass(frozen=True)
class Merge(OneForOne):
    """Neuron Merging.

    Attributes:
        threshold: least cosine similarity of a match; below it the unit is dropped plainly. None
            takes the paper's: 0.45 without a normalisation, 0.1 with one.
        lam: λ in [0, 1], the weight of the cosine distance against that of the constant B.
        bn: "derived" for S and B as above; "published" for what the authors' code computes, which
            lets the two channels change places and puts the variance where its root belongs.
    """

    threshold: float | None = None
    lam: float = 0.85
    bn: Literal["derived", "published"] = "derived"

    done: ClassVar[str] = "merged"

    def __post_init__(self) -> None:
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise SettingError(f"merge:threshold is a cosine, in [-1, 1]; got {self.threshold}")
        if not 0 <= self.lam <= 1:
            raise SettingError(f"merge:lam must be in [0, 1]; got {self.lam}")

    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        normalised = f"normalised over by {group.normalised}" if group.normalised else None
        obstacle = group.scaling_obstacle or group.fold_obstacle or normalised
        if obstacle is not None:
            return None, f"not {self.done}: {obstacle}"
        writer, kept = group.writers[0], torch.as_tensor(units, device="cpu")
        dropped = (
            torch.ones(group.width, dtype=torch.bool, device="cpu")
            .index_fill(0, kept, False)
            .nonzero()
            .squeeze(1)
        )
        table = self._table(writer, dropped, kept, state)
        match = self._choose(table)[:, None]
        good = (table.usable & (table.cosine >= table.threshold)).gather(1, match).squeeze(1)
        mixing = Mixing.selecting(group.width, units)
        mixing.matrix[dropped[good], match[good, 0]] = table.scale.gather(1, match).squeeze(1)[good]
        return mixing, f"{self.done} {int(good.sum())} of {len(dropped)} dropped units"

    def _choose(self, table: Table) -> Tensor:
        """The position among the kept units of the one that stands in, for every dropped unit:
        int64 (dropped,).
        """
        return table.distance.masked_fill(~table.usable, torch.inf).argmin(1)

    def _table(
        self, writer: Writer, dropped: Tensor, kept: Tensor, state: Mapping[str, Tensor]
    ) -> Table:
        if writer.norm is None:
            rows = _exact(writer.rows(state)).cpu()
        else:  # a bias before the normalisation is part of its mean
            rows = _exact(torch.cat([piece.rows(state) for piece in writer.weights], 1)).cpu()
        norms = torch.linalg.vector_norm(rows, dim=1)
        unit_rows = rows / norms.clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
        cosine = (unit_rows[dropped] @ unit_rows[kept].T).double()
        norms = norms.double()
        ratio = norms[dropped, None] / norms[kept]
        if writer.norm is None:
            scale, distance, threshold = ratio, 1 - cosine, PAPER_THRESHOLD_LINEAR
        else:
            channels = _Channels.read(writer.norm, writer.bias, state)
            affine = _derived if self.bn == "derived" else _published
            scale, constant = affine(ratio, channels.of(dropped, 0), channels.of(kept, 1))
            distance = self.lam * (1 - cosine) + (1 - self.lam) * _minmax(constant.abs() / scale)
            threshold = PAPER_THRESHOLD_NORM
        usable = torch.isfinite(scale) & torch.isfinite(distance)
        if self.bn == "derived":
            usable &= scale > 0  # a negative multiple does not go through the ReLU
        return Table(
            scale, distance, cosine, usable, threshold if self.threshold is None else self.threshold
        )


LARGE = 1 << 22  # entries of a table, from which float32 is exact enough for its cosines


def _exact(rows: Tensor) -> Tensor:
    return rows.double() if rows.numel() < LARGE or rows.dtype == torch.float64 else rows.float()


@dataclass(frozen=True)
class Table:
    """How each kept unit would stand in for each dropped one: (dropped, kept) each.

    Attributes:
        scale: the multiple of the kept unit.
        distance: how unlike they are.
        usable: whether it can at all.
        threshold: least cosine similarity.
    """

    scale: Tensor
    distance: Tensor
    cosine: Tensor
    usable: Tensor
    threshold: float


@dataclass(frozen=True)
class _Channels:
    """The affine maps of a normalisation, one entry a unit: γ, β, μ, variance and σ."""

    gamma: Tensor
    beta: Tensor
    mu: Tensor
    var: Tensor
    sigma: Tensor

    @classmethod
    def read(cls, norm: Normaliser, bias: Slice | None, state: Mapping[str, Tensor]) -> _Channels:
        mu, var = _values(norm.mean, state), _values(norm.var, state)
        gamma = _values(norm.scale, state) if norm.scale else torch.ones_like(mu)
        beta = _values(norm.shift, state) if norm.shift else torch.zeros_like(mu)
        if bias is not None:
            mu = mu - _values(bias, state)
        return cls(gamma, beta, mu, var, (var + norm.eps).sqrt())

    def of(self, units: Tensor, axis: int) -> _Channels:
        """The entries of some units, along the rows (axis 0) or the columns (axis 1) of a dropped ×
        kept table.
        """
        parts = (self.gamma, self.beta, self.mu, self.var, self.sigma)
        return _Channels(*(part[units].unsqueeze(1 - axis) for part in parts))


def _values(piece: Slice, state: Mapping[str, Tensor]) -> Tensor:
    return piece.rows(state).double().cpu().squeeze(1)


def _derived(s: Tensor, one: _Channels, two: _Channels) -> tuple[Tensor, Tensor]:
    """S and B of the module's first lines; (dropped, kept) each."""
    scale = s * (one.gamma / two.gamma) * (two.sigma / one.sigma)
    constant = (one.gamma / one.sigma) * (
        s * two.mu - s * two.sigma * two.beta / two.gamma - one.mu
    ) + one.beta
    return scale, constant


def _published(s: Tensor, one: _Channels, two: _Channels) -> tuple[Tensor, Tensor]:
    """What the authors' code computes: dropped and kept changed places, variance for σ, no eps."""
    scale = s * (two.gamma / one.gamma) * (one.var / two.var)
    constant = (two.gamma / two.var) * (
        s * one.mu - s * one.var * one.beta / one.gamma - two.mu
    ) + two.beta
    return scale, constant


def _minmax(table: Tensor) -> Tensor:
    """Each row brought to [0, 1] by its own least and greatest finite entry."""
    finite = torch.isfinite(table)
    low = table.masked_fill(~finite, torch.inf).amin(1, keepdim=True)
    high = table.masked_fill(~finite, -torch.inf).amax(1, keepdim=True)
    return torch.where(high > low, (table - low) / (high - low), torch.zeros_like(table))
