"""When a cut cannot be proved: which groups most probably made it fail, so that the others can still be pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from niwaki.errors import SurgeryError
from niwaki.graph import Graph
from niwaki.graph.terms import Var, leaves
from niwaki.plan import Plan


def blame(graph: Graph, plan: Plan, error: SurgeryError) -> list[str]:
    """The pruned groups to leave whole after a failed surgery, most narrowly first: the first of these that finds any.

    * groups whose size reached the failing operator as a number, or the same operator of like modules;
    * groups among the axes of these operators;
    * groups on whose size the failing layer's code depends, then the code of the layers inside it;
    * groups with a part in the failing layer's tensors.
    """
    finders: list[Callable[[], Iterable[str]]] = []
    if error.position is not None and error.position < len(graph.inference.tape.ops):
        alike = set(_alike(graph, error.position))
        finders += [lambda: _sized(graph, alike), lambda: _touched(graph, alike)]
    layer = error.layer
    if layer is not None:
        finders += [
            lambda: graph.sized_by(layer, inside=False),
            lambda: graph.sized_by(layer, inside=True),
            lambda: (name for name in plan if any(graph.layer_holds(layer, piece.tensor) for piece in graph[name].slices)),
        ]
    for find in finders:
        found = set(find())
        suspects = [name for name in plan.kept if name in found]
        if suspects:
            return suspects
    return []


def _alike(graph: Graph, position: int) -> Iterator[int]:
    """The operator and its twins: the same one, as often called before in its module, in modules of the same class."""
    modules = dict(graph.model.named_modules())
    calls: Counter[tuple[str, str]] = Counter()
    keys = []
    for op in graph.inference.tape.ops:
        keys.append((type(modules[op.layer]), op.name, calls[op.layer, op.name]))
        calls[op.layer, op.name] += 1
    return (other for other, key in enumerate(keys) if key == keys[position])


def _sized(graph: Graph, operators: set[int]) -> list[str]:
    numbers = (number for number in graph.inference.numbers if number.position in operators)
    return _names(graph, {var for number in numbers for var in leaves(number.term)})


def _touched(graph: Graph, operators: set[int]) -> list[str]:
    ops = [graph.inference.tape.ops[position] for position in operators]
    values = [ref for op in ops for ref in (*op.tensors, *op.outputs) if ref is not None]
    return _names(graph, {var for ref in values for term in graph.inference.axes[ref] for var in leaves(term)})


def _names(graph: Graph, variables: set[Var]) -> list[str]:
    return [name for name, var in graph.variables.items() if var in variables]
