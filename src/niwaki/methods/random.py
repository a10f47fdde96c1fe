"""Chance: the baseline that every criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence


@CRITERIA.register("random")
@dataclass(frozen=True)
class Random(Criterion):
    """Uniform scores, the same for the same seed."""

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return torch.rand(
            group.width, generator=evidence.generator, dtype=torch.float64, device="cpu"
        )
