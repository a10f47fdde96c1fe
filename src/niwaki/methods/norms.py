"""Norms of a unit's weights: what is small does little.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (L1); Kim et al., Neuron
Merging, NeurIPS 2020, uses both, with a Linear's bias as one more weight of the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence

COLUMNS = 4096  # of a tensor that are turned into float64 at once


@CRITERIA.register("l1")
@dataclass(frozen=True)
class L1(Criterion):
    """Sum of the absolute weights of a unit."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return _total(group, evidence, lambda rows: rows.abs().sum(1))


@CRITERIA.register("l2")
@dataclass(frozen=True)
class L2(Criterion):
    """Euclidean norm of a unit's weights."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return _total(group, evidence, lambda rows: rows.square().sum(1)).sqrt()


def _total(group: Group, evidence: Evidence, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Summed over a unit's tensors one by one, so that a stream with hundreds of writers is never
    in memory at once.
    """
    total = torch.zeros(group.width, dtype=torch.float64, device="cpu")
    for rows in group.blocks(evidence.state):
        for start in range(0, rows.shape[1], COLUMNS):
            total += measure(rows[:, start : start + COLUMNS].double()).cpu()
    return total
