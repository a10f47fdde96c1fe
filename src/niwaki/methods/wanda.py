"""Wanda: weights by the activations that they meet.

An entry of a weight that reads unit j scores S_ij = |W_ij|·‖X_j‖₂, with ‖X_j‖ the norm of what it
reads over all calibration inputs and places. A unit scores the sum over all entries that read it.
Source: Sun, Liu, Bair, Kolter, A Simple and Effective Pruning Approach for Large Language Models,
ICLR 2024, arXiv 2306.11695, eq. 1; the sum over a unit's column is the structured reading of it.

Example: a unit with the values 3 and 4 on two inputs, read by the weights 1 and -2, scores
(1 + 2)·√(3² + 4²) = 15.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods._statistics import columns, per_column, statistics
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.norms import L1


@CRITERIA.register("wanda")
@dataclass(frozen=True)
class Wanda(Criterion):
    """Σ |W|·‖X‖₂ over the entries of all weights that read a unit.

    Groups that no weight reads are scored by the sum of their own absolute weights.
    """

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self._of(evidence, [group])[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""
        return self._of(evidence, list(evidence.graph.groups))

    def _of(self, evidence: Evidence, groups: list[Group]) -> dict[str, Tensor]:
        seen = statistics(evidence, [group.name for group in groups], "wanda")
        scores = {}
        for group in groups:
            parts = [
                (column.abs().sum(2) * per_column(known.energy, column).sqrt()).sum(1)
                for weight, known in seen.get(group.name, {}).items()
                for column in columns(evidence.graph, evidence, group.name, weight)
            ]
            scores[group.name] = torch.stack(parts).sum(0) if parts else L1().score(group, evidence)
        return scores
