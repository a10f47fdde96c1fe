"""Norms of a unit's weights: what is small does little.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (L1); Kim et al., Neuron Merging, NeurIPS 2020, uses
both, with a Linear's bias as one more weight of the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.criteria.base import CRITERIA, Criterion
from niwaki.evidence import Evidence
from niwaki.graph import Group


@CRITERIA.register("l1")
@dataclass(frozen=True)
class L1(Criterion):
    """Sum of the absolute weights of a unit."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return group.rows(evidence.state).double().abs().sum(1)


@CRITERIA.register("l2")
@dataclass(frozen=True)
class L2(Criterion):
    """Euclidean norm of a unit's weights."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(group.rows(evidence.state).double(), dim=1)
        return norms
