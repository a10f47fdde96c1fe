"""The counts of the least total loss, within a budget and what a selection allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.graph import Group
from niwaki.pruning.bisection import unreachable
from niwaki.pruning.costs import Cost
from niwaki.pruning.counts import Counts, allowed_counts
from niwaki.pruning.division import (
    Choice,
    Choices,
    Table,
    at_budget,
    choice_of,
    divided,
    loss_of,
    prices,
    upward,
)
from niwaki.pruning.selection import Selection

STEPS = 64  # of giving back, where the cost is measured
SLOW_HALVINGS = 14  # looks at a cost that is measured
Curves = Mapping[str, Tensor]


def least_loss(
    groups: list[Group],
    curves: Curves,
    cost: Cost,
    budget: Budget,
    selection: Selection,
    rates: Sequence[Cost] = (),
    aside: str = "",
) -> Counts:
    """The counts of the least total loss that remove the budget's share of the cost.

    Args:
        curves: group → D(k) of k = 0 … width.
        rates: costs off which it is read what single units cost, of which the best is taken; `cost`
            without any.
        aside: what else an error is to say of why no plan does.

    Raises:
        BudgetError: the selection does not allow to remove so much.
    """
    choices, whole = _choices(groups, curves, selection), cost({})
    _refuse_beyond(choices, cost, budget, groups, selection, aside)
    most = (1 - budget.amount) * whole
    divisions = [divided(choices, cost, most, rate) for rate in rates or [cost]]
    return min(divisions, key=lambda counts: loss_of(choices, counts))


@dataclass(frozen=True)
class Measured:
    """A cost of which every look takes long.

    Attributes:
        rates: a quick cost, off which it is read what single units cost.
        tolerance: by which share of the whole it may be lower than asked.
    """

    cost: Cost
    rates: Cost
    tolerance: float


def least_loss_measured(
    groups: list[Group], curves: Curves, slow: Measured, budget: Budget, selection: Selection
) -> Counts:
    """The same where the cost is measured: divided by the quick one, bisected by the slow one."""
    choices, whole = _choices(groups, curves, selection), slow.cost({})
    _refuse_beyond(choices, slow.cost, budget, groups, selection)
    least = slow.rates({name: choice.counts[0] for name, choice in choices.items()})
    near = divided(choices, slow.rates, max(least, (1 - budget.amount) * slow.rates({})))
    table = Table.of(choices, prices(choices, near, slow.rates))
    most = (1 - budget.amount) * whole
    bounds = most - slow.tolerance * whole, most
    counts = at_budget(table, slow.cost, bounds, SLOW_HALVINGS)
    return _given_back(upward(choices, counts, slow.rates, STEPS), counts, slow.cost, bounds)


def _given_back(
    path: list[Counts], counts: Counts, cost: Cost, bounds: tuple[float, float]
) -> Counts:
    """The last of a path of wider counts that meets the upper bound; any between both will do."""
    low, high, spent = 0, len(path), cost(counts)  # so many steps are taken, or are too many
    while low < high and spent < bounds[0]:
        middle = (low + high + 1) // 2
        wider = cost(path[middle - 1])
        if wider <= bounds[1]:
            low, counts, spent = middle, path[middle - 1], wider
        else:
            high = middle - 1
    return counts


def _choices(groups: list[Group], curves: Curves, selection: Selection) -> dict[str, Choice]:
    return {
        group.name: choice_of(allowed_counts(group, selection), curves[group.name])
        for group in groups
    }


def _refuse_beyond(
    choices: Choices,
    cost: Cost,
    budget: Budget,
    groups: list[Group],
    selection: Selection,
    aside: str = "",
) -> None:
    whole = cost({})
    least = {name: choice.counts[0] for name, choice in choices.items()}
    reachable = 1 - cost(least) / whole if whole else 0.0
    if reachable < budget.amount:
        raise unreachable(budget, groups, selection, reachable, aside)
