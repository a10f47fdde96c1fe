"""Scores that were worked out before, as a criterion like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from niwaki.graph import Group
from niwaki.methods.base.criterion import Criterion
from niwaki.methods.base.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Given(Criterion):
    """Scores by group, taken as they are.

    Attributes:
        label: what a record says of them.
    """

    comparable: ClassVar[bool] = True

    units: Mapping[str, Tensor]
    label: str = "given"

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """The scores of a group."""
        return self.units[group.name]

    def __str__(self) -> str:
        return self.label
