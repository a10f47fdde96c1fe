"""What a cut leaves of the sizes and positions that operators are given as arguments. An axis is a
term, and the term says what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.terms import Term, Var, keep_mask, kept_size, leaves
from niwaki.running import Op, Ref


@dataclass(frozen=True)
class AxisSize:
    """A number of positions: so many, times the batch of one of the inputs where there is one."""

    number: int
    batch: Var | None = None


class KeptSizes:
    """Sizes and positions of the recorded run, as they are after a cut.

    Args:
        batches: variables that stand for the batch of an input, which the graph takes from the
            input at hand; it may grow later.
    """

    def __init__(self, graph: Graph, plan: Plan, batches: Mapping[Var, object]) -> None:
        self._inference, self._batches = graph.inference, batches
        self._masks = graph.masks(plan.kept)
        self._counts = {var: int(mask.sum()) for var, mask in self._masks.items()}

    def size(self, term: Term) -> AxisSize:
        """What is left of an axis."""
        left = kept_size(term, self._counts)
        batches = [var for var in leaves(term) if var in self._batches]
        if len(batches) == 1 and left % batches[0].size == 0:
            return AxisSize(left // batches[0].size, batches[0])
        return AxisSize(left)

    def shape(self, ref: Ref, *, new: bool = False) -> list[AxisSize]:
        """What is left of every axis of a value.

        Args:
            new: it is made of nothing; where no axis is known to be the batch, a first one of its
                size is taken to be it.
        """
        sizes = [self.size(term) for term in self._inference.axes[ref]]
        batch = next(iter(self._batches), None)
        known = any(size.batch is not None for size in sizes)
        if new and batch is not None and not known and sizes and sizes[0] == AxisSize(batch.size):
            sizes[0] = AxisSize(1, batch)
        return sizes

    def place(self, term: Term, position: int) -> int:
        """Where a position of an axis lies among those that are left."""
        if position <= 0 or not any(var in self._masks for var in leaves(term)):
            return position
        return (
            int(keep_mask(term, self._masks)[:position].sum()) if position < term.size else position
        )

    def terms(self, ref: Ref) -> list[Term]:
        """What the axes of a value are made of, before the cut."""
        return self._inference.axes[ref]

    def groups(self, op: Op, groups: int) -> int:
        """Groups that are left: the rule that read the operator noted their term."""
        tape = self._inference.tape
        noted = [
            n.term
            for n in self._inference.numbers
            if tape.ops[n.position] is op and "groups" in n.role
        ]
        return self.size(noted[0]).number if noted else groups
