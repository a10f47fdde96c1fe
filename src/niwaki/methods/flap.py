"""FLAP: units that hardly vary are put into a constant.

The score of a unit that the weight W reads is Var(X_j)·‖W_:j‖²: what its readers lose when it is
replaced by its mean, which the repair `flap` puts into their biases. Scores are standardised within
a group (less their mean, divided by their standard deviation) before groups are compared. Source:
An, Zhao, Yu, Tang, Wang, Fluctuation-based Adaptive Structured Pruning for Large Language Models,
AAAI 2024, arXiv 2312.11983, section 3.

Example: a unit with the values 3 and 5 on two inputs, read by the weights 1 and -2, scores
((3 - 4)² + (5 - 4)²)/(2 - 1)·(1² + 2²) = 10; without it the readers' biases gain 4·1 and 4·(-2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Group
from niwaki.graph.offsets import offsets
from niwaki.methods._statistics import Seen, columns, per_column, statistics
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.norms import L2


@CRITERIA.register("flap")
@dataclass(frozen=True)
class Flap(Criterion):
    """Var(X)·‖W‖², summed over the columns of all weights that read a unit, standardised within
    its group.

    Groups that no weight reads are scored by their own squared weights.

    Attributes:
        standardise: off, scores are the plain products.
    """

    comparable: ClassVar[bool] = True

    standardise: bool = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self._of(evidence, [group])[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""
        return self._of(evidence, list(evidence.graph.groups))

    def _of(self, evidence: Evidence, groups: list[Group]) -> dict[str, Tensor]:
        seen = statistics(evidence, [group.name for group in groups], "flap")
        plain = {
            group.name: _fluctuations(group, evidence, seen.get(group.name, {})) for group in groups
        }
        return (
            {name: _standardised(score) for name, score in plain.items()}
            if self.standardise
            else plain
        )


def _fluctuations(group: Group, evidence: Evidence, seen: dict[str, Seen]) -> Tensor:
    parts = [
        (
            column.square().sum(2) * per_column(known.deviations / max(1, known.count - 1), column)
        ).sum(1)
        for weight, known in seen.items()
        for column in columns(evidence.graph, evidence, group.name, weight)
    ]
    return torch.stack(parts).sum(0) if parts else L2().score(group, evidence).square()


def _standardised(scores: Tensor) -> Tensor:
    apart = scores - scores.mean()
    return apart / apart.square().mean().sqrt().clamp(min=1e-300)


@COMPENSATIONS.register("flap")
@dataclass(frozen=True)
class BiasCompensation(Compensation):
    """The mean of every unit that goes, on calibration inputs, put into its readers' biases."""

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        """The mixings: kept units are themselves, the others their mean."""
        graph, mixings, notes = evidence.graph, {}, {}
        seen = statistics(evidence, list(plan.kept), "flap")
        for name, units in plan.kept.items():
            why = graph[name].fold_obstacle or offsets(graph, name)[1]
            known = seen.get(name, {})
            if why is not None or not known:
                notes[name] = f"pruned plainly: {why or 'no weight reads it'}"
                continue
            mixings[name] = _with_means(graph[name].width, units, known)
            notes[name] = "the means of what went are in the readers' biases"
        return Cut(evidence.graph, plan, mixings, notes, evidence=evidence)


def _with_means(width: int, units: Sequence[int], seen: dict[str, Seen]) -> Mixing:
    """For every reader its own constant; where it reads a unit at several positions, their mean."""
    plain = Mixing.selecting(width, units)
    shifts = {weight: known.mean.mean(1) for weight, known in seen.items()}
    for shift in shifts.values():
        shift[list(units)] = 0
    readers = {weight: replace(plain, shift=shift) for weight, shift in shifts.items()}
    return replace(plain, shift=next(iter(shifts.values())), readers=readers)
