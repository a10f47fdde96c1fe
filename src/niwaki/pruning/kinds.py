"""Groups of one kind: the same layer of every block."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from niwaki.core.errors import BudgetError
from niwaki.graph import Graph, Group

Counts = dict[str, int]  # group → how many units stay
Choose = Callable[..., Counts]  # of groups, scores, a share, a selection
Rounded = Callable[[Group, float, Any], int]  # a wished count, made one that a selection allows


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


def alike(groups: list[Group], counts: Counts, selection: Any, rounded: Rounded) -> Counts:
    """The same count for all groups of a kind: the mean of what each would keep."""
    kinds: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        kinds.setdefault(kind(group), []).append(group)
    return {
        group.name: rounded(group, sum(counts[one.name] for one in same) / len(same), selection)
        for same in kinds.values()
        for group in same
    }


def uniformly(choose: Choose, rounded: Rounded) -> Choose:
    """A way of choosing counts, with those of a kind made equal."""

    def of_one_width(groups: list[Group], scores: Any, share: float, selection: Any) -> Counts:
        return alike(groups, choose(groups, scores, share, selection), selection, rounded)

    return of_one_width
