"""Network slimming: the absolute values of normalisation scales.

Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
eq. 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.penalty import PENALTIES, Penalty, Term, scale_refusal


@PENALTIES.register("l1")
@dataclass(frozen=True)
class Slimming(Penalty):
    """reg · Σ |s|, s the factor: of any normalisation with a scale; of Sigmoid BatchNorm
    sigmoid(γ).
    """

    reg: float = 1e-4

    def terms(self, group: Group) -> list[Term]:
        return [
            Term(scale.piece, torch.sigmoid if scale.bounded else _absolute)
            for scale in group.scales
        ]

    def refusal(self, groups: Sequence[Group]) -> str:
        return scale_refusal(groups, "a normalisation scale")


def _absolute(scale: Tensor) -> Tensor:
    return scale.abs()
