"""What a criterion is, and the step that scores a graph with one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.graph import Graph, Group
from niwaki.methods import Registry


class Criterion(ABC):
    """One score a unit of a group; a frozen dataclass whose fields are the settings.

    Attributes:
        comparable: whether scores of different groups mean the same, so that one threshold for the whole network can be
            laid over them as they are; others are divided by their group's mean first.
    """

    comparable: ClassVar[bool] = False

    @abstractmethod
    def score(self, group: Group, state: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """Scores (width,), float64 on the CPU, high for units that should stay.

        Args:
            state: the model's parameters and buffers by name, as they were before any pruning.
            generator: the only source of chance.
        """


CRITERIA: Registry[Criterion] = Registry("criterion")


def score(graph: Graph, criterion: Criterion | str, *, seed: int = 0) -> dict[str, Tensor]:
    """Score every group of a graph.

    Args:
        criterion: a criterion, or its notation: `"l2"`, `"random"`.

    Returns:
        group name → scores (width,), float64 on the CPU; for criteria that are not comparable between groups, divided by
        the group's mean.

    Raises:
        UnknownNameError: no such criterion or setting.
    """
    method = CRITERIA.build(criterion) if isinstance(criterion, str) else criterion
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for group in graph.groups:
        values = method.score(group, graph.state, generator).double().cpu()
        mean = values.mean()
        scores[group.name] = values if method.comparable or not mean > 0 else values / mean
    return scores
