"""The factor that a normalisation multiplies a unit by: a unit that is scaled to nothing does
nothing.

Source: Liu et al., Network Slimming, ICCV 2017 (|γ| of BatchNorm); Suteu and Guo, Receding Neuron
Importances, 2022 (sigmoid(γ) of Sigmoid BatchNorm). The same number of LayerNorm, RMSNorm and layer
scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence


@CRITERIA.register("bn-scale")
@dataclass(frozen=True)
class BnScale(Criterion):
    """Mean of the absolute factors that a unit is multiplied by. Groups without any are not scored,
    so not pruned.

    Comparable between groups as it is: one threshold for the whole network is what the paper lays
    over it.
    """

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        if not group.scales:
            raise SettingError(_refusal(group.name))
        factors = []
        for scale in group.scales:
            entries = scale.piece.rows(evidence.state).double()
            factors.append((torch.sigmoid(entries) if scale.bounded else entries.abs()).mean(1))
        return torch.stack(factors).mean(0)

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of the groups that have a scale.

        Raises:
            SettingError: none has.
        """
        groups = evidence.graph.groups
        scores = {group.name: self.score(group, evidence) for group in groups if group.scales}
        if groups and not scores:
            raise SettingError(_refusal(", ".join(group.name for group in groups[:5])))
        return scores


def _refusal(names: str) -> str:
    return (
        f"bn-scale reads normalisation scales, and {names} has none; the criteria l1 and l2 read "
        "the weights"
    )
