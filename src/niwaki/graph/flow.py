"""How the units of a group are computed: their writers, and what happens to them on the way to
where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from niwaki.graph.group import Normaliser, Role, Slice, Writer
from niwaki.graph.inference import Inference, Kind, Norm
from niwaki.graph.terms import Term, Var, leaves
from niwaki.running import Op, Ref

Slices = Mapping[tuple[str, int], Slice]


@dataclass(frozen=True, eq=False)
class _Draft:
    """A writer in the making; it is open until its units meet anything but a bias or a
    normalisation.
    """

    layer: str
    weights: tuple[Slice, ...]
    bias: Slice | None = None
    norm: Normaliser | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """A layer that is called twice is one writer."""
        return (
            *(piece.tensor for piece in self.weights),
            self.bias,
            self.norm and self.norm.mean.tensor,
        )


@dataclass
class _Walk:
    state: Inference
    var: Var
    slices: Slices
    open: dict[Ref, _Draft | None] = field(default_factory=dict)
    writers: dict[tuple[object, ...], Writer] = field(default_factory=dict)
    obstacle: str | None = None

    def carries(self, ref: Ref) -> bool:
        return any(var is self.var for term in self.state.axes[ref] for var in leaves(term))

    def hinder(self, reason: str) -> None:
        self.obstacle = self.obstacle or reason

    def finish(self, draft: _Draft | None) -> None:
        """The units are used in the form that they have now."""
        if draft is not None:
            self.writers[draft.identity] = Writer(
                draft.layer, draft.weights, draft.bias, draft.norm
            )


def follow(
    state: Inference, var: Var, operators: Sequence[int], slices: Slices
) -> tuple[tuple[Writer, ...], str | None]:
    """Walk a variable through the operators that touch it.

    Returns:
        its writers, and why a multiple of a unit does not stay that multiple until it is read (None
        where it does).
    """
    walk = _Walk(state, var, slices)
    norms = state.norms_at
    for position in operators:
        op = state.tape.ops[position]
        outs = [ref for ref in op.outputs if ref is not None and walk.carries(ref)]
        before = [
            walk.open.get(ref)
            for ref in op.tensors
            if ref not in state.origins and walk.carries(ref)
        ]
        draft = _extended(walk, position, op, norms.get(position), before) if outs else None
        if draft is None:
            for old in before:
                walk.finish(old)
            draft = _started(walk, position, op) if outs else None
        walk.open.update(dict.fromkeys(outs, draft))
    writers = tuple(walk.writers.values())
    layers = list(dict.fromkeys(writer.layer for writer in writers))
    if len(layers) > 1:
        walk.hinder("written by several layers: " + ", ".join(layers))
    elif len(writers) > 1:
        walk.hinder(
            f"what {layers[0]} writes is read in several forms, with and without a bias or "
            "normalisation"
        )
    if not writers:
        walk.hinder("no layer computes it from weights")
    return writers, walk.obstacle


def _extended(
    walk: _Walk, position: int, op: Op, norm: Norm | None, before: Sequence[_Draft | None]
) -> _Draft | None:
    """The writer with what this operator adds to it; None where the operator uses the units, or
    none is open.
    """
    kind, draft = walk.state.kinds[position], before[0] if len(before) == 1 else None
    if draft is None:
        return None
    if kind is Kind.BIAS and not draft.bias and not draft.norm:
        bias = _parameter(walk, op)
        return replace(draft, bias=bias) if bias else None
    if norm is not None and not draft.norm:
        if not all(
            _one_a_unit(walk, piece) for piece in (walk.slices[norm.mean, 0], draft.bias) if piece
        ):
            return None
        return replace(draft, norm=_normaliser(walk, norm))
    return draft if kind is Kind.VIEW else None


def _started(walk: _Walk, position: int, op: Op) -> _Draft | None:
    """The writer that a product opens; any other operator may break what is proportional."""
    kind, where = walk.state.kinds[position], f"{op.name} in {op.layer or 'the model'}"
    if kind is Kind.PRODUCT:
        if not _passes_through(walk, position, op):
            return _write(walk, op)
        walk.hinder(f"carried through {where}")
    elif kind not in (Kind.VIEW, Kind.LINEAR, Kind.HOMOGENEOUS):
        walk.hinder(_reason(kind, where))
    return None


def _reason(kind: Kind, where: str) -> str:
    return {
        Kind.BIAS: f"{where} adds a parameter that is not the bias of a product",
        Kind.NORM: f"{where} normalises what is not a product and its bias",
        Kind.JOIN: f"{where} joins it with another activation",
    }.get(kind, f"{where} is not positively homogeneous")


def _passes_through(walk: _Walk, position: int, op: Op) -> bool:
    """Whether the variable is in an activation operand other than where it is summed over."""
    reads = walk.state.reads_at.get(position, [])
    for slot, ref in enumerate(op.args):
        if not isinstance(ref, Ref) or ref in walk.state.origins:
            continue
        for axis, term in enumerate(walk.state.axes[ref]):
            summed: list[Term] = [
                read.term for read in reads if (read.slot, read.axis) == (slot, axis)
            ]
            within = [var for var in leaves(term) if var is walk.var]
            if len(within) > sum(var is walk.var for part in summed for var in leaves(part)):
                return True
    return False


def _write(walk: _Walk, op: Op) -> _Draft | None:
    """A product that puts the variable out: its operands made of parameters are the writer's weight
    and bias.
    """
    weights: list[Slice] = []
    bias: Slice | None = None
    for ref in op.tensors:
        if ref in walk.state.origins:
            if not walk.state.origins[ref].pure:
                walk.hinder(
                    f"written through a computed weight by {op.name} in {op.layer or 'the model'}"
                )
            producers = _producers(walk, ref)
            if len(walk.state.shape(ref)) > 1:
                weights += producers
            elif producers:
                bias = producers[0]
    if not weights:
        walk.hinder(f"computed from activations alone by {op.name} in {op.layer or 'the model'}")
        return None
    return _Draft(op.layer, tuple(weights), bias)


def _producers(walk: _Walk, ref: Ref) -> list[Slice]:
    names = walk.state.origins[ref].names
    return [
        piece
        for (name, _), piece in walk.slices.items()
        if name in names and piece.role is Role.PRODUCER
    ]


def _parameter(walk: _Walk, op: Op) -> Slice | None:
    """The slice of the parameter that an operator adds; None where what it adds is computed, or has
    no axis of units.
    """
    origins = [walk.state.origins[ref] for ref in op.tensors if ref in walk.state.origins]
    names = {name for origin in origins if origin.pure for name in origin.names}
    return next((piece for (name, _), piece in walk.slices.items() if name in names), None)


def _one_a_unit(walk: _Walk, piece: Slice) -> bool:
    sizes = [term.size for term in walk.state.parameters[piece.tensor]]
    return prod(sizes) // sizes[piece.axis] * int((piece.units >= 0).sum()) == walk.var.size


def _normaliser(walk: _Walk, norm: Norm) -> Normaliser:
    mean, var = walk.slices[norm.mean, 0], walk.slices[norm.var, 0]
    scale, shift = (walk.slices[name, 0] if name else None for name in (norm.scale, norm.shift))
    return Normaliser(scale, shift, mean, var, norm.eps)
