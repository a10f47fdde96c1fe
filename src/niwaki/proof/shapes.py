"""The first operator of a smaller model whose result has another size than what is left: often not
the one that raises, but the cause of it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.terms import kept_size
from niwaki.running import Inputs, Ref, call, copied, undisturbed
from niwaki.running.watching import OperatorMode, plain_operators


def first_misshapen(graph: Graph, plan: Plan, pruned: nn.Module, inputs: Inputs) -> int | None:
    """The position of that operator on the original's tape; None where all sizes are right for as
    long as the pruned model runs.
    """
    watch, own = _Watch(graph, plan), copied(inputs)
    # it is run because it fails, and the user's code may fail in any way
    with suppress(Exception), undisturbed(pruned), plain_operators(), watch:
        call(pruned, own)
    return watch.position


class _Watch(OperatorMode):
    """Holds the shapes of results, in their order, against what is left of the recorded ones."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        super().__init__()
        self._graph = graph
        self._kept = {graph.variables[name]: len(units) for name, units in plan.kept.items()}
        self._done = 0
        self.position: int | None = None

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        if func.namespace != "prim" and any(isinstance(value, Tensor) for value in results):
            self._hold(func, results)
            self._done += 1
        return result

    def _hold(self, func: OpOverload, results: Any) -> None:
        ops = self._graph.inference.tape.ops
        if self.position is not None or self._done >= len(ops):
            return
        op = ops[self._done]
        if op.func is not func or any(
            ref is not None and isinstance(value, Tensor) and tuple(value.shape) != self._left(ref)
            for ref, value in zip(op.outputs, results, strict=False)
        ):
            self.position = self._done

    def _left(self, ref: Ref) -> tuple[int, ...]:
        return tuple(kept_size(term, self._kept) for term in self._graph.inference.axes[ref])
