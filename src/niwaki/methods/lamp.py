"""LAMP: what a unit weighs beside the units of its layer that are no lighter.

With the units of a group in the order of their squared norms, s(u) = ‖w_u‖² / Σ_{v ≥ u} ‖w_v‖². The
heaviest unit of every group scores 1, so that one threshold for the network empties no group, and
decides how much goes from each. Source: Lee, Park, Mo, Ahn, Shin, Layer-Adaptive Sparsity for the
Magnitude-based Pruning, ICLR 2021, arXiv 2010.07611, there for single weights.

Example: units of the squared norms 1, 4 and 5 score 1/10, 4/9 and 5/5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.norms import L2


@CRITERIA.register("lamp")
@dataclass(frozen=True)
class Lamp(Criterion):
    """‖w_u‖² over the sum of those of all units of the group that come no earlier when sorted."""

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of a group."""
        squares, order = L2().score(group, evidence).square().sort(stable=True)
        heavier = squares.flip(0).cumsum(0).flip(0)
        scores = torch.empty_like(squares)
        scores[order] = squares / heavier.clamp(min=1e-300)
        return scores
