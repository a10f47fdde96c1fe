"""What a network costs once only so many units are left, as the graph says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph, Group
from niwaki.pruning.counts import Counts
from niwaki.pruning.elsewhere import read
from niwaki.running import batch_size

Cost = Callable[[Counts], float]  # of the whole network, in the unit of a budget
NAMES = {
    "channels": "channels",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "memory": "activation memory",
    "latency": "latency",
}


def predicted_cost(graph: Graph, budget: Budget, among: Iterable[Group] | None = None) -> Cost:
    """What the graph says that the network costs, in the unit of a budget.

    Args:
        among: the groups whose channels count; all without it.

    Raises:
        BudgetError: memory or latency, which no graph knows.
        SettingError: latency that was measured elsewhere, of other networks.
    """
    if budget.measured is not None:
        return _elsewhere(graph, budget.measured)
    if budget.runs:
        raise BudgetError(
            f"{NAMES[budget.unit]} is measured on models, not read off a graph; use "
            f"niwaki.prune(…, budget='{budget}')"
        )
    counted = graph.groups if among is None else tuple(among)
    costs: dict[str, Cost] = {
        "channels": lambda counts: sum(counts.get(group.name, group.width) for group in counted),
        "params": graph.count_params,
        "macs": graph.count_macs,
        "bytes": graph.count_bytes,
    }
    return costs[budget.unit]


def _elsewhere(graph: Graph, path: str) -> Cost:
    whole = graph.count_macs()
    curve = read(path, whole // batch_size(graph.inputs))
    return lambda counts: curve(graph.count_macs(counts) / whole)


def expected(graph: Graph, budget: Budget, plan: Plan) -> list[str]:
    """A note on the time that a network takes on the device of the budget's measurements."""
    if budget.measured is None:
        return []
    whole = graph.count_macs()
    curve = read(budget.measured, whole // batch_size(graph.inputs))
    time = curve(graph.count_macs({name: len(kept.units) for name, kept in plan.items()}) / whole)
    return [
        f"latency: {time:.3f} of the original's is expected on {curve.machine}, by "
        f"{budget.measured}; time the exported network there"
    ]


def cost_without(graph: Graph, budget: Budget, gone: Sequence[Branch]) -> Cost:
    """The same of a network without whole branches.

    Raises:
        BudgetError: channels, memory or latency, which no branch has.
    """
    whole = predicted_cost(graph, budget)
    inside = {position for branch in gone for position in branch.operators}
    tensors = {name for branch in gone for name in branch.tensors}
    parts: dict[str, Cost] = {
        "params": lambda counts: graph.count_params(counts, tensors),
        "macs": lambda counts: graph.count_macs(counts, inside),
        "bytes": lambda counts: graph.count_bytes(counts, tensors),
    }
    if budget.unit not in parts:
        raise BudgetError(
            f"whole branches go by a budget of params, macs or bytes; got {budget.unit}"
        )
    return lambda counts: whole(counts) - parts[budget.unit](counts)


def together(budget: Budget, cost: Callable[[Budget], Cost]) -> Cost:
    """One cost for several budgets, that is down by the first one's share once all are met.

    With s the share of a budget's own cost that is gone and a what it asks for, it is
    1 - a₁·min(s/a) over all budgets; of one budget alone, its own cost.

    Args:
        cost: what a budget counts.
    """
    wanted = [one for one in budget.every if one.amount > 0]
    if not budget.also or not wanted:
        return cost(budget.every[0])
    costs = [(one.amount, cost(one)) for one in wanted]
    wholes = [of({}) for _, of in costs]
    scale = budget.amount or 1.0

    def left(counts: Counts) -> float:
        met = [
            (1 - of(counts) / whole) / amount if whole else 0.0
            for (amount, of), whole in zip(costs, wholes, strict=True)
        ]
        return 1 - scale * min(met)

    return left


def blends(budget: Budget, cost: Callable[[Budget], Cost]) -> list[Cost]:
    """What costs of single units may be read off: of several budgets, sums of their costs, with
    more weight now on one and now on another.
    """
    if not budget.also:
        return [cost(budget)]
    costs = [cost(one) for one in budget.every]
    wholes = [of({}) or 1.0 for of in costs]

    def blend(weights: Sequence[float]) -> Cost:
        parts = list(zip(weights, costs, wholes, strict=True))
        return lambda counts: sum(w * of(counts) / whole for w, of, whole in parts)

    even = [1 / len(costs)] * len(costs)
    mostly = [[0.9 if i == j else 0.1 for i in range(len(costs))] for j in range(len(costs))]
    return [blend(even), *map(blend, mostly)]


def named(budget: Budget) -> str:
    """What is to go, for a message: "50.0% of the multiply-adds"."""
    return " and ".join(f"{one.amount:.1%} of the {NAMES[one.unit]}" for one in budget.every)
