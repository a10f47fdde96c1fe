"""What a pruned network really costs: made for the purpose, and run. For budgets that no graph can
predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SurgeryError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph
from niwaki.measure import Ratio, cpu_threads, latency_ratio, peak_memory
from niwaki.methods.base.cut import Cut
from niwaki.running import batched, call, copied, preserved_mode, preserved_rng, preserved_state
from niwaki.surgery import shrink, size_guesses

UNSTEADY = 0.1  # a ratio that is not known better than this says nothing of a trial
FINAL = 0.05  # and of the finished network
LOOKS = 3  # how often it is tried again, each time for longer


class MeasuredCost:
    """Activation memory or latency, as multiples of the original's, for any number of units left in
    each group.

    The throwaway networks have the sizes of the pruned one and arbitrary units, which is all that
    these costs depend on.
    """

    def __init__(self, graph: Graph, budget: Budget) -> None:
        self._graph, self._budget = graph, budget
        self._inputs = batched(copied(graph.inputs), budget.batch)
        self._known: dict[tuple[tuple[str, int], ...], float] = {}
        self._whole = 0.0

    def __call__(self, counts: Mapping[str, int]) -> float:
        """The cost with so many units left; the original's is 1."""
        smaller = {name: count for name, count in counts.items() if count < self._graph[name].width}
        if not smaller:
            return 1.0
        key = tuple(sorted(smaller.items()))
        if key not in self._known:
            units = {
                name: Kept(self._graph[name].width, tuple(range(count)))
                for name, count in smaller.items()
            }
            self._known[key] = self.of(
                self._running(Plan(units)), target=1 - self._budget.amount
            ).median
        return self._known[key]

    def learn(self, plan: Plan, ratio: Ratio) -> None:
        """Replace a quick look at these sizes by a longer one."""
        counts = {
            name: len(kept.units) for name, kept in plan.items() if len(kept.units) < kept.width
        }
        self._known[tuple(sorted(counts.items()))] = ratio.median

    def of(self, model: nn.Module, *, target: float | None = None, seconds: float = 1.0) -> Ratio:
        """The cost of a network that exists; with a target, only as exactly as it takes to tell on
        which side it lies.

        Raises:
            BudgetError: the machine's timings swing so much that nothing can be said.
        """
        original = self._graph.model
        with preserved_state(original), preserved_state(model):
            if self._budget.unit == "memory":
                self._whole = self._whole or float(peak_memory(original, self._inputs))
                share = peak_memory(model, self._inputs) / self._whole
                return Ratio(share, share, share, 1)
            with cpu_threads(self._budget.threads):
                for look in range(1, LOOKS + 1):
                    times = {"seconds": seconds * look, "patience": 6 * seconds * look}
                    ratio = latency_ratio(original, model, self._inputs, target=target, **times)
                    told = target is not None and not ratio.low <= target <= ratio.high
                    if told or ratio.spread <= (FINAL if target is None else UNSTEADY):
                        return ratio
        raise BudgetError(
            f"timings swing too much on this machine: after {ratio.rounds} rounds the pruned "
            "model's time is known only as "
            f"{ratio.low:.2f} to {ratio.high:.2f} of the original's; stop other work, or use a "
            "budget of macs"
        )

    def _running(self, plan: Plan) -> nn.Module:
        """A network of the plan's sizes, with the guess at its code's own sizes that lets it
        run.
        """
        failure: Exception | None = None
        for sizes in size_guesses(self._graph, plan):
            model = shrink(Cut(self._graph, replace(plan, sizes=sizes)))
            try:
                with preserved_mode(model, training=False), preserved_rng(), preserved_state(model):
                    call(model, copied(self._graph.inputs))
            except Exception as error:  # the user's code may fail in any way at a wrong size
                failure = error
            else:
                return model
        raise SurgeryError(f"no network of these sizes runs: {failure}")
