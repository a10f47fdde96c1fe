"""Chance: the baseline that every criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.criteria.base import CRITERIA, Criterion
from niwaki.evidence import Evidence
from niwaki.graph import Group


@CRITERIA.register("random")
@dataclass(frozen=True)
class Random(Criterion):
    """Uniform scores, the same for the same seed."""

    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return torch.rand(group.width, generator=evidence.generator, dtype=torch.float64, device="cpu")
