"""What a criterion is, and the step that scores a graph with one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

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


def score(
    graph: Graph,
    criterion: Criterion | str,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    say: Callable[[str], None] = warnings.warn,
) -> Scores:
    """Score every group of a graph.

    Args:
        criterion: a criterion, or its notation: `"l2"`, `"random"`.
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
    method = CRITERIA.build(criterion) if isinstance(criterion, str) else criterion
    return scored(
        method, Evidence(graph, calibration, torch.Generator().manual_seed(seed), weights, say)
    )


def scored(method: Criterion, evidence: Evidence) -> Scores:
    """The same of a criterion that is built, from evidence that its next step can use too."""
    scores = {}
    for name, given in method.scores(evidence).items():
        values = given.double().cpu()
        mean = values.mean()
        scores[name] = values if method.comparable or not mean > 0 else values / mean
    return Scores(evidence.graph, scores, evidence, method.dependencies(evidence))


def refine(
    graph: Graph,
    plan: Plan,
    criterion: Criterion | str,
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
    method = CRITERIA.build(criterion) if isinstance(criterion, str) else criterion
    return method.refine(
        plan, Evidence(graph, calibration, torch.Generator().manual_seed(seed), say=say)
    )
