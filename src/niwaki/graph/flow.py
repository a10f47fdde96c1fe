"""How the units of a group are computed: their writers, and what happens to them on the way to where they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from niwaki.graph.inference import Inference, Kind, Norm
from niwaki.graph.tape import Op, Ref
from niwaki.graph.terms import Term, Var, leaves
from niwaki.graph.types import Normaliser, Role, Slice, Writer

Slices = Mapping[tuple[str, int], Slice]


@dataclass(eq=False)
class _Draft:
    """A writer in the making; it is open until its units meet a non-linearity."""

    layer: str
    weights: tuple[Slice, ...]
    bias: Slice | None = None
    norm: Normaliser | None = None

    def finish(self) -> Writer:
        return Writer(self.layer, self.weights, self.bias, self.norm)


@dataclass
class _Walk:
    state: Inference
    var: Var
    slices: Slices
    open: dict[Ref, _Draft | None] = field(default_factory=dict)
    writers: list[_Draft] = field(default_factory=list)
    obstacle: str | None = None

    def carries(self, ref: Ref) -> bool:
        return any(var is self.var for term in self.state.axes[ref] for var in leaves(term))

    def hinder(self, reason: str) -> None:
        self.obstacle = self.obstacle or reason


def follow(state: Inference, var: Var, operators: Sequence[int], slices: Slices) -> tuple[tuple[Writer, ...], str | None]:
    """Walk a variable through the operators that touch it.

    Returns:
        its writers, and why a multiple of a unit does not stay that multiple until it is read (None where it does).
    """
    walk = _Walk(state, var, slices)
    norms = {norm.position: norm for norm in state.norms}
    for position in operators:
        op = state.tape.ops[position]
        outs = [ref for ref in op.outputs if ref is not None and walk.carries(ref)]
        if outs:
            draft = _step(walk, position, op, norms.get(position))
            walk.open.update(dict.fromkeys(outs, draft))
    writers = tuple({_identity(draft): draft.finish() for draft in walk.writers}.values())
    if len(writers) > 1:
        walk.hinder("written by several layers: " + ", ".join(writer.layer for writer in writers))
    if not writers:
        walk.hinder("no layer computes it from weights")
    return writers, walk.obstacle


def _identity(draft: _Draft) -> tuple[object, ...]:
    """A layer that is called twice is one writer."""
    return (*(piece.tensor for piece in draft.weights), draft.bias, draft.norm and draft.norm.mean.tensor)


def _step(walk: _Walk, position: int, op: Op, norm: Norm | None) -> _Draft | None:
    """What one operator does to the units; returns the writer that is still open behind it."""
    kind, where = walk.state.kinds[position], f"{op.name} in {op.layer or 'the model'}"
    before = [walk.open.get(ref) for ref in op.tensors if ref not in walk.state.origins and walk.carries(ref)]
    draft = before[0] if len(before) == 1 else None
    if kind is Kind.PRODUCT:
        if _passes_through(walk, position, op):
            walk.hinder(f"carried through {where}")
            return None
        return _write(walk, op)
    if kind is Kind.BIAS and draft and not draft.bias and not draft.norm:
        draft.bias = _parameter(walk, op)
        return draft
    if norm is not None and draft and not draft.norm:
        draft.norm = _normaliser(walk, norm)
        return draft
    if kind is Kind.VIEW and len(before) == 1:
        return draft
    if kind not in (Kind.VIEW, Kind.LINEAR, Kind.HOMOGENEOUS):
        walk.hinder(_reason(kind, where))
    return None


def _reason(kind: Kind, where: str) -> str:
    return {
        Kind.BIAS: f"{where} adds a parameter after the non-linearity",
        Kind.NORM: f"{where} normalises after the non-linearity",
        Kind.JOIN: f"{where} joins it with another activation",
    }.get(kind, f"{where} is not positively homogeneous")


def _passes_through(walk: _Walk, position: int, op: Op) -> bool:
    """Whether the variable is in an activation operand other than where it is summed over."""
    reads = [read for read in walk.state.reads if read.position == position]
    for slot, ref in enumerate(op.args):
        if not isinstance(ref, Ref) or ref in walk.state.origins:
            continue
        for axis, term in enumerate(walk.state.axes[ref]):
            summed: list[Term] = [read.term for read in reads if (read.slot, read.axis) == (slot, axis)]
            within = [var for var in leaves(term) if var is walk.var]
            if len(within) > sum(var is walk.var for part in summed for var in leaves(part)):
                return True
    return False


def _write(walk: _Walk, op: Op) -> _Draft | None:
    """A product that puts the variable out: its operands made of parameters are the writer's weight and bias."""
    weights: list[Slice] = []
    bias: Slice | None = None
    for ref in op.tensors:
        if ref in walk.state.origins:
            found = _producers(walk, ref)
            if len(walk.state.shape(ref)) > 1:
                weights += found
            elif found:
                bias = found[0]
    if not weights:
        walk.hinder(f"computed from activations alone by {op.name} in {op.layer or 'the model'}")
        return None
    draft = _Draft(op.layer, tuple(weights), bias)
    walk.writers.append(draft)
    return draft


def _producers(walk: _Walk, ref: Ref) -> list[Slice]:
    names = walk.state.origins[ref].names
    return [piece for (name, _), piece in walk.slices.items() if name in names and piece.role is Role.PRODUCER]


def _parameter(walk: _Walk, op: Op) -> Slice | None:
    """The slice of the parameter that an operator adds."""
    names = {name for ref in op.tensors if ref in walk.state.origins for name in walk.state.origins[ref].names}
    return next((piece for (name, _), piece in walk.slices.items() if name in names), None)


def _normaliser(walk: _Walk, norm: Norm) -> Normaliser:
    mean, var = walk.slices[norm.mean, 0], walk.slices[norm.var, 0]
    scale, shift = (walk.slices[name, 0] if name else None for name in (norm.scale, norm.shift))
    return Normaliser(scale, shift, mean, var, norm.eps)
