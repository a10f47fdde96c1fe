"""Compensations that put one kept unit in the place of each that goes, and a guard that makes such
a move safe.

What is like another by its weights need not be so where it is read. With moments of the units
there, counted on calibration inputs or derived from the weights, each move can be held against what
it does: with Δ the moves' rows of the mixing and t in [0, 1] a weight for each, a consumer's
    residual E|W·(x - M₀·x - diag(t)·Δ·z)|² is a convex quadratic in t. The guard goes
down it from t = 0, which is plain pruning, so that by these moments no consumer is worse off than
with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.methods.base.compensation import Groupwise
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.reconstruction.least_squares import Joint, as_one, residual, signal

PLACES = 64  # of a map that are looked at in every input
SWEEPS, ENOUGH = 100, 1e-9


@dataclass(frozen=True, kw_only=True)
class OneForOne(Groupwise):
    """One kept unit stands in for each that goes.

    Attributes:
        guard: weaken every move, for each consumer, to what lowers its residual: by moments counted
            on the calibration inputs, or derived from the weights where there are none.
    """

    guard: bool = False

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        cut = super().apply(evidence, plan)
        return _guarded(cut, evidence, plan) if self.guard else cut


def _guarded(cut: Cut, evidence: Evidence, plan: Plan) -> Cut:
    graph, who = evidence.graph, "the guard of a compensation"
    if evidence.calibration is None:
        known, source = derive(graph, cut.mixings, Prior()), "derived moments"
    else:
        known, source = gather(evidence, cut.mixings, who, PLACES), "the calibration inputs"
    mixings, notes, residuals = dict(cut.mixings), dict(cut.notes), {}
    for name, weights in known.items():
        units, weaker, lost, seen = plan.kept[name], {}, 0.0, 0.0
        for weight, moments in weights.items():
            gram = consumer_gram(graph, name, weight)
            weaker[weight] = weakened(cut.mixings[name].at(weight), moments, units, gram)
            joint = Joint.of_original(moments.mean, moments.covariance, units)
            lost, seen = (
                lost + residual(joint, weaker[weight], units, gram),
                seen + signal(joint, units, gram),
            )
        mixings[name], residuals[name] = as_one(weaker), lost / seen if seen > 0 else 0.0
        notes[name] += (
            f", guarded: by {source} {residuals[name]:.2%} of what its consumers read is lost"
        )
    return replace(cut, mixings=mixings, notes=notes, residuals=residuals)


def weakened(mixing: Mixing, moments: Moments, units: Sequence[int], gram: Tensor) -> Mixing:
    """A mixing without a shift whose moves are weakened so that E|W·(x - M·z)|² is least.

    Args:
        units: the kept units.
        gram: Wᵀ·W over the units (width, width).
    """
    joint = Joint.of_original(moments.mean, moments.covariance, units).uncentred()
    plain = Mixing.selecting(len(gram), units).matrix
    moves = mixing.matrix - plain
    quadratic = gram * (moves @ joint.zz @ moves.T)
    linear = ((gram @ joint.rz) * moves).sum(1)
    return Mixing(plain + _least_in_box(quadratic, linear)[:, None] * moves)


def _least_in_box(quadratic: Tensor, linear: Tensor) -> Tensor:
    """argmin of tᵀ·Q·t - 2·lᵀ·t over 0 ≤ t ≤ 1, by coordinates from zero: (n,)."""
    weights = torch.zeros_like(linear)
    slope, own = linear.clone(), quadratic.diagonal()  # l - Q·t
    places = (own > 0).nonzero().flatten().tolist()
    for _ in range(SWEEPS):
        moved = 0.0
        for place in places:
            new = float((weights[place] + slope[place] / own[place]).clamp(0, 1))
            step = new - float(weights[place])
            if step:
                weights[place] = new
                slope -= step * quadratic[:, place]
                moved = max(moved, abs(step))
        if moved < ENOUGH:
            break
    return weights
