"""When a cut cannot be proved: which groups most probably made it fail, so that the others can still be pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from niwaki.errors import SurgeryError
from niwaki.graph import Graph
from niwaki.graph.terms import Var, leaves
from niwaki.plan import Plan

Kind = tuple[type, str, int]  # module class, operator, how often it was called before in its module


class Blame:
    """Names the groups to leave whole after each failed surgery of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._failed: set[Kind] = set()

    def __call__(self, plan: Plan, error: SurgeryError) -> list[str]:
        """The pruned groups that most probably made it fail, most narrowly first: the first of these that finds any.

        * groups whose size reached the failing operator as a number, then those among its axes; where it belongs to a
          class of the user's, or failed before in another module, those of all modules of that class at once;
        * groups on whose size the failing layer's code depends, then the code of the layers inside it;
        * groups with a part in the failing layer's tensors.
        """
        graph, layer = self._graph, error.layer
        finders: list[Callable[[], Iterable[str]]] = []
        if error.position is not None and error.position < len(graph.inference.tape.ops):
            operators = self._operators(error.position)
            finders += [lambda: _sized(graph, operators), lambda: _touched(graph, operators)]
        if layer is not None:
            finders += [
                lambda: graph.sized_by(layer, inside=False),
                lambda: graph.sized_by(layer, inside=True),
                lambda: (name for name in plan if any(graph.layer_holds(layer, p.tensor) for p in graph[name].slices)),
            ]
        for find in finders:
            found = set(find())
            suspects = [name for name in plan.kept if name in found]
            if suspects:
                return suspects
        return []

    def _operators(self, position: int) -> set[int]:
        """The failing operator, and its twins where one of them failed before."""
        kinds = list(_kinds(self._graph))
        kind = kinds[position]
        # a layer of torch's own fails for its surroundings, which may differ; a class of the user's for its own code
        again = kind in self._failed or not kind[0].__module__.startswith("torch.nn.")
        self._failed.add(kind)
        return {place for place, other in enumerate(kinds) if other == kind} if again else {position}


def _kinds(graph: Graph) -> Iterator[Kind]:
    modules = dict(graph.model.named_modules())
    calls: Counter[tuple[str, str]] = Counter()
    for op in graph.inference.tape.ops:
        yield (type(modules[op.layer]), op.name, calls[op.layer, op.name])
        calls[op.layer, op.name] += 1


def _sized(graph: Graph, operators: set[int]) -> list[str]:
    numbers = (number for number in graph.inference.numbers if number.position in operators)
    return _names(graph, {var for number in numbers for var in leaves(number.term)})


def _touched(graph: Graph, operators: set[int]) -> list[str]:
    ops = [graph.inference.tape.ops[position] for position in operators]
    values = [ref for op in ops for ref in (*op.tensors, *op.outputs) if ref is not None]
    return _names(graph, {var for ref in values for term in graph.inference.axes[ref] for var in leaves(term)})


def _names(graph: Graph, variables: set[Var]) -> list[str]:
    return [name for name, var in graph.variables.items() if var in variables]
