"""What a criterion is, and the step that scores a graph with one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps
from niwaki.core.registry import Registry
from niwaki.graph import Graph, Group
from niwaki.methods.base.cut import Scores
from niwaki.methods.base.evidence import Calibration, Evidence


class Criterion(ABC):
    """One score a unit of a group; a frozen dataclass whose fields are the settings.

    Attributes:
        comparable: whether scores of different groups mean the same, so that one threshold for the
            whole network can be laid over them as they are; others are divided by their group's
            mean first.
    """

    comparable: ClassVar[bool] = False

    @abstractmethod
    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores (width,), float64 on the CPU, high for units that should stay."""

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name; for criteria that look at the network as a whole, to be
        overridden.
        """
        return {group.name: self.score(group, evidence) for group in evidence.graph.groups}

    def refine(self, plan: Plan, evidence: Evidence) -> Plan:
        """A plan that keeps as many units of every group, perhaps others: for criteria that know of
        whole sets of units.
        """
        return plan

    def dependencies(self, evidence: Evidence, plan: Plan | None = None) -> DependencyMaps | None:
        """What scores that came from pairs of layers were made of, to be drawn; None of others.

        Args:
            plan: what stays; what goes is then drawn too.
        """
        return None


CRITERIA: Registry[Criterion] = Registry("criterion")
ScoreFunction = Callable[[Group, Evidence], Tensor]


@dataclass(frozen=True)
class FunctionCriterion(Criterion):
    """A function (group, evidence) → scores (width,), as a criterion like any other.

    Scores are divided by their group's mean before groups are compared, as those of most criteria.
    """

    function: ScoreFunction

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """What the function says.

        Raises:
            SettingError: that is no tensor of one number a unit.
        """
        scores = self.function(group, evidence)
        if not isinstance(scores, Tensor) or scores.shape != (group.width,):
            kind = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise SettingError(
                f"{self} must give group {group.name!r} a tensor of shape ({group.width},), one "
                f"score a unit; it gives {kind}"
            )
        return scores.detach()

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


def as_criterion(given: Criterion | str | ScoreFunction) -> Criterion:
    """A criterion, given as itself, by its notation, or as a function of a group and the evidence.

    Example:
        >>> criterion = as_criterion(lambda group, evidence: group.rows(evidence.state).amax(1))

    Raises:
        UnknownNameError: no such criterion or setting; the message lists all.
        SettingError: it is none of these.
    """
    if isinstance(given, str):
        return CRITERIA.build(given)
    if isinstance(given, Criterion):
        return given
    if callable(given) and not isinstance(given, type):
        return FunctionCriterion(given)
    raise SettingError(
        "a criterion is a name, a Criterion, or a function (group, evidence) → scores; got "
        f"{given!r}"
    )


def score(
    graph: Graph,
    criterion: Criterion | str | ScoreFunction,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    say: Callable[[str], None] = warnings.warn,
) -> Scores:
    """Score every group of a graph.

    Args:
        criterion: a criterion, its notation (`"l2"`, `"random"`), or a function (group, evidence) →
            scores.
        calibration: inputs, for criteria that look at activations.
        weights: in the place of the model's own, for a model on the meta device.
        say: takes remarks that the user should read; by default a Python warning.

    Returns:
        the scores by group; for criteria that are not comparable between groups, divided by the
        group's mean.

    Raises:
        UnknownNameError: no such criterion or setting.
        SettingError: the criterion needs inputs and there are none.
    """
    method = as_criterion(criterion)
    return scored(
        method, Evidence(graph, calibration, torch.Generator().manual_seed(seed), weights, say)
    )


def scored(method: Criterion, evidence: Evidence) -> Scores:
    """The same of a criterion that is built, from evidence that its next step can use too."""
    scores = {}
    for name, units in method.scores(evidence).items():
        values = units.double().cpu()
        mean = values.mean()
        scores[name] = values if method.comparable or not mean > 0 else values / mean
    return Scores(evidence.graph, scores, evidence, method.dependencies(evidence))


def refine(
    graph: Graph,
    plan: Plan,
    criterion: Criterion | str | ScoreFunction,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    say: Callable[[str], None] = warnings.warn,
) -> Plan:
    """Improve a plan by what a criterion knows of whole sets of units; each group keeps as many as
    before.

    The criterion `reconstruct` exchanges kept units for others; most criteria change nothing.
    `prune` does this by itself.

    Args:
        criterion, calibration, seed, say: as of `score`.

    Raises:
        UnknownNameError: no such criterion or setting.
    """
    method = as_criterion(criterion)
    return method.refine(
        plan, Evidence(graph, calibration, torch.Generator().manual_seed(seed), say=say)
    )
