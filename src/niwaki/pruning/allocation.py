"""Which units stay: the best of each group (local), or the best of the network (global), within a
budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, UnknownNameError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group

Scope = Literal["local", "global", "cost"]
Counts = dict[str, int]  # group → how many units stay
Cost = Callable[[Counts], float]  # what the whole network costs once only so many units are left
Rounding = Literal["round", "floor"]
NAMES = {
    "channels": "channels",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "memory": "activation memory",
    "latency": "latency",
}


@dataclass(frozen=True)
class Selection:
    """How units are chosen.

    Attributes:
        scope: "local" takes the same share of every group; "global" lays one threshold over the
            scores of all groups; "cost" lays one over the scores, as multiples of their group's
            mean, divided by what a unit of that group costs in the budget's unit, so that what is
            dear and matters little goes first.
        only, skip: glob patterns on the names of the layers that produce the units
            (`layer*.conv1`). A group takes part when one of its layers, or its own name, matches
            `only` (if given) and none matches `skip`. Of groups that are rows and columns of one
            axis (heads and head dimensions, convolution groups and channels in a group) only the
            outer takes part, so that a share stays that share; skip it by its name, or name the
            other, to prune that.
        min_units: no group falls below this many units (or its width, where that is less).
        rounding: a local share keeps round(width·(1 - share)) units, or floor of it.
        multiple: kept counts are rounded to the nearest multiple of this.
    """

    scope: Scope = "local"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    min_units: int = 1
    rounding: Rounding = "round"
    multiple: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("scope", self.scope, get_args(Scope)),
            ("rounding", self.rounding, get_args(Rounding)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        for name, number in (("min_units", self.min_units), ("multiple", self.multiple)):
            if not isinstance(number, int) or number < 1:
                raise SettingError(f"{name} must be a whole number of at least 1; got {number!r}")


def select(
    graph: Graph,
    scores: Mapping[str, Tensor],
    budget: Budget | float | str,
    selection: Selection | None = None,
    *,
    without: Collection[str] = (),
    cost: Cost | None = None,
    tolerance: float = 0.0,
) -> Plan:
    """Choose the units that stay.

    Args:
        scores: group name → (width,), high for units that should stay; equal ones are kept in order
            of their index.
        budget: a `Budget`, a share of channels to remove, or `"params=0.5"`.
        without: names of groups that stay whole, beside those that the selection skips.
        cost: what the network costs in the budget's unit with so many units left; predicted from
            the graph without it. A budget of latency needs one that measures.
        tolerance: how much more than the budget may go, as a share, so that a cost that takes long
            is asked less often.

    Raises:
        BudgetError: no plan that the selection allows meets the budget; the message says how far
            one can go.
        SettingError: a pattern that matches no group, or scores that are not finite.
    """
    selection, budget = selection or Selection(), Budget.parse(budget)
    groups = _participants(graph, selection, without)
    for group in groups:
        given = scores.get(group.name)
        if given is None:
            raise SettingError(
                f"the criterion has no scores for group {group.name!r}; leave it out with "
                f"skip={group.name!r}, or take a "
                "criterion that reads the weights: l1, l2, l2-gm"
            )
        if given.shape != (group.width,) or not bool(torch.isfinite(given).all()):
            raise SettingError(f"group {group.name!r} needs {group.width} finite scores")
    if budget.unit == "channels" and selection.scope != "cost":
        choose = _local if selection.scope == "local" else _global
        return _plan(groups, scores, choose(groups, scores, budget.amount, selection))
    cost = cost or predicted_cost(graph, budget)
    if selection.scope == "cost":
        scores = _per_cost(groups, scores, cost)
    aside = f"; {graph.unread}" if graph.unread and budget.unit in ("params", "bytes") else ""
    counts = _within(groups, scores, cost, budget, selection, tolerance, aside)
    return _plan(groups, scores, counts)


def predicted_cost(graph: Graph, budget: Budget) -> Cost:
    """What the graph says that the network costs, in the unit of a budget.

    Raises:
        BudgetError: memory or latency, which no graph knows.
    """
    if budget.unit in ("memory", "latency"):
        raise BudgetError(
            f"{NAMES[budget.unit]} is measured on models, not read off a graph; use "
            f"niwaki.prune(…, budget='{budget}')"
        )
    costs: dict[str, Cost] = {
        "channels": lambda counts: sum(
            counts.get(group.name, group.width) for group in graph.groups
        ),
        "params": graph.count_params,
        "macs": graph.count_macs,
        "bytes": graph.count_bytes,
    }
    return costs[budget.unit]


def _participants(graph: Graph, selection: Selection, without: Collection[str]) -> list[Group]:
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
    # outer, whole heads rather than a part of every head
    taking: set[str] = set()
    for group in sorted(asked, key=lambda group: len(graph.around[group.name] & names)):
        if not graph.crossing[group.name] & taking:
            taking.add(group.name)
    groups = [group for group in asked if group.name in taking]
    if (
        groups
        and selection.min_units * selection.multiple > 1
        and all(_floor(g, selection) == g.width for g in groups)
    ):
        raise BudgetError(
            f"nothing can go with {_rest(selection)} left in each group: the widest has "
            f"{max(g.width for g in groups)}"
        )
    if not groups:
        raise BudgetError(
            "no group of channels can be pruned; print(niwaki.trace(model, inputs)) says what is "
            "frozen and why"
        )
    return groups


def _floor(group: Group, selection: Selection) -> int:
    """The fewest units that a group may keep."""
    least = math.ceil(selection.min_units / selection.multiple) * selection.multiple
    return min(group.width, least)


def _rest(selection: Selection) -> str:
    multiples = f", and multiples of {selection.multiple}," if selection.multiple > 1 else ""
    return f"at least {selection.min_units} unit{'s' * (selection.min_units > 1)}{multiples}"


def _rounded(group: Group, count: float, selection: Selection) -> int:
    """A wished count made a whole one that is allowed."""
    whole = (
        round(count) if selection.rounding == "round" else math.floor(count + 1e-9)
    )  # 10·(1 - 0.8) is a little below 2
    if selection.multiple > 1 and whole < group.width:
        whole = round(whole / selection.multiple) * selection.multiple
    return max(_floor(group, selection), min(whole, group.width))


def _local(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The same share of every group."""
    return {group.name: _rounded(group, group.width * (1 - share), selection) for group in groups}


def _global(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The lowest scores of all groups together go, save the best few of each group."""
    free = {
        group.name: scores[group.name].sort().values[: group.width - _floor(group, selection)]
        for group in groups
    }
    total = sum(group.width for group in groups)
    wanted, possible = round(total * share), sum(len(values) for values in free.values())
    if wanted > possible:
        raise BudgetError(
            f"cannot remove {wanted} of {total} channels with {_rest(selection)} left in each of "
            f"{len(groups)} "
            f"groups; at most {possible} can go (a share of "
            f"{math.floor(1000 * possible / total) / 1000})"
        )
    order = torch.cat(list(free.values())).argsort(stable=True)[:wanted]
    owner = torch.cat(
        [torch.full((len(values),), i, device="cpu") for i, values in enumerate(free.values())]
    )
    removed = torch.bincount(owner[order], minlength=len(groups)).tolist()
    return {
        group.name: _rounded(group, group.width - gone, selection)
        for group, gone in zip(groups, removed, strict=True)
    }


def _per_cost(groups: list[Group], scores: Mapping[str, Tensor], cost: Cost) -> dict[str, Tensor]:
    """Scores as multiples of their group's mean, for what one unit of the group costs: comparable
    between groups.
    """
    whole, rated = cost({}), {}
    for group in groups:
        half = group.width // 2
        saved = (
            (whole - cost({group.name: half})) / (group.width - half)
            if half
            else whole / group.width
        )
        mean = scores[group.name].double().abs().mean().clamp(min=1e-30)
        # a group that costs nothing keeps its units: its scores count for a thousand times the
        # cheapest share
        rated[group.name] = scores[group.name].double() / mean / max(saved, whole * 1e-9)
    return rated


def _within(
    groups: list[Group],
    scores: Mapping[str, Tensor],
    cost: Cost,
    budget: Budget,
    selection: Selection,
    tolerance: float,
    aside: str = "",
) -> Counts:
    """The smallest share of channels whose plan removes at least the budget's share of the cost.

    Args:
        aside: what else an error is to say of why no plan does.
    """
    choose = _local if selection.scope == "local" else _global
    whole = cost({})

    def removed(counts: Counts) -> float:
        return 1 - cost(counts) / whole if whole else 0.0

    total = sum(group.width for group in groups)
    most = (
        sum(group.width - _floor(group, selection) for group in groups) / total
        if selection.scope != "local"
        else 1.0
    )
    if budget.amount == 0:
        return choose(groups, scores, 0.0, selection)
    reachable = removed(choose(groups, scores, most, selection))
    if reachable < budget.amount:
        raise BudgetError(
            f"cannot remove {budget.amount:.1%} of the {NAMES[budget.unit]}; with "
            f"{_rest(selection)} left in each of "
            f"{len(groups)} groups at most {reachable:.1%} can go{aside}"
        )
    low, high, reached = 0.0, most, reachable
    # the share removed is a step function that never falls: halve until the step is found; the
    # steps of two groups of m and n units are never nearer to one another than 1/(2·m·n)
    finest = 0.25 / max(total, *(group.width**2 for group in groups))
    while high - low > finest and reached > budget.amount + tolerance:
        middle = (low + high) / 2
        if choose(groups, scores, middle, selection) == choose(groups, scores, high, selection):
            high = middle
        elif (found := removed(choose(groups, scores, middle, selection))) >= budget.amount:
            high, reached = middle, found
        else:
            low = middle
    return choose(groups, scores, high, selection)


def _plan(groups: list[Group], scores: Mapping[str, Tensor], counts: Counts) -> Plan:
    kept = {}
    for group in groups:
        best = scores[group.name].argsort(descending=True, stable=True)[: counts[group.name]]
        kept[group.name] = Kept(group.width, tuple(best.sort().values.tolist()))
    return Plan(kept)
