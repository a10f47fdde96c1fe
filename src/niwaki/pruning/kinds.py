"""Groups of one kind: the same layer of every block."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from niwaki.core.errors import BudgetError
from niwaki.graph import Graph, Group
from niwaki.pruning.counts import Counts, rounded
from niwaki.pruning.selection import Selection

Choose = Callable[[list[Group], Mapping[str, Tensor], float, Selection], Counts]


def kind(group: Group) -> tuple[str, int]:
    """What groups of the same layers in other blocks share: names without their numbers, and the
    width.

    Example: of layers.0.mlp.up and layers.11.mlp.up, both 64 wide, ("layers.*.mlp.up", 64).
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", group.name), group.width


def without_kinds(groups: list[Group], graph: Graph, whole: Collection[str]) -> list[Group]:
    """Groups without those of a kind of which one is left whole: they could not be of one width.

    Raises:
        BudgetError: then none is left.
    """
    left = {kind(graph[name]) for name in whole}
    free = [group for group in groups if kind(group) not in left]
    if groups and not free:
        raise BudgetError(
            "nothing can go with uniform=True: of every kind of layer, one is left whole"
        )
    return free


def alike(groups: list[Group], counts: Counts, selection: Selection) -> Counts:
    """The same count for all groups of a kind: the mean of what each would keep."""
    kinds: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        kinds.setdefault(kind(group), []).append(group)
    return {
        group.name: rounded(group, sum(counts[one.name] for one in same) / len(same), selection)
        for same in kinds.values()
        for group in same
    }


def uniformly(choose: Choose) -> Choose:
    """A way of choosing counts, with those of a kind made equal."""

    def of_one_width(
        groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
    ) -> Counts:
        return alike(groups, choose(groups, scores, share, selection), selection)

    return of_one_width
