"""What a recorded run says of the integers that a model's code keeps: which of them reached an
operator as the size of channels, and what that size becomes.

Every integer among the arguments of a call has a source (niwaki.running.origins), and every size
among an operator's arguments is a term, so that the plan says what is left of it. Both together
are an equation: the source, evaluated with the attributes of the smaller model, must give the new
size. `Evidence.solve` looks for attributes that make all equations true.

Worked example: `x.view(-1, 3 * self.width)` with width 24, of which 19 are left, is the equation
3 · width = 57; width = 19 solves it, and no other attribute has a part in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.terms import Product, Term, Var, keep_mask, resolve
from niwaki.running.origins import Arithmetic, Attribute, Axis, Source, attributes_in, evaluate
from niwaki.running.settings import read_path
from niwaki.running.tape import Arrival, Op

LARGEST = 4096  # values that are tried for an attribute whose equation no size solves
Values = dict[Attribute, int]


@dataclass(frozen=True)
class Fact:
    """One size among an operator's arguments: before, and what it may have become.

    Attributes:
        lenient: the operator may take the old number too (the end of a slice), or the code only
            compared it.
        parts: the sizes of the factors of its term, before and after.
        alone: the call ran one operator, so that the integer is this operator's argument; of a
            whole layer's (`multi_head_attention_forward`), only the values speak for it.
    """

    source: Source
    old: int
    news: frozenset[int]
    position: int
    lenient: bool = False
    parts: tuple[tuple[int, int], ...] = ()
    alone: bool = True

    @property
    def new(self) -> int | None:
        """The new size, where there is but one."""
        return next(iter(self.news)) if len(self.news) == 1 else None


@dataclass(frozen=True)
class Number:
    """An integer of an operator, before and after."""

    old: int
    new: int
    lenient: bool
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Solution:
    """What the equations say.

    Attributes:
        sure: attributes that must have these values.
        maybe: attributes that only lenient operators read.
        pinned: attributes that reached an operator as a size that stays.
        torn: an attribute that stands for sizes that differ now, and one operator of each.
        tied: attributes of which one must change and nothing says which, with an operator.
    """

    sure: Values
    maybe: Values
    pinned: frozenset[Attribute]
    torn: tuple[Attribute, int] | None = None
    tied: tuple[tuple[Attribute, ...], int] | None = None


class Evidence:
    """The equations of one plan."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self._graph = graph
        self._masks: Mapping[Var, Tensor] = graph.masks(plan.kept)
        self._kept: dict[int, int] = {}

    def left(self, term: Term) -> int:
        """How much of an axis is left."""
        key = id(resolve(term))
        if key not in self._kept:
            self._kept[key] = int(keep_mask(term, self._masks).sum())
        return self._kept[key]

    @cached_property
    def numbers(self) -> Mapping[int, list[Number]]:
        """Operator → the integers that are sizes among its arguments, in order."""
        table: dict[int, list[Number]] = defaultdict(list)
        for number in self._graph.inference.numbers:
            table[number.position].append(
                Number(
                    number.term.size,
                    self.left(number.term),
                    number.role == "slice",
                    tuple(self._parts(number.term)),
                )
            )
        return table

    def _parts(self, term: Term) -> Iterator[tuple[int, int]]:
        term = resolve(term)
        if isinstance(term, Product):
            for factor in term.factors:
                yield factor.size, self.left(factor)
        else:
            yield term.size, self.left(term)

    @cached_property
    def facts(self) -> list[Fact]:
        """All equations in which an attribute has a part."""
        graph = self._graph
        facts = [
            fact
            for arrival in graph.inference.tape.arrivals
            for fact in self._facts(arrival)
            if any(attributes_in(fact.source))
        ]
        return facts + list(self._compared())

    def _facts(self, arrival: Arrival) -> Iterator[Fact]:
        for position in range(arrival.start, arrival.stop):
            op = self._graph.inference.tape.ops[position]
            numbers = self._places(op) if op.name == "aten.slice" else self.numbers.get(position)
            if numbers:
                yield from _matched(arrival, numbers, position)

    def _places(self, op: Op) -> list[Number]:
        """Start, end and length of a slice: how much is left before each place, and between."""
        axes = self._graph.inference.terms(op["self"])
        dim = op["dim"] % len(axes)
        mask, size = keep_mask(axes[dim], self._masks), axes[dim].size
        start, end = op["start"] or 0, op["end"]
        end = size if end is None else min(end, size)
        first, last = (place + size if place < 0 else place for place in (start, end))
        pairs = [
            (start, _before(mask, start)),
            (end, _before(mask, end)),
            (last - first, int(mask[first:last].sum())),
        ]
        return [Number(old, new, lenient=True) for old, new in pairs]

    def _compared(self) -> Iterator[Fact]:
        for one, other in self._graph.inference.tape.equalities:
            for source, against in ((one, other), (other, one)):
                old, new = self._was(against), evaluate(against, self._axis)
                if isinstance(source, Attribute) and old is not None and new is not None:
                    yield Fact(source, old, frozenset({new}), -1, lenient=True)

    def _was(self, source: Source | int) -> int | None:
        return evaluate(source, lambda one: self._axis_was(one))

    def _axis_was(self, source: Source) -> int | None:
        term = self._term(source)
        return None if term is None else term.size

    def _axis(self, source: Source) -> int | None:
        term = self._term(source)
        return None if term is None else self.left(term)

    def _term(self, source: Source) -> Term | None:
        if not isinstance(source, Axis):
            return None
        inference = self._graph.inference
        terms = (
            inference.parameters.get(source.value)
            if isinstance(source.value, str)
            else inference.axes.get(source.value)
        )
        return terms[source.axis] if terms and source.axis < len(terms) else None

    def value(self, source: Source, values: Values) -> int | None:
        """What a source gives in the smaller model, if these attributes have these values."""

        def size(one: Source) -> int | None:
            if isinstance(one, Attribute):
                return values.get(one, self._held(one))
            return self._axis(one)

        return evaluate(source, size)

    def _held(self, attribute: Attribute) -> int | None:
        value = read_path(self._graph.model.get_submodule(attribute.module), attribute.name)
        if attribute.index is not None:
            value = value[attribute.index] if isinstance(value, (list, tuple)) else None
        return value if type(value) is int else None

    def solve(self) -> Solution:
        """Attributes that make the equations true, as few as can be."""
        direct: dict[bool, dict[Attribute, dict[int, int]]] = {
            True: defaultdict(dict),
            False: defaultdict(dict),
        }
        for fact in self.facts:
            if isinstance(fact.source, Attribute) and fact.new is not None:
                direct[fact.lenient][fact.source].setdefault(fact.new, fact.position)
        strict, lenient = direct[False], direct[True]
        torn = next(
            (
                (one, list(news.values())[-1])
                for one, news in strict.items()
                if len(news) > 1 and all(fact.alone for fact in self.facts if fact.source == one)
            ),
            None,
        )
        values = {one: next(iter(news)) for one, news in strict.items() if len(news) == 1}
        tied = self._derive(values, frozenset(strict))
        maybe = {
            one: max(news, key=lambda new: new != self._held(one))
            for one, news in lenient.items()
            if one not in values and one not in strict
        }
        return Solution(
            {one: new for one, new in values.items() if new != self._held(one)},
            {one: new for one, new in maybe.items() if new != self._held(one)},
            frozenset(one for one, new in values.items() if new == self._held(one)),
            torn,
            tied,
        )

    def _derive(
        self, values: Values, known: frozenset[Attribute]
    ) -> tuple[tuple[Attribute, ...], int] | None:
        """Solve what was computed from attributes, one unknown at a time."""
        facts = [fact for fact in self.facts if isinstance(fact.source, Arithmetic)]
        while True:
            open_facts = [fact for fact in facts if self._is_open(fact, values)]
            ways = [(fact, self._ways(fact, values, known)) for fact in open_facts]
            single = next((changes for _, changes in ways if len(changes) == 1), None)
            single = single or self._shared([changes for _, changes in ways if changes])
            if single is None:
                return next(
                    (
                        (tuple(dict.fromkeys(one for one, _ in changes)), fact.position)
                        for fact, changes in ways
                        if len({one for one, _ in changes}) > 1
                    ),
                    None,
                )
            values.update(single)

    def _shared(
        self, ways: list[list[tuple[Attribute, int]]]
    ) -> list[tuple[Attribute, int]] | None:
        """The one change that is among the ways of all open equations."""
        common = [way for way in ways[0] if all(way in others for others in ways)] if ways else []
        return common if len(common) == 1 and len(ways) > 1 else None

    def _is_open(self, fact: Fact, values: Values) -> bool:
        value = self.value(fact.source, values)
        return not fact.lenient and value is not None and value not in fact.news

    def _ways(
        self, fact: Fact, values: Values, known: frozenset[Attribute]
    ) -> list[tuple[Attribute, int]]:
        """Single changes that make an equation true: a size of the term's own if one does."""
        free = [one for one in attributes_in(fact.source) if one not in known]
        free = [one for one in free if one not in values]
        sizes = {
            one: [new for old, new in fact.parts if old == self._held(one) and old != new]
            for one in free
        }
        fitting = [
            (one, new) for one in free for new in sizes[one] if self._fits(fact, one, new, values)
        ]
        if fitting:
            return list(dict.fromkeys(fitting))
        # of several (17 // 2 is 8 as well), the least: it divides without a rest
        least = {
            one: next(
                (
                    new
                    for new in range(1, min(self._held(one) or 0, LARGEST))
                    if self._fits(fact, one, new, values)
                ),
                None,
            )
            for one in free
        }
        return [(one, new) for one, new in least.items() if new is not None]

    def _fits(self, fact: Fact, one: Attribute, new: int, values: Values) -> bool:
        return self.value(fact.source, {**values, one: new}) in fact.news


def _before(mask: Tensor, place: int) -> int:
    """How much is left before a place, or behind one that is counted from the end."""
    return int(mask[:place].sum()) if place >= 0 else -int(mask[place:].sum())


def _matched(arrival: Arrival, numbers: list[Number], position: int) -> Iterator[Fact]:
    """The integers of a call beside those of one of its operators: one by one if there are as many,
    else by value.
    """
    given = arrival.numbers
    in_order = len(given) == len(numbers) and all(
        old in (number.old, -1) for (old, _), number in zip(given, numbers, strict=True)
    )
    for place, (old, source) in enumerate(given):
        if source is None:
            continue
        same = [number for number in numbers if number.old == old]
        if in_order:
            same = [numbers[place]]
        elif sum(value == old for value, _ in given) == len(same):
            same = [same[sum(value == old for value, _ in given[:place])]]
        if same:
            yield Fact(
                source,
                old,
                frozenset(number.new for number in same),
                position,
                all(number.lenient for number in same),
                tuple(part for number in same for part in number.parts),
                arrival.stop - arrival.start == 1,
            )
