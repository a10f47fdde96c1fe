"""FPGM: a unit near the geometric median of its layer can be stood in for by the others.

Source: He et al., Filter Pruning via Geometric Median, CVPR 2019, eq. 6; `l2-GM` in Kim et al.,
Neuron Merging, 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence


@CRITERIA.register("l2-gm")
@dataclass(frozen=True)
class GeometricMedian(Criterion):
    """Sum of Euclidean distances from a unit's weights to those of all units of its group."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        rows = group.rows(evidence.state).double()
        return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
