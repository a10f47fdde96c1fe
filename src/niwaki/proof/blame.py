"""When a cut cannot be proved: which groups most probably made it fail, so that the others can
still be pruned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.inference import Number
from niwaki.graph.terms import Var, leaves
from niwaki.running.origins import attributes_in

# class of the module around a layer of torch's own (of any other layer: its own), the layer's name
# in it, the operator, and how often it was called before in that layer
Kind = tuple[type, str, str, int]


class Blame:
    """Names the groups to leave whole after each failed surgery of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._failed: set[Kind] = set()

    def __call__(self, plan: Plan, error: SurgeryError) -> list[str]:
        """The pruned groups that most probably made it fail, most narrowly first: the first of
        these that finds any.

        * groups whose size reached the failing operator as a number, then those among its axes;
          where it belongs to a class of the user's, or failed before in another module, those of
          all modules of that class at once;
        * groups on whose size the failing layer's code depends, then the code of the layers inside
          it, then those with a part in its tensors; the same for the layer around it, and so on
          outwards.
        """
        graph = self._graph
        finders: list[Callable[[], Iterable[str]]] = []
        if error.position is not None and error.position < len(graph.inference.tape.ops):
            operators = self._operators(error.position)
            finders += [lambda: _sized(graph, operators), lambda: touched(graph, operators)]
        for layer in _outwards(error.layer):
            finders += [
                partial(graph.sized_by, layer, inside=False),
                partial(graph.sized_by, layer, inside=True),
            ]
            finders += [partial(_holding, graph, layer)]
        for find in finders:
            culprits = set(find())
            suspects = [name for name in plan.kept if name in culprits]
            if suspects:
                return suspects
        return []

    def _operators(self, position: int) -> set[int]:
        """The failing operator, and its twins where one of them failed before."""
        kinds = list(_kinds(self._graph))
        kind = kinds[position]
        # nn.Sequential says nothing of what its layers have in common; a class of the user's fails
        # everywhere alike
        again = kind in self._failed or not _is_torchs(kind[0])
        self._failed.add(kind)
        return (
            {place for place, other in enumerate(kinds) if other == kind} if again else {position}
        )


def _outwards(layer: str | None) -> Iterator[str]:
    """A layer, the one around it, and so on up to the model."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]
    if layer is not None:
        yield layer


def _holding(graph: Graph, layer: str) -> list[str]:
    """Groups with a part in a layer's tensors."""
    return [
        group.name
        for group in graph.groups
        if any(graph.layer_holds(layer, piece.tensor) for piece in group.slices)
    ]


def _kinds(graph: Graph) -> Iterator[Kind]:
    modules = dict(graph.model.named_modules())
    calls: Counter[tuple[str, str]] = Counter()
    for op in graph.inference.tape.ops:
        owner, name = modules[op.layer], ""
        if _is_torchs(type(owner)):
            around, _, name = op.layer.rpartition(".")
            owner = modules[around]
        yield (type(owner), name, op.name, calls[op.layer, op.name])
        calls[op.layer, op.name] += 1


def _is_torchs(cls: type) -> bool:
    return cls.__module__.startswith("torch.nn.")


def _sized(graph: Graph, operators: set[int]) -> list[str]:
    """Groups by their numbers among the operators' arguments: by those that the code did not read
    from a tensor's shape, where there are any.
    """
    numbers = [number for number in graph.inference.numbers if number.position in operators]
    doubtful = [number for number in numbers if not _from_a_shape(graph, number)]
    return _by_number(graph, doubtful) or _by_number(graph, numbers)


def _by_number(graph: Graph, numbers: list[Number]) -> list[str]:
    return _names(graph, {var for number in numbers for var in leaves(number.term)})


def _from_a_shape(graph: Graph, number: Number) -> bool:
    """Whether all integers of this size that the call was given come from tensors alone."""
    sources = [
        source
        for arrival in graph.inference.tape.arrivals
        if arrival.start <= number.position < arrival.stop
        for value, source in arrival.numbers
        if value == number.term.size
    ]
    return bool(sources) and all(
        source is not None and not any(attributes_in(source)) for source in sources
    )


def cause(graph: Graph, error: SurgeryError) -> str:
    """Where a failed cut failed, to be put behind the error: the operator, the line of the user's
    code, the attributes that it was given there, and what would help; "" where none is known.
    """
    tape = graph.inference.tape
    if error.position is None or error.position >= len(tape.ops):
        return ""
    op, line = tape.ops[error.position], tape.lines[error.position]
    given = dict.fromkeys(
        str(attribute)
        for arrival in tape.arrivals
        if arrival.start <= error.position < arrival.stop
        for _, source in arrival.numbers
        if source is not None
        for attribute in attributes_in(source)
    )
    parts = [
        f"it is {op.name} in {op.layer or 'the model'}",
        f"called at {line}" if line else "",
        f"given {' and '.join(given)}" if given else "",
        "a size that is read there from a tensor (x.shape) follows by itself" if line else "",
    ]
    return "; " + ", ".join(part for part in parts if part)


def touched(graph: Graph, operators: set[int]) -> list[str]:
    """Groups on the axes of what some operators read and give."""
    ops = [graph.inference.tape.ops[position] for position in operators]
    values = [ref for op in ops for ref in (*op.tensors, *op.outputs) if ref is not None]
    return _names(
        graph, {var for ref in values for term in graph.inference.axes[ref] for var in leaves(term)}
    )


def _names(graph: Graph, variables: set[Var]) -> list[str]:
    return [name for name, var in graph.variables.items() if var in variables]
