"""Groups whose count follows from another's, because code computes one from the other
(`niwaki.graph.ties`): head dimensions are made of a stream's width, all heads alike.

Worked example: a stream of 96 channels, read by two attentions of 3 and 6 heads. It keeps a
multiple of 6, at most so many as were chosen: of 50, 48; and the heads 16 and 8 dimensions each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from niwaki.graph import Graph, Group, Tie
from niwaki.pruning.costs import Cost
from niwaki.pruning.counts import Counts
from niwaki.pruning.selection import Selection


def ties_among(graph: Graph, names: Collection[str]) -> list[Tie]:
    """Ties of which both groups take part: of each part the first, and no stream that is a part."""
    ties = {tie.part: tie for tie in reversed(graph.ties) if {tie.stream, tie.part} <= set(names)}
    return [tie for tie in ties.values() if tie.stream not in ties]


class Followers:
    """The counts of some groups, made to follow."""

    def __init__(
        self, graph: Graph, groups: list[Group], fixed: Counts, selection: Selection
    ) -> None:
        """Find out which follow.

        Args:
            groups: those that take part.
            fixed: counts that the user gave; those groups neither follow nor lead.
        """
        self._ties = ties_among(graph, {group.name for group in groups} - fixed.keys())
        self._steps: dict[str, int] = {}
        for tie in self._ties:
            step = self._steps.get(tie.stream, selection.multiple or 1)
            self._steps[tie.stream] = math.lcm(step, tie.times)
        self._widths = {group.name: group.width for group in groups}
        self.names = frozenset(tie.part for tie in self._ties)

    def completed(self, counts: Counts) -> Counts:
        """The counts that lead, in steps that all followers can take, and those that follow."""
        whole = dict(counts)
        for name, step in self._steps.items():
            if name in counts and counts[name] < self._widths[name]:
                whole[name] = max(step, counts[name] // step * step)
        for tie in self._ties:
            if tie.stream in whole:
                whole[tie.part] = whole[tie.stream] // tie.times
        return whole

    def joined(self, curves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the answer loses with every count of those that lead, with that of those that
        follow.

        Args:
            curves: group → loss with k = 0 … width units.
        """
        whole = {name: curve.clone() for name, curve in curves.items()}
        for tie in self._ties:
            lead, part = whole[tie.stream], curves[tie.part]
            counts = torch.arange(len(lead), device=lead.device) // tie.times
            whole[tie.stream] = lead + part.to(lead)[counts]
        return whole

    def priced(self, cost: Cost) -> Cost:
        """What a network costs, with those that follow."""
        return lambda counts: cost(self.completed(counts))
