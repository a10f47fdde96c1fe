"""Sparse structure selection (SSS): factors on channels or branches that are trained to exact zero.

Every unit's or branch's output is multiplied by a factor f ≥ 0 that begins at 1. The loss gains
γ·Σ|f|, met by accelerated proximal gradient steps while all other weights take their usual ones.
What ends at zero is taken out, and the other factors fold into the weights: there is no
fine-tuning. Source: Huang, Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks,
ECCV 2018, arXiv 1707.01213, eq. 10-12.

Example: f = 1, g = 0.5, lr = 0.1, γ = 1, momentum 0.9, from rest: z = S_0.1(0.95) = 0.85,
v = -0.15, f = 0.85 + 0.9·(-0.15) = 0.715.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.factors._places import Over
from niwaki.methods.factors.proximal import AcceleratedProximalGradient, LearningRate
from niwaki.methods.factors.scaled import (
    factors_of,
    fold_factors,
    others,
    plan_of_zeros,
    with_factors,
    zero_branches,
)
from niwaki.methods.given import Given


@dataclass(frozen=True)
class StructureSelection:
    """The method's settings, and its parts in the order of their use.

    Example:
        >>> import niwaki, torch
        >>> from niwaki.training import TrainSettings, fit
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> x, labels = torch.randn(8, 4), torch.arange(8) % 2
        >>> graph, batches = niwaki.trace(model, x), [(x, labels)]
        >>> method = StructureSelection(reg=0.01)
        >>> factored = method.prepare(graph)
        >>> history = fit(
        ...     factored, lambda epoch: batches, settings=TrainSettings(epochs=1, lr=0.1),
        ...     progress=False, after_step=method.after_step(lr=0.1),
        ...     parameter_groups=[{"params": method.weights(factored)}],
        ... )
        >>> plain = niwaki.trace(method.folded(factored), x)
        >>> smaller = niwaki.shrink(niwaki.Cut(plain, method.plan(graph, factored)))

    Attributes:
        over: "units" or "branches".
        reg: γ; momentum: of the proximal steps.
    """

    over: Over = "units"
    reg: float = 0.01
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.over not in get_args(Over):
            raise UnknownNameError("kind of structure", self.over, get_args(Over))
        if not 0 <= self.reg < math.inf or not 0 <= self.momentum < 1:
            raise SettingError(
                f"reg must be 0 or more and momentum in [0, 1); got {self.reg} and {self.momentum}"
            )

    def prepare(self, graph: Graph) -> nn.Module:
        """A copy of the network with factors of one."""
        return with_factors(graph, self.over)

    def weights(self, model: nn.Module) -> list[nn.Parameter]:
        """What the optimiser moves: all but the factors."""
        return others(model)

    def after_step(self, lr: LearningRate) -> AcceleratedProximalGradient:
        """What moves the factors, after every step of the optimiser."""
        return AcceleratedProximalGradient(self.reg, lr, momentum=self.momentum)

    def folded(self, model: nn.Module) -> nn.Module:
        """The trained network without factors; it computes the same."""
        return fold_factors(model)

    def plan(self, graph: Graph, model: nn.Module) -> Plan:
        """The units whose factor is not zero."""
        return plan_of_zeros(graph, model)

    def branches(self, model: nn.Module) -> tuple[str, ...]:
        """The branches whose factor is zero."""
        return zero_branches(model)

    def criterion(self, model: nn.Module) -> FactorScores:
        """The factors as scores of units, for a budget of one's own; of groups that have some."""
        values = {
            name: factor.detach().double().cpu() for name, factor in factors_of(model).items()
        }
        return FactorScores(values, str(self))


@dataclass(frozen=True, eq=False)
class FactorScores(Given):
    """Factors as scores; groups that have none are not scored, so not pruned."""

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of the groups that have factors."""
        names = [group.name for group in evidence.graph.groups]
        return {name: self.units[name] for name in names if name in self.units}

    def __str__(self) -> str:
        return self.label
