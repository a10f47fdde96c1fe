"""An order of a tape's operators in which all calls of one layer come right after each other.

A layer that is called many times (frames in a loop, the two branches of a siamese network) is to be
fitted to all its calls at once. So a run stops before the first of them, when what each of them
reads is there: operators that wait for none of the calls go first. Where a call needs the result
of another (a recurrent network) there is no such order; the layer is then apart.

    order of the tape:  a₁ b₁ c₁ a₂ b₂ c₂     in lockstep:  a₁ a₂ b₁ b₂ c₁ c₂
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from niwaki.running import Op, Ref, Tape
from niwaki.running.replay import Step
from niwaki.running.tape import refs_in


@dataclass(frozen=True)
class Lockstep:
    """An order of operators.

    Attributes:
        order: position on the tape, by place in the order.
        place: place in the order, by position on the tape.
        apart: layers of which one call needs the result of another.
    """

    order: tuple[int, ...]
    place: Mapping[int, int]
    apart: frozenset[Hashable]

    def tape(self, tape: Tape) -> Tape:
        """A run of the same operators, in this order."""
        return replace(tape, ops=[tape.ops[position] for position in self.order])

    def step(self, step: Step) -> Step:
        """The same step for a run in this order: it is told the position on the tape."""

        def moved(place: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return step(self.order[place], op, args, kwargs)

        return moved


def lockstep(tape: Tape, calls: Mapping[Any, Iterable[int]]) -> Lockstep:
    """The order in which all operators come as early as they can, and calls of one layer together.

    Args:
        calls: layer → positions of its calls.
    """
    held = {layer: set(here) for layer, here in calls.items() if len(set(here)) > 1}
    of_layer = {position: layer for layer, here in held.items() for position in here}
    needs = _needs(tape)
    users: dict[int, list[int]] = defaultdict(list)
    for position, before in enumerate(needs):
        for other in before:
            users[other].append(position)
    missing = [len(before) for before in needs]
    free = [position for position, count in enumerate(missing) if not count]
    ready = [position for position in free if position not in of_layer]
    waiting = {position for position in free if position in of_layer}
    order: list[int] = []
    apart: set[Hashable] = set()
    heapq.heapify(ready)

    def release(position: int) -> None:
        order.append(position)
        for user in users[position]:
            missing[user] -= 1
            if not missing[user] and user in of_layer:
                waiting.add(user)
            elif not missing[user]:
                heapq.heappush(ready, user)

    while ready or waiting:
        if ready:
            release(heapq.heappop(ready))
            continue
        whole = [at for at in waiting if held[of_layer[at]] <= waiting]
        layer = of_layer[min(whole or waiting)]
        if not whole:
            apart.add(layer)
        together = sorted(held[layer] & waiting)
        waiting -= set(together)
        held[layer] -= set(together)
        for position in together:
            release(position)
    place = {position: number for number, position in enumerate(order)}
    return Lockstep(tuple(order), place, frozenset(apart))


def _needs(tape: Tape) -> list[set[int]]:
    """For each operator, those that must come before it: they make what it reads, or one of both
    writes into memory that the other uses.
    """
    memory: dict[Ref, Ref] = {}  # view → what it is a view of
    maker: dict[Ref, int] = {}
    writer: dict[Ref, int] = {}
    users: dict[Ref, list[int]] = defaultdict(list)
    needs: list[set[int]] = []
    for position, op in enumerate(tape.ops):
        before = {maker[ref] for ref in op.tensors if ref in maker}
        seen, changed = _memory(op, memory)
        for base in seen:
            before |= {writer[base]} if base in writer else set()
        for base in changed:
            before |= set(users[base])
            writer[base] = position
            users[base].clear()
        for base in seen:
            users[base].append(position)
        maker.update({ref: position for ref in op.outputs if ref is not None})
        needs.append(before - {position})
    return needs


def _memory(op: Op, memory: dict[Ref, Ref]) -> tuple[set[Ref], set[Ref]]:
    """Whose memory an operator uses, and whose it writes into; its results that are views are
    noted.
    """
    seen = {memory.get(ref, ref) for ref in op.tensors}
    changed: set[Ref] = set()
    for place, schema in enumerate(op.func._schema.arguments):
        if schema.alias_info is None:
            continue
        bases = [memory.get(ref, ref) for ref in refs_in(op.arg(place, schema.name))]
        if schema.alias_info.is_write:
            changed.update(bases)
        if bases:
            views = {ref: bases[0] for ref in op.outputs if ref is not None and ref != bases[0]}
            memory.update(views)
    return seen, changed
