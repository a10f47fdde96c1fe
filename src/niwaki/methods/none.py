"""No compensation: what goes is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.graph import Group
from niwaki.methods.base.compensation import COMPENSATIONS, Groupwise


@COMPENSATIONS.register("none")
@dataclass(frozen=True)
class NoCompensation(Groupwise):
    """Plain pruning."""

    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        return None, "pruned plainly"
