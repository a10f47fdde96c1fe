"""What a pruning and its preview do alike: units are scored, and a plan of them is repaired."""

from __future__ import annotations

from niwaki.core.plan import Plan
from niwaki.methods.base import (
    Compensation,
    Criterion,
    Cut,
    Evidence,
    Scores,
    compensate,
    scored,
)
from niwaki.pruning.allocation import with_losses
from niwaki.pruning.selection import Selection


def scores_of(
    criterion: Criterion, evidence: Evidence, repair: Compensation, selection: Selection
) -> Scores:
    """Scores of units; none where no unit goes."""
    if "units" not in selection.parts:
        return Scores(evidence.graph, {}, evidence)
    return with_losses(scored(criterion, evidence), repair, selection)


def repaired(repair: Compensation, evidence: Evidence, seed: int, plan: Plan) -> Cut:
    """A plan's cut; every attempt draws the same numbers."""
    evidence.generator.manual_seed(seed)
    return compensate(Cut(evidence.graph, plan, evidence=evidence), repair)
