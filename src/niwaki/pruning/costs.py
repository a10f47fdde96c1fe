"""What a network costs once only so many units are left, as the graph says."""

from __future__ import annotations

from collections.abc import Callable

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError
from niwaki.graph import Graph
from niwaki.pruning.counts import Counts

Cost = Callable[[Counts], float]  # of the whole network, in the unit of a budget
NAMES = {
    "channels": "channels",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "memory": "activation memory",
    "latency": "latency",
}


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
