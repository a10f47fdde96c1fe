"""What a compensation is, and the step that applies one to a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.core.registry import Registry
from niwaki.graph import Graph, Group
from niwaki.methods.base.evidence import Calibration, Evidence


@dataclass(frozen=True)
class Compensated:
    """Mixings by group name, for groups that have one; notes say for every pruned group what was
    done or why nothing.

    Attributes:
        residuals: group name → E|W·(x - x̂)|² as a share of E|W·(x - E x)|², W the consumers'
            weights, x the units where they are read and x̂ what the mixing makes of them; for
            compensations that know it.
        remarks: what is to be said of all groups together.
    """

    mixings: Mapping[str, Mixing]
    notes: Mapping[str, str]
    residuals: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class Compensation(ABC):
    """Finds mixings; a frozen dataclass whose fields are the settings."""

    @abstractmethod
    def apply(self, evidence: Evidence, plan: Plan) -> Compensated:
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

    def apply(self, evidence: Evidence, plan: Plan) -> Compensated:
        mixings, notes = {}, {}
        for name, units in plan.kept.items():
            mixing, notes[name] = self.mix(evidence.graph[name], units, evidence.state)
            if mixing is not None:
                mixings[name] = mixing
        return Compensated(mixings, notes)


COMPENSATIONS: Registry[Compensation] = Registry("compensation")


def compensate(
    graph: Graph,
    plan: Plan,
    compensation: Compensation | str,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> Compensated:
    """Find the mixing of every group that loses units.

    Args:
        compensation: a compensation, or its notation: `"auto"`, `"none"`, `"merge:threshold=0.45"`,
            `"fold"`, `"moments"`, `"reconstruct"`.
        calibration: unlabelled inputs, for compensations that learn from activations.

    Raises:
        UnknownNameError: no such compensation or setting.
        SettingError: the compensation needs inputs and there are none.
    """
    method = COMPENSATIONS.build(compensation) if isinstance(compensation, str) else compensation
    return method.apply(Evidence(graph, calibration, torch.Generator().manual_seed(seed)), plan)
