"""What a pruning and its preview do alike: units are scored, and a plan of them is repaired."""

from __future__ import annotations

from niwaki.core.plan import Plan
from niwaki.methods.base import (
    Compensation,
    Cut,
    Evidence,
    compensate,
)


def repaired(repair: Compensation, evidence: Evidence, seed: int, plan: Plan) -> Cut:
    """A plan's cut; every attempt draws the same numbers."""
    evidence.generator.manual_seed(seed)
    return compensate(Cut(evidence.graph, plan, evidence=evidence), repair)
