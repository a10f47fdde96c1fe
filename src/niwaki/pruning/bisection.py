"""A budget of what the network costs, met by the smallest share of the channels that meets it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError
from niwaki.graph import Group
from niwaki.pruning.costs import Cost, named
from niwaki.pruning.counts import Counts, floor_of, global_counts, local_counts, what_must_stay
from niwaki.pruning.kinds import Choose, uniformly
from niwaki.pruning.selection import Selection


def per_cost(groups: list[Group], scores: Mapping[str, Tensor], cost: Cost) -> dict[str, Tensor]:
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


def within_budget(
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
    plain: Choose = local_counts if selection.scope == "local" else global_counts
    choose = uniformly(plain) if selection.uniform else plain
    whole = cost({})

    def removed(counts: Counts) -> float:
        return 1 - cost(counts) / whole if whole else 0.0

    total = sum(group.width for group in groups)
    most = (
        sum(group.width - floor_of(group, selection) for group in groups) / total
        if selection.scope != "local"
        else 1.0
    )
    if budget.amount == 0:
        return choose(groups, scores, 0.0, selection)
    reachable = removed(choose(groups, scores, most, selection))
    if reachable < budget.amount:
        raise unreachable(budget, groups, selection, reachable, aside)
    low, high, reached = 0.0, most, reachable
    # the share removed is a step function that never falls: halve until the step is found; the
    # steps of two groups of m and n units are never nearer to one another than 1/(2·m·n)
    finest = 0.25 / max(total, *(group.width**2 for group in groups))
    while high - low > finest and reached > budget.amount + tolerance:
        middle = (low + high) / 2
        if choose(groups, scores, middle, selection) == choose(groups, scores, high, selection):
            high = middle
        elif (share := removed(choose(groups, scores, middle, selection))) >= budget.amount:
            high, reached = middle, share
        else:
            low = middle
    return choose(groups, scores, high, selection)


def unreachable(
    budget: Budget, groups: list[Group], selection: Selection, reachable: float, aside: str = ""
) -> BudgetError:
    """That a budget asks for more than the selection allows, and how far one can go."""
    most = f"{reachable:.1%}"
    if budget.also:
        most = f"{reachable / budget.amount:.1%} of that"
    return BudgetError(
        f"cannot remove {named(budget)}; with {what_must_stay(selection)} left in each of "
        f"{len(groups)} groups at most {most} can go{aside}"
    )
