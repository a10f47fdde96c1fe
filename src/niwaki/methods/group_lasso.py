"""Structured sparsity learning: the Euclidean norms of all that is learned to compute a unit.

Source: Wen et al., Learning Structured Sparsity in Deep Neural Networks, NeurIPS 2016, eq. 2
(filter-wise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Group, Role
from niwaki.methods.base.penalty import PENALTIES, Penalty, Term


@PENALTIES.register("group-lasso")
@dataclass(frozen=True)
class GroupLasso(Penalty):
    """reg · Σ ‖w‖₂ over the units' rows in every tensor that writes them; where a row is zero its
    gradient is zero.
    """

    reg: float = 1e-4

    def terms(self, group: Group) -> list[Term]:
        return [Term(piece, _norms) for piece in group.of_role(Role.PRODUCER)]

    def refusal(self, groups: Sequence[Group]) -> str:
        return "there is no group of channels to lay 'group-lasso' over"


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
