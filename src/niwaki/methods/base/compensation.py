"""What a compensation is, and the step that applies one to a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from niwaki.core.errors import NiwakiError
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
            try:
                mixing, notes[name] = self.mix(evidence.graph[name], units, evidence.state)
            except Exception as error:
                mixing, notes[name] = None, _failed(self, error)
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
    evidence = _evidence(cut, calibration, seed)
    try:
        return method.apply(evidence, cut.plan)
    except Exception as error:
        # the cut itself is as good without: what went is left out, and proved all the same
        why = _failed(method, error)
        return Cut(cut.graph, cut.plan, notes=dict.fromkeys(cut.plan.kept, why), evidence=evidence)


def _failed(method: Compensation, error: Exception) -> str:
    """A note in the place of an exception inside a repair of niwaki's own; the user's own methods,
    and what the user can mend, are raised.
    """
    if isinstance(error, NiwakiError) or not type(method).__module__.startswith("niwaki."):
        raise error
    words = " ".join(str(error).split())[:300]
    return f"not repaired: {type(error).__name__.lstrip('_')}: {words}"


def _evidence(cut: Cut, calibration: Calibration | None, seed: int) -> Evidence:
    if calibration is None and cut.evidence is not None:
        return cut.evidence
    return Evidence(cut.graph, calibration, torch.Generator().manual_seed(seed))
