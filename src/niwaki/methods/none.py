"""No compensation: what goes is missing."""

from __future__ import annotations

from dataclasses import dataclass

from niwaki.core.plan import Plan
from niwaki.methods.base import COMPENSATIONS, Compensation, Evidence
from niwaki.methods.base.cut import Cut


@COMPENSATIONS.register("none")
@dataclass(frozen=True)
class NoCompensation(Compensation):
    """Plain pruning."""

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        """The cut as it is."""
        return Cut(evidence.graph, plan, evidence=evidence)
