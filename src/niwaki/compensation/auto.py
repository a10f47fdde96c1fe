"""The best compensation that can be had with what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from niwaki.compensation.base import COMPENSATIONS, Compensated, Compensation
from niwaki.compensation.mixing import Mixing
from niwaki.compensation.moments import DerivedMoments
from niwaki.compensation.reconstruct import Reconstruct
from niwaki.evidence import Evidence
from niwaki.graph import Group
from niwaki.plan import Plan


@COMPENSATIONS.register("auto")
@dataclass(frozen=True)
class Auto(Compensation):
    """`reconstruct` where there are calibration inputs, `moments` where there are none."""

    def mix(self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]) -> tuple[Mixing | None, str]:
        raise NotImplementedError("what is done depends on what there is: see apply")

    def apply(self, evidence: Evidence, plan: Plan) -> Compensated:
        if evidence.calibration is None:
            made, why = DerivedMoments().apply(evidence, plan), "moments, as there are no calibration inputs"
        else:
            made, why = Reconstruct().apply(evidence, plan), "reconstruct, as there are calibration inputs"
        return replace(made, remarks=(f"compensation: {why}", *made.remarks))
