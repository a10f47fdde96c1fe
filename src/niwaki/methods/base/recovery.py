"""What a recovery is, and the step that applies one to a pruned network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from niwaki.core.registry import Registry
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.base.side_by_side import SideBySide
from niwaki.running import preserved_rng


class Recovery(ABC):
    """Changes values of a pruned network's tensors, no shapes; a frozen dataclass whose fields are
    the settings.
    """

    @abstractmethod
    def apply(self, runs: SideBySide) -> str:
        """Go through the two networks once and mend the pruned one; a sentence on what was done."""


RECOVERIES: Registry[Recovery] = Registry("recovery")


def recover(
    cut: Cut,
    model: nn.Module,
    recovery: Recovery | str,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> str:
    """Mend a pruned network in place, layer by layer, from unlabelled inputs.

    Args:
        cut: what the pruned network was made by.
        model: the pruned network, whose check has been passed; what it computes changes.
        recovery: a recovery, or its notation: `"batchnorm"`, `"refit:ridge=0.01"`, `"lbfgs"`.

    Returns:
        a sentence on what was done.

    Raises:
        UnknownNameError: no such recovery or setting.
        SettingError: there are no calibration inputs, or they hold NaN.
        TraceError: the networks cannot be run on them.
    """
    method = RECOVERIES.build(recovery) if isinstance(recovery, str) else recovery
    evidence = Evidence(cut.graph, calibration, torch.Generator().manual_seed(seed))
    with preserved_rng(), torch.no_grad():
        return method.apply(SideBySide(evidence, cut.plan, model, type(method).__name__.lower()))
