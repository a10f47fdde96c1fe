"""Numbers that a model's code computes from a count of channels, and hands to an operator as they
are: x * x.shape[1] ** 0.5, x.sum(1) / x.shape[1].

The tape holds such a number, not where it came from. Where the pruned model hands over the same
function of the count that it has now, the masked original is to be given that number too: as with
statistics that are taken over the kept channels, such a cut changes more than a mask would.

>>> import niwaki, torch
>>> class Scaled(nn.Module):
...     def forward(self, x):
...         return x * x.shape[1] ** 0.5
>>> model = nn.Sequential(nn.Linear(4, 32), Scaled(), nn.Linear(32, 2)).eval()
>>> graph = niwaki.trace(model, torch.ones(3, 4))
>>> plan = niwaki.Plan({"0": niwaki.Kept(32, range(8))})
>>> pruned = niwaki.shrink(niwaki.Cut(graph, plan))
>>> [str(number) for number in counted_numbers(graph, plan, pruned)]
['1 multiplies by 2.83, where it was 5.66 (computed from 8 channels, which were 32)']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from niwaki.core.errors import TraceError
from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.operators import Facts, is_attention
from niwaki.graph.terms import kept_size
from niwaki.running import record

WORDS = Facts(
    "counted",
    "what it does by a number that code may compute from a count of channels; the proof asks",
    {"mul": "multiplies by", "div": "divides by", "add": "adds", "sub": "subtracts"},
)
POWERS = (1, 0.5, 0.25, 2, -0.25, -0.5, -1, -2)
TIMES = (1, -1, 2, 0.5)
NO_SLOT = -1  # of a number that is no argument


@dataclass(frozen=True)
class Counted:
    """One number.

    Attributes:
        position, slot: the operator on the tape, and which of its arguments it is; NO_SLOT where it
            is none, as the operator computes it.
        before, after: the number.
        channels, kept: the count that it was computed from, and the count that is left.
    """

    position: int
    slot: int
    layer: str
    word: str
    before: float
    after: float
    channels: int
    kept: int

    def __str__(self) -> str:
        return (
            f"{self.layer or 'the model'} {self.word} {self.after:.3g}, where it was "
            f"{self.before:.3g} (computed from {self.kept} channels, which were {self.channels})"
        )


def counted_numbers(
    graph: Graph, plan: Plan, pruned: nn.Module, *, training: bool = False
) -> tuple[Counted, ...]:
    """The numbers that the pruned model computes from the counts that it has now.

    Args:
        training: whether the graph's path is that of training.
    """
    implied = tuple(_implied(graph, plan))
    candidates = list(_candidates(graph, plan))
    if not candidates:
        return implied
    try:
        ops = record(pruned, graph.inputs, fake=False, training=training).ops
    except TraceError:
        return implied  # what does not run is said by the check itself
    if [op.func for op in ops] != [op.func for op in graph.inference.tape.ops]:
        return implied
    numbers = {
        (number.position, number.slot): number
        for number in candidates
        if _is_near(ops[number.position].args[number.slot], number.after)
    }
    return (*numbers.values(), *implied)


def _implied(graph: Graph, plan: Plan) -> Iterator[Counted]:
    """Attention that is given no scale divides by the root of its queries' width."""
    kept = {graph.variables[name]: len(units) for name, units in plan.kept.items()}
    for position, op in enumerate(graph.inference.tape.ops):
        if is_attention(op) and op["scale"] is None:
            width = graph.inference.axes[op.first][-1]
            before, after = width.size, kept_size(width, kept)
            if before != after:
                roots = before**0.5, after**0.5
                yield Counted(position, NO_SLOT, op.layer, "divides by", *roots, before, after)


def restated(numbers: tuple[Counted, ...], position: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's arguments with the numbers of the pruned model."""
    after = {number.slot: number.after for number in numbers if number.position == position}
    return tuple(after.get(slot, arg) for slot, arg in enumerate(args)) if after else args


def _candidates(graph: Graph, plan: Plan) -> Iterator[Counted]:
    """Numbers that are a plain function of a count that changes, with what they would be now."""
    changes = _changes(graph, plan)
    for position, op in enumerate(graph.inference.tape.ops):
        word = WORDS.get(op)
        for name in ("self", "other") if word else ():
            value = op[name]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                for (before, after), power, times in _functions(changes):
                    if _is_near(value, times * before**power):
                        now = times * after**power
                        yield Counted(
                            position,
                            op.place(name),
                            op.layer,
                            word or "",
                            value,
                            now,
                            before,
                            after,
                        )


def _functions(changes: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], float, float]]:
    for pair in sorted(changes):
        for power in POWERS:
            for times in TIMES:
                yield pair, power, times


def _changes(graph: Graph, plan: Plan) -> set[tuple[int, int]]:
    """Sizes of axes of activations before and after, where they change."""
    kept = {graph.variables[name]: len(units) for name, units in plan.kept.items()}
    state = graph.inference
    terms = {term for ref, axes in state.axes.items() if ref not in state.origins for term in axes}
    pairs = {(term.size, kept_size(term, kept)) for term in terms}
    return {(before, after) for before, after in pairs if before != after and after}


def _is_near(value: Any, expected: float) -> bool:
    return isinstance(value, (int, float)) and abs(value - expected) <= 1e-9 * abs(expected)
