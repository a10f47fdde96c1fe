"""Receding neuron importances: a penalty that pushes down small importances and leaves large ones
alone.

Source: Suteu and Guo, Receding Neuron Importances for Structured Pruning, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph import Group
from niwaki.methods.base.penalty import PENALTIES, Penalty, Term, scale_refusal


@PENALTIES.register("rni")
@dataclass(frozen=True)
class RNI(Penalty):
    """reg · Σ p·(1 - log p), p = sigmoid(γ + b), on Sigmoid BatchNorm's γ.

    Its gradient, -log(p)·p·(1 - p), vanishes where p nears 1, twice over: needed units are free to
    stay.

    Attributes:
        b: the shift: the larger, the fewer units are pushed; the paper takes 3 for VGG and 0 for
            ResNet.
    """

    reg: float = 1e-3
    b: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.b):
            raise SettingError(f"the shift b must be a finite number; got {self.b}")

    def terms(self, group: Group) -> list[Term]:
        return [Term(scale.piece, self._receding) for scale in group.scales if scale.bounded]

    def _receding(self, gamma: Tensor) -> Tensor:
        log_p = F.logsigmoid(gamma + self.b)  # exact also where p is too small for a float
        return log_p.exp() * (1 - log_p)

    def refusal(self, groups: Sequence[Group]) -> str:
        if any(group.scales for group in groups):
            return (
                "the scales of these groups are not bounded, and RNI needs importances in (0, 1): "
                "convert the model with niwaki.with_sigmoid_batchnorm(model) first, or use the "
                "penalty 'l1'"
            )
        return scale_refusal(groups, "a bounded normalisation scale")
