"""From a tape to terms: what every axis of every value of a run is made of.

`infer` walks the operators in order and lets each one's rule (niwaki.graph.operators) say how the
axes of its operands and results hang together, through the `Inference` object. An operator without
a rule freezes all that it touches.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from niwaki.graph.facts import Facts
from niwaki.graph.reasons import SIZE_ONE, Freeze, Reason
from niwaki.graph.terms import Product, Term, Var, freeze, leaves, resolve, split, unify
from niwaki.running import Op, Ref, Tape


class Kind(enum.Enum):
    """What an operator does to the channels that pass through it; compensations need to know."""

    PRODUCT = "product"  # contracts activations with something
    BIAS = "bias"  # adds a parameter
    NORM = "norm"  # affine a channel, by stored statistics
    VIEW = "view"  # moves values, changes none
    LINEAR = "linear"  # f(c·x) = c·f(x) for any c: average pooling, sums
    HOMOGENEOUS = "homogeneous"  # f(c·x) = c·f(x) for c ≥ 0: ReLU, max pooling
    JOIN = "join"  # combines two activations channel by channel
    OTHER = "other"


@dataclass(frozen=True)
class Read:
    """A place where an operator sums over channels, so that dropping one means leaving out its
    summand.

    Attributes:
        position, slot: the operator on the tape, and which of its arguments is read.
        axis, whole: the axis that is read, and its term; only the variables of `term` are summed
            over.
        weight: the other operand, where it is made of parameters alone; `weight_axis` holds the
            same channels.
        statistics: the operator normalises over the channels, so that it is to see only the kept
            ones.
    """

    position: int
    slot: int
    axis: int
    whole: Term
    term: Term
    weight: Ref | None = None
    weight_axis: int = 0
    statistics: bool = False


@dataclass(frozen=True)
class Norm:
    """A normalisation by stored statistics: names of its tensors, each of one axis with the term
    `channels`.
    """

    position: int
    channels: Term
    scale: str | None
    shift: str | None
    mean: str
    var: str
    eps: float


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one product: as many as the sizes of these terms multiplied."""

    position: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Number:
    """An integer that reached an operator from Python code and is the size of a term."""

    position: int
    layer: str
    role: str  # the operator's argument: "groups", "normalized_shape", "size", "pad", …
    term: Term


@dataclass(frozen=True)
class Origin:
    """Parameters that a value is computed from and nothing else; `pure`: it is a rearrangement of
    just one.
    """

    names: tuple[str, ...]
    pure: bool


@dataclass
class Inference:
    """What is known of a tape's values so far, and what the rules may say of the operator at
    hand.
    """

    tape: Tape
    axes: dict[Ref, list[Term]] = field(default_factory=dict)
    parameters: dict[str, list[Term]] = field(default_factory=dict)
    origins: dict[Ref, Origin] = field(default_factory=dict)
    kinds: list[Kind] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    scales: dict[str, bool] = field(
        default_factory=dict
    )  # parameters that multiply channels → whether through a sigmoid
    numbers: list[Number] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    position: int = 0

    @property
    def op(self) -> Op:
        """The operator whose rule is running."""
        return self.tape.ops[self.position]

    @property
    def where(self) -> str:
        """The operator and its layer, for reasons and messages."""
        op = self.op
        return f"{op.name} in {op.layer or 'the model'}"

    def why(self, how: str) -> Reason:
        """The operator as a reason to keep a size: "sliced by", followed by the operator."""
        return Reason(Freeze.OPERATOR, f"{how} {self.where}")

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """The recorded shape of a value."""
        return self.tape.shapes[ref.index]

    def terms(self, ref: Ref) -> list[Term]:
        """The axes of a value that exists."""
        if ref not in self.axes:
            name = self.tape.parameters.get(ref)
            if name is None:
                kept = self.tape.kept_tensors.get(ref)
                detail = f"that a module keeps as {kept}, no buffer" if kept else ""
                reason = Reason(Freeze.CONSTANT, detail)
                self.axes[ref] = self.fresh(self.shape(ref), reason)
            else:
                if name not in self.parameters:
                    self.parameters[name] = self.fresh(self.shape(ref))
                self.axes[ref] = self.parameters[name]
                self.origins[ref] = Origin((name,), pure=True)
        return self.axes[ref]

    def fresh(self, shape: tuple[int, ...], frozen: Reason | None = None) -> list[Term]:
        """New variables for a shape; an axis of size one never shrinks."""
        return [Var(size, frozen or (SIZE_ONE if size == 1 else None)) for size in shape]

    def give(self, ref: Ref, terms: list[Term]) -> None:
        """State the axes of a result; a result that is one of the operands (in-place) keeps its
        own, unified.
        """
        if ref in self.axes:
            self.same(self.axes[ref], terms)
        else:
            self.axes[ref] = terms

    def same(self, a: list[Term], b: list[Term]) -> None:
        """Unify two lists of axes one by one."""
        for left, right in zip(a, b, strict=True):
            self.unify(left, right)

    def unify(self, a: Term, b: Term) -> None:
        """The two axes hold the same channels."""
        unify(a, b, self.why("does not line up at"))

    def freeze(self, *terms: Term, reason: Reason | None = None) -> None:
        """These axes keep their size."""
        for term in terms:
            freeze(term, reason or self.why("fixed by"))

    def split(self, term: Term, sizes: list[int]) -> list[Term]:
        """Factors of a term; frozen ones where it has none of these sizes."""
        reason = self.why("does not split at")
        return split(term, sizes, reason) or [Var(size, reason) for size in sizes]

    def reads_channels(
        self, slot: int, axis: int, term: Term, weight: tuple[Ref, int] | None = None
    ) -> None:
        """The operator sums argument `slot` over the channels `term` of `axis`, maybe against a
        weight's axis.
        """
        whole = self.terms(self.op.args[slot])[axis]
        ref, weight_axis = weight or (None, 0)
        if ref is not None and ref not in self.origins:
            ref = None
        self.reads.append(Read(self.position, slot, axis, whole, term, ref, weight_axis))

    def multiplies(self, *terms: Term) -> None:
        """The operator makes one multiply-add for every combination of indices of these terms."""
        self.work.append(Work(self.position, terms))

    def normalises(self, slot: int, axis: int, term: Term) -> None:
        """The operator takes statistics of argument `slot` over the channels `term` of `axis`."""
        whole = self.terms(self.op.args[slot])[axis]
        self.reads.append(Read(self.position, slot, axis, whole, term, statistics=True))

    def reduces(self, slot: int, axes: list[int]) -> None:
        """The operator takes statistics over these axes of an argument: of kept channels only, once
        some are gone.
        """
        terms = self.terms(self.op.args[slot])
        for axis in axes:
            self.normalises(slot, axis, terms[axis])

    def is_used(self, ref: Ref | None) -> bool:
        """Whether any operator takes a value, or the model returns it."""
        return ref in self._used

    @cached_property
    def _used(self) -> set[Ref]:
        return {*self.tape.outputs, *(ref for op in self.tape.ops for ref in op.tensors)}

    @cached_property
    def reads_at(self) -> dict[int, list[Read]]:
        """Operator → its reads; of a tape that has been walked to its end."""
        reads: dict[int, list[Read]] = {}
        for read in self.reads:
            reads.setdefault(read.position, []).append(read)
        return reads

    @cached_property
    def norms_at(self) -> dict[int, Norm]:
        """Operator → the normalisation by stored statistics that it is; of a whole tape."""
        return {norm.position: norm for norm in self.norms}

    def number(self, role: str, term: Term) -> None:
        """An integer argument of the operator is the size of this term."""
        self.numbers.append(Number(self.position, self.op.layer, role, term))

    def scaled_by(self, ref: Any) -> None:
        """A factor a channel, as the operator takes it: note the parameter that it is, or that it
        is the sigmoid of.
        """
        name = self.tape.parameters.get(ref)
        if name is not None:
            self.scales[name] = False
            return
        for place in self.tape.makers.get(ref, ()) if isinstance(ref, Ref) else ():
            op = self.tape.ops[place]
            known = op.name == "aten.sigmoid" and op.first in self.tape.parameters
            if known and place < self.position:
                self.scales[self.tape.parameters[op.first]] = True

    def is_activation(self, ref: Any) -> bool:
        """Whether a value depends on the model's inputs (or on constants) and not on parameters
        alone.
        """
        if not isinstance(ref, Ref):
            return False
        self.terms(ref)
        return ref not in self.origins


Rule = Callable[[Inference, Op], Kind | None]


def infer(tape: Tape, rules: Facts[Rule], example: Inference | None = None) -> Inference:
    """Read a whole tape. Inputs and outputs are frozen: a pruned model takes and returns what the
    original does.

    Args:
        example: what is known of another run of the same model; the terms that parameters have
            there learn from this one.
    """
    state = Inference(tape) if example is None else Inference(tape, parameters=example.parameters)
    for ref in tape.inputs:
        state.axes[ref] = state.fresh(state.shape(ref), Reason(Freeze.INPUT))
    for position, op in enumerate(tape.ops):
        state.position = position
        rule = rules.get(op)
        kind = rule(state, op) if rule is not None else None
        if kind is None:
            kind = _unknown(state, op)
        state.kinds.append(kind)
        _derive(state, op)
        if example is None and op.draws:  # fewer channels would draw other numbers
            for made in filter(None, op.outputs):
                state.freeze(*state.terms(made), reason=state.why("drawn at random by"))
    for ref, name in zip(tape.outputs, tape.output_names, strict=True):
        for term in state.terms(ref):
            freeze(term, Reason(Freeze.OUTPUT, name))
    _freeze_squares(state)
    _freeze_unread(state, [] if example is None else example.reads)
    return state


def _unknown(state: Inference, op: Op) -> Kind:
    """No rule, or a rule that gave up: nothing that this operator touches may change its size."""
    state.unknown[op.name] = state.unknown.get(op.name, 0) + 1
    reason = Reason(Freeze.UNKNOWN, state.where)
    for ref in op.tensors:
        state.freeze(*state.terms(ref), reason=reason)
    for out in op.outputs:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), reason))
    return Kind.OTHER


def _derive(state: Inference, op: Op) -> None:
    """Results of parameters alone are themselves like parameters."""
    refs = op.tensors
    if not refs or any(state.is_activation(ref) for ref in refs):
        return
    origins = [state.origins[ref] for ref in refs]
    names = tuple(
        dict.fromkeys(name for origin in origins for name in origin.names)
    )  # in the same order in every run
    pure = len(refs) == 1 and origins[0].pure and state.kinds[-1] is Kind.VIEW
    for out in op.outputs:
        if out is not None and out not in state.origins:
            state.origins[out] = Origin(names, pure)


def _freeze_squares(state: Inference) -> None:
    """A variable twice in one product (the flattened outer product of a thing with itself) has no
    single owner.
    """
    for terms in (*state.axes.values(), *state.parameters.values()):
        for term in terms:
            for var in _squared(term):
                var.frozen = var.frozen or Reason(Freeze.TWICE)


def _freeze_unread(state: Inference, elsewhere: list[Read]) -> None:
    """Channels that nothing sums over, in this run or elsewhere: what they are for did not happen.

    Other inputs may read them: longer sequences the rest of a table of positions, training a head.
    """
    read = {var for read in (*state.reads, *elsewhere) for var in leaves(read.term)}
    for terms in state.parameters.values():
        for term in terms:
            for var in leaves(term):
                if var not in read:
                    var.frozen = var.frozen or Reason(Freeze.UNREAD)


def _squared(term: Term) -> set[Var]:
    term = resolve(term)
    if isinstance(term, Var):
        return set()
    if not isinstance(term, Product):
        return set().union(*(_squared(part) for part in term.parts))
    seen: set[Var] = set()
    twice: set[Var] = set()
    for factor in term.factors:
        here = set(leaves(factor))
        twice |= seen & here
        seen |= here
        twice |= _squared(factor)
    return twice
