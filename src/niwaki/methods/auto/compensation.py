"""The best compensation that can be had with what there is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from niwaki.core.plan import Plan
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.data_free.repair import DerivedMoments
from niwaki.methods.reconstruction.repair import Reconstruct


@COMPENSATIONS.register("auto")
@dataclass(frozen=True)
class Auto(Compensation):
    """`reconstruct` where there are calibration inputs, `moments` where there are none; what loses
    against plain pruning is left out (niwaki.methods.base.guard).
    """

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        if evidence.calibration is None:
            method: Compensation = DerivedMoments(guard=True)
            why = "moments, as there are no calibration inputs"
        else:
            method, why = Reconstruct(guard=True), "reconstruct, as there are calibration inputs"
        cut = method.apply(evidence, plan)
        return replace(cut, remarks=(f"compensation: {why}", *cut.remarks))
