"""What a compensation is, and the step that applies one to a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.core.registry import Registry
from niwaki.graph import Group
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Calibration, Evidence


class Compensation(ABC):
    """Finds mixings; a frozen dataclass whose fields are the settings."""

    @abstractmethod
    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        """The mixings of all groups that lose units."""


class Groupwise(Compensation):
    """A compensation that needs nothing but a group's own weights: one group after the other."""

    @abstractmethod
    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        """The mixing for keeping `units` of a group, and a sentence on it.

        Args:
            units: the units that stay, ascending.
            state: the model's parameters and buffers by name, as they were before any pruning.

        Returns:
            the mixing, or None where this group can only be pruned plainly; the sentence then says
            why.
        """

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        mixings, notes = {}, {}
        for name, units in plan.kept.items():
            mixing, notes[name] = self.mix(evidence.graph[name], units, evidence.state)
            if mixing is not None:
                mixings[name] = mixing
        return Cut(evidence.graph, plan, mixings, notes, evidence=evidence)


COMPENSATIONS: Registry[Compensation] = Registry("compensation")


def compensate(
    cut: Cut,
    compensation: Compensation | str,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> Cut:
    """Find the mixing of every group that loses units.

    Args:
        cut: a plain one, as `select` gives it.
        compensation: a compensation, or its notation: `"auto"`, `"none"`,
            `"merge:threshold=0.45"`, `"fold"`, `"moments"`, `"reconstruct"`.
        calibration: unlabelled inputs, for compensations that learn from activations; without them
            those that the scores were made from.

    Raises:
        UnknownNameError: no such compensation or setting.
        SettingError: the compensation needs inputs and there are none.
    """
    method = COMPENSATIONS.build(compensation) if isinstance(compensation, str) else compensation
    return method.apply(_evidence(cut, calibration, seed), cut.plan)


def _evidence(cut: Cut, calibration: Calibration | None, seed: int) -> Evidence:
    if calibration is None and cut.evidence is not None:
        return cut.evidence
    return Evidence(cut.graph, calibration, torch.Generator().manual_seed(seed))
