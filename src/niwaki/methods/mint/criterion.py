"""MINT: what no later layer depends on can go.

Source: Ganesh, Corso, Yasaei Sekeh, MINT: Deep Network Compression via Mutual Information-based
Neuron Trimming, ICPR 2020, arXiv 2003.08472. The paper cuts blocks of weights between groups of
channels (`niwaki.trim`); here a unit's score is made of its blocks, so that MINT joins every budget
and compensation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps
from niwaki.core.work import Engine, Workers
from niwaki.graph import Graph, Group
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.mint._layer_dependencies import Dependency, Estimation, layer_dependencies
from niwaki.methods.mint.activations import Sampling
from niwaki.methods.mint.by_layer import PairSettings
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.methods.mint.resampling import Resampling

TIES = 1e-6  # what weights count beside dependencies: enough to put units of one group in an order


@CRITERIA.register("mint")
@dataclass(frozen=True)
class Mint(Criterion):
    """How much the layers that read a unit depend on it, given the other units that they read.

    The mean over the child's groups of I(child group; the unit's group | the other groups); of
    several readers, the largest. Units that nothing reads through a weight score by what they
    themselves owe to their parents. Units of one group share a
    value: among them the norm of their weights decides.

    Attributes:
        groups: of the channels of a layer that is read.
        samples_per_class, samples: inputs to draw: of each class where there are class numbers,
            else of all.
        resampling: "nearest" is the paper's; "once" is less biased
            (`niwaki.conditional_mutual_information`).
        engine, workers: "local" processes, or "ray".
        folder: where finished layers are kept.
        child_groups: of the channels of the layer that reads; None: as many as of the other's.
        by_layer: what single layers have of their own (`niwaki.Estimation`).
    """

    comparable: ClassVar[bool] = True

    groups: int = 8
    samples_per_class: int = 250
    samples: int = 2500
    resampling: Resampling = "nearest"
    engine: Engine = "local"
    workers: int = 1
    folder: str | None = None
    child_groups: int | None = None
    by_layer: Mapping[str, PairSettings] = field(default_factory=dict)

    def estimation(self) -> Estimation:
        """The settings as the estimator takes them."""
        return Estimation(
            self.groups,
            self.child_groups,
            Sampling(self.samples_per_class, self.samples),
            self.resampling,
            Workers(self.engine, self.workers),
            None if self.folder is None else Path(self.folder),
            self.by_layer,
        )

    def __post_init__(self) -> None:
        self.estimation()

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self.scores(evidence)[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""
        dependencies = layer_dependencies(evidence, layer_pairs(evidence.graph), self.estimation())
        for remark in dict.fromkeys(remark for item in dependencies for remark in item.remarks):
            evidence.say(remark)
        evidence.known[Mint] = dependencies
        return unit_scores(evidence.graph, dependencies, evidence.state)

    def dependencies(self, evidence: Evidence, plan: Plan | None = None) -> DependencyMaps | None:
        """The dependencies between the groups of adjacent layers, and what goes of them."""
        dependencies = evidence.known.get(Mint)
        return None if dependencies is None else dependency_maps(dependencies, units=plan)


def unit_scores(
    graph: Graph, dependencies: Sequence[Dependency], state: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """One score a unit of every group, out of the blocks that it has a part in.

    Args:
        state: parameters by name, in the place of the model's own.
    """
    weights = graph.state if state is None else state
    return {
        group.name: _with_weights(group, _of_blocks(group, dependencies), weights)
        for group in graph.groups
    }


def _of_blocks(group: Group, dependencies: Sequence[Dependency]) -> Tensor:
    read = [
        _as_parent(group, item) for item in dependencies if group.name in item.pair.parent_units
    ]
    written = [
        _as_child(group, item) for item in dependencies if group.name in item.pair.child_units
    ]
    parts = read or written
    return torch.stack(parts).amax(0) if parts else torch.zeros(group.width, dtype=torch.float64)


def _as_parent(group: Group, item: Dependency) -> Tensor:
    units = item.pair.parent_units[group.name]
    return _spread(item.values.mean(0), units, item.parent_group, item.dead_parents)


def _as_child(group: Group, item: Dependency) -> Tensor:
    units = item.pair.child_units[group.name]
    return _spread(item.values.mean(1), units, item.child_group, item.dead_children)


def _spread(values: Tensor, units: Tensor, group: Tensor, dead: Tensor) -> Tensor:
    """From groups to watched units to the units of a group of channels; only dead ones are exactly
    zero.
    """
    watched = values[group] + TIES**2
    watched[dead] = 0
    return torch.where(units >= 0, watched[units.clamp(min=0)], 0.0)


def _with_weights(group: Group, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Values of live units raised a little by the norm of their weights."""
    norms = torch.linalg.vector_norm(group.rows(state).double().cpu(), dim=1)
    return values + TIES * torch.where(values > 0, norms / norms.max().clamp(min=1e-30), 0.0)
