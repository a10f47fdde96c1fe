"""The groups that a selection is about."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from niwaki.core.errors import BudgetError, SettingError
from niwaki.graph import Graph, Group
from niwaki.pruning.counts import floor_of, what_must_stay
from niwaki.pruning.followers import ties_among
from niwaki.pruning.selection import Selection


def participants(graph: Graph, selection: Selection, without: Collection[str]) -> list[Group]:
    """The groups that the patterns let in, but for those named."""
    for pattern in (*selection.only, *selection.skip):
        if not any(
            fnmatchcase(layer, pattern)
            for group in graph.groups
            for layer in (*group.layers, group.name)
        ):
            known = ", ".join(group.name for group in graph.groups[:8]) or "none"
            raise SettingError(
                f"no group has a layer named like {pattern!r}; groups are: "
                f"{known}{', …' * (len(graph.groups) > 8)}"
            )

    def matches(group: Group, patterns: tuple[str, ...]) -> bool:
        return any(
            fnmatchcase(layer, pattern)
            for pattern in patterns
            for layer in (*group.layers, group.name)
        )

    asked = [
        group
        for group in graph.groups
        if (not selection.only or matches(group, selection.only))
        and not matches(group, selection.skip)
        and group.name not in without
    ]
    names = {group.name for group in asked}
    # of groups that cross each other one takes part, else a half would be three quarters: the
    # outer, whole heads rather than a part of every head; but a part of every head where the code
    # makes that of the stream's width
    taking: set[str] = set()
    follow = {tie.part for tie in ties_among(graph, names)}

    def order(group: Group) -> tuple[bool, int]:
        return group.name not in follow, len(graph.around[group.name] & names)

    for group in sorted(asked, key=order):
        if not graph.crossing[group.name] & taking:
            taking.add(group.name)
    groups = [group for group in asked if group.name in taking]
    if (
        groups
        and selection.min_units * (selection.multiple or 1) > 1
        and all(floor_of(g, selection) == g.width for g in groups)
    ):
        raise BudgetError(
            f"nothing can go with {what_must_stay(selection)} left in each group: the widest has "
            f"{max(g.width for g in groups)}"
        )
    if not groups:
        raise BudgetError(
            "no group of channels can be pruned; print(niwaki.trace(model, inputs)) says what is "
            "frozen and why"
        )
    return groups
