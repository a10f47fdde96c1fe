"""The best criterion that can be had with what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import NiwakiError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.examples import judged_on
from niwaki.methods.data_free.repair import DerivedMoments
from niwaki.methods.distortion.probes import Probes
from niwaki.methods.folding.criterion import FoldClusters
from niwaki.methods.norms import L2
from niwaki.methods.reconstruction.criterion import Reconstruction
from niwaki.running import preserved_rng

TRIED = 0.5  # of every group is cut when criteria are compared
WIDE = 1024  # units; where a group has more, elimination one by one would take minutes


@CRITERIA.register("auto")
@dataclass(frozen=True)
class AutoCriterion(Criterion):
    """With calibration inputs, what is lost after the repair (`reconstruct`). Without, half of
    every group is cut by each of `reconstruct`, `fold` and `l2` and repaired by `moments`; the one
    whose network answers most like the original on the example inputs is taken, and the notes name
    it.

    Groups of more than 1,024 units leave `reconstruct` out: it would take minutes.
    """

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return self.scores(evidence)[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        return _comparable(self.choice(evidence), evidence)

    def refine(self, plan: Plan, evidence: Evidence) -> Plan:
        """As the chosen criterion does."""
        return self.choice(evidence).refine(plan, evidence)

    def choice(self, evidence: Evidence) -> Criterion:
        """The criterion that this evidence speaks for."""
        known = evidence.known.get(self)
        if known is None:
            known, why = _choose(evidence)
            evidence.known[self] = known
            evidence.say(f"criterion: {CRITERIA.spell(known)}, {why}")
        return known


def _choose(evidence: Evidence) -> tuple[Criterion, str]:
    narrow = all(group.width <= WIDE for group in evidence.graph.groups)
    if evidence.calibration is not None:
        if narrow:
            return Reconstruction(), "as there are calibration inputs"
        return L2(), f"as there are groups of more than {WIDE} units"
    candidates: list[Criterion] = [L2(), FoldClusters(), *([Reconstruction()] if narrow else [])]
    try:
        with preserved_rng(), torch.no_grad():
            errors = _errors(evidence, candidates)
    except (NiwakiError, RuntimeError) as error:
        return L2(), f"as the others could not be compared: {str(error).splitlines()[0]}"
    least = min(range(len(candidates)), key=errors.__getitem__)
    named = ", ".join(
        f"{CRITERIA.spell(candidate)} {error:.3g}"
        for candidate, error in zip(candidates, errors, strict=True)
    )
    return candidates[least], f"as on the example inputs the answers differ least ({named})"


def _errors(evidence: Evidence, candidates: list[Criterion]) -> list[float]:
    probes = Probes(evidence.graph, [judged_on(evidence.graph.inputs)])
    repair = DerivedMoments()
    return [
        probes.together(repair.apply(evidence, _half(candidate, evidence)))
        for candidate in candidates
    ]


def _half(criterion: Criterion, evidence: Evidence) -> Plan:
    kept = {}
    for name, scores in criterion.scores(evidence).items():
        count = max(1, round(len(scores) * (1 - TRIED)))
        best = scores.argsort(descending=True, stable=True)[:count]
        kept[name] = Kept(len(scores), tuple(best.sort().values.tolist()))
    return Plan(kept)


def _comparable(criterion: Criterion, evidence: Evidence) -> dict[str, Tensor]:
    scores = criterion.scores(evidence)
    if criterion.comparable:
        return scores
    doubles = {name: units.double().cpu() for name, units in scores.items()}
    return {
        name: units / mean if (mean := units.mean()) > 0 else units
        for name, units in doubles.items()
    }
