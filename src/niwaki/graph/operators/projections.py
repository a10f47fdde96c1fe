"""Back from a value to the product with a weight that computes it, through views and single
factors alone: what is computed so is linear in that weight's rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from niwaki.graph.inference import Inference, Kind
from niwaki.graph.operators.weighted import WEIGHTED
from niwaki.running import Op, Ref


@dataclass(frozen=True)
class Factor:
    """One number by which an operator multiplies or divides."""

    position: int
    slot: int
    divides: bool


class NotLinearError(Exception):
    """Why the dimensions of a head cannot be mixed; the message is a clause."""


@dataclass
class Source:
    """Where an operand comes from: its projection, and the views on the way."""

    op: Op
    position: int
    weight: Ref
    bias: Ref | None
    views: list[tuple[Op, int]]
    factors: list[Factor]


def source_of(state: Inference, ref: Ref) -> Source:
    """Back from an operand to the product with a weight that computes it."""
    views: list[tuple[Op, int]] = []
    factors: list[Factor] = []
    while True:
        makers = state.tape.makers.get(ref, ())
        if len(makers) != 1:
            raise NotLinearError("an operand of its product is an input, or written in place")
        position = makers[0]
        op = state.tape.ops[position]
        weighted = WEIGHTED.get(op)
        if weighted is not None and not weighted.image:
            _, weight, bias = weighted.operands(op)
            return Source(op, position, weight, bias, views[::-1], factors)
        factor = factor_of(op, position)
        if factor is not None:
            factors.append(factor)
        elif state.kinds[position] is Kind.VIEW and len(op.tensors) == 1:
            views.append((op, op.outputs.index(ref)))
        elif op.name != "aten._to_copy":
            raise NotLinearError(f"{where(op)} comes between a projection and its product")
        ref = op.first


def factor_of(op: Op, position: int) -> Factor | None:
    """The single number that an operator multiplies or divides by."""
    if op.name not in ("aten.mul", "aten.div", "aten.mul_", "aten.div_") or len(op.tensors) != 1:
        return None
    if not isinstance(op.first, Ref) or op["other"] is None:
        return None
    return Factor(position, op.place("other"), "div" in op.name)


def come_from_projections(state: Inference, refs: Iterable[Ref]) -> bool:
    """Whether a projection's weights could multiply each of these values by a number."""
    try:
        for ref in refs:
            source_of(state, ref)
    except NotLinearError:
        return False
    return True


def where(op: Op) -> str:
    """The operator and its layer, for messages."""
    return f"{op.name} in {op.layer or 'the model'}"
