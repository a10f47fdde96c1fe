"""What a recovery is, and the step that applies one to a pruned network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from niwaki.core.errors import SettingError
from niwaki.core.registry import Registry
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.base.side_by_side import SideBySide
from niwaki.running import named_state, preserved_rng
from niwaki.running.computed import computed_again, computed_weights, with_plain_weights


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
        SettingError: there are no calibration inputs, or they hold NaN; or whole branches are gone.
        TraceError: the networks cannot be run on them.
    """
    method = RECOVERIES.build(recovery) if isinstance(recovery, str) else recovery
    if cut.plan.branches:
        raise SettingError(
            "a recovery goes through both networks layer by layer, and without whole branches they "
            "have other layers; train what is left instead (niwaki finetune)"
        )
    evidence = Evidence(cut.graph, calibration, torch.Generator().manual_seed(seed))
    plain = with_plain_weights(model, computed_weights(model)) if cut.graph.computed else model
    with preserved_rng(), torch.no_grad():
        said = method.apply(SideBySide(evidence, cut.plan, plain, type(method).__name__.lower()))
    if plain is not model:
        computed_again(plain, cut.graph.computed)
        _take(model, plain)
    return said


def _take(model: nn.Module, other: nn.Module) -> None:
    """Give a network the tensors of another of its form; a bias that is new comes with them."""
    layers = dict(model.named_modules())
    with torch.no_grad():
        own = named_state(model)
        for name, tensor in named_state(other).items():
            if name in own:
                own[name].copy_(tensor)
            else:
                layer, _, short = name.rpartition(".")
                layers[layer].register_parameter(short, nn.Parameter(tensor.detach().clone()))
