"""Least squares without any data: the moments of the units follow from the weights and the stored
statistics.

Every value of the network is taken for Gaussian (niwaki.methods.data_free.propagate); inputs have
zero mean, unit variance, and a neighbourhood that is half white, half smooth: cov = ½·[same place]
+ ½·exp(-distance/3 places), which is what images look like from afar. The least squares of all
units on the kept ones under these moments trusts them too much where few units are left: what it
cannot foretell it shrinks towards the mean. Neuron Merging keeps the size of what it moves, but
only looks at one unit. The mean of the two mixings is better than either where units can be merged;
where they cannot, the least squares alone is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph.offsets import offsets
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.gaussian import Prior
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.neuron_merging import Merge
from niwaki.methods.reconstruction.least_squares import Joint, as_one, residual, signal, solve


@COMPENSATIONS.register("moments")
@dataclass(frozen=True)
class DerivedMoments(Compensation):
    """Least squares under Gaussian moments, half and half with merging.

    Attributes:
        ridge: λ as a share of the mean variance of the kept units.
        blend: in [0, 1], the weight of merging where it can be done.
        white, reach: the prior of neighbouring places, white·[same place] + (1 -
            white)·exp(-distance/reach).
    """

    ridge: float = 1e-3
    blend: float = 0.5
    white: float = 0.5
    reach: float = 3.0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("ridge", self.ridge, float("inf")),
            ("blend", self.blend, 1),
            ("white", self.white, 1),
        ):
            if not 0 <= value <= most:
                raise SettingError(f"moments:{name} must be from 0 to {most}; got {value}")
        if not self.reach > 0:
            raise SettingError(f"moments:reach must be above 0; got {self.reach}")

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        graph, mixings, notes, residuals = evidence.graph, {}, {}, {}
        obstacles = {name: graph[name].fold_obstacle for name in plan.kept}
        free = [name for name, obstacle in obstacles.items() if obstacle is None]
        moments = derive(graph, free, Prior(self.white, self.reach))
        for name, units in plan.kept.items():
            if name not in moments:
                notes[name] = f"not repaired: {obstacles[name] or 'no weight reads it'}"
                continue
            shift = offsets(graph, name)[1] is None
            merged, _ = (
                Merge().mix(graph[name], units, evidence.state) if self.blend else (None, "")
            )
            found, lost, seen = {}, 0.0, 0.0
            for weight, counted in moments[name].items():
                joint, gram = (
                    Joint.of_original(counted.mean, counted.covariance, units),
                    consumer_gram(graph, name, weight),
                )
                fitted = solve(joint, units, self.ridge, shift=shift)
                found[weight] = blended = self._blended(fitted, merged)
                plain = Mixing.selecting(len(gram), units)
                if residual(joint, blended, units, gram) > residual(joint, plain, units, gram):
                    found[weight] = fitted  # by these moments merging does harm here
                lost, seen = (
                    lost + residual(joint, found[weight], units, gram),
                    seen + signal(joint, units, gram),
                )
            mixings[name], residuals[name] = as_one(found), lost / seen if seen > 0 else 0.0
            notes[name] = (
                f"fitted to derived moments{', half merged' if merged else ''}; by these "
                f"{residuals[name]:.2%} is lost"
            )
        return Cut(graph, plan, mixings, notes, residuals, evidence=evidence)

    def _blended(self, fitted: Mixing, merged: Mixing | None) -> Mixing:
        if merged is None:
            return fitted
        matrix = (1 - self.blend) * fitted.matrix + self.blend * merged.matrix
        return Mixing(matrix, None if fitted.shift is None else (1 - self.blend) * fitted.shift)
