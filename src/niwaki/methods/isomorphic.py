"""Isomorphic comparison: groups compete only with groups of their own kind.

Scores of a convolution inside a block and of the stream between blocks do not mean the same, even
where one formula gives both. Two groups are of one kind when the graph treats them alike: their
units are written, carried and read on the same axes of tensors of as many axes. A unit then scores
its rank among all units of its kind, as a share, so that one threshold for the network takes the
same share of every kind, and takes it where the kind is weakest. Source: Fang, Ma, Mi, Wang,
Isomorphic Pruning for Vision Models, ECCV 2024, arXiv 2407.04616, section 3.

Example: one kind has groups with the scores (1, 5) and (2, 3), another one has (900, 700). Ranks
are (1/4, 4/4), (2/4, 3/4) and (2/2, 1/2): a threshold of a half takes 1, 2 and 700.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.plan import Plan
from niwaki.graph import Graph, Group
from niwaki.methods.base.criterion import CRITERIA, Criterion, scored
from niwaki.methods.base.evidence import Evidence

Kind = tuple[tuple[str, int, int], ...]


@CRITERIA.register("isomorphic")
@dataclass(frozen=True)
class Isomorphic(Criterion):
    """Another criterion's scores as ranks among the units of all groups of one kind.

    Attributes:
        criterion: its name, or the criterion itself.
    """

    comparable: ClassVar[bool] = True

    criterion: str | Criterion = "l2"

    def __post_init__(self) -> None:
        self._inner()

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group, beside all others of its kind."""
        return self.scores(evidence)[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups that the other criterion scores."""
        inner = scored(self._inner(), evidence)
        kinds: dict[Kind, list[str]] = defaultdict(list)
        for name in inner:
            kinds[kind_of(evidence.graph, evidence.graph[name])].append(name)
        ranks: dict[str, Tensor] = {}
        for names in kinds.values():
            ranks |= _ranked({name: inner[name] for name in names})
        return {name: ranks[name] for name in inner}

    def refine(self, plan: Plan, evidence: Evidence) -> Plan:
        """As the other criterion does it."""
        return self._inner().refine(plan, evidence)

    def _inner(self) -> Criterion:
        criterion = self.criterion
        return CRITERIA.build(criterion) if isinstance(criterion, str) else criterion


def kind_of(graph: Graph, group: Group) -> Kind:
    """What the graph does with the units of a group, as one value for all that it treats alike."""
    uses = {
        (piece.role.value, graph.state[piece.tensor].ndim, piece.axis) for piece in group.slices
    }
    return tuple(sorted(uses))


def _ranked(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ranks from 1/n to 1 over all groups together; equal scores by their order."""
    values = torch.cat(list(scores.values()))
    ranks = torch.empty_like(values)
    steps = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    ranks[values.argsort(stable=True)] = steps / len(values)
    parts = torch.split(ranks, [len(score) for score in scores.values()])
    return dict(zip(scores, parts, strict=True))
