"""Two networks side by side, operator by operator: the pruned one runs, and at each of its
operators the masked original is played one operator further and held against it.

An output can hide an error: a layer behind a scale near zero, a mask that is filled in last. Values
inside cannot. What rounding may have come to is kept for each value: it starts with that of what an
operator reads, and grows where large numbers cancel (noise of an operator's result, as a share of
it, is at least 64 · ε · largest operand / largest result, and at least that of its operands).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from niwaki.core.errors import TraceError
from niwaki.graph import Graph
from niwaki.graph.offsets import offsets, weight_of
from niwaki.graph.terms import Term, keep_mask
from niwaki.methods.base.cut import Cut
from niwaki.proof.counted import Counted
from niwaki.proof.reference import masked_step
from niwaki.running import Op, Playback, Ref
from niwaki.running.compare import ROUNDINGS, agrees, size_of, tolerance
from niwaki.running.watching import OperatorMode


class Lockstep(OperatorMode):
    """A mode under which the pruned model is run.

    Attributes:
        compared: operators whose results were held against each other.
        verdict: what was seen first: a value that differs, or another operator than expected.
        differs: whether it is a value that differs by more than rounding explains.
        layer, position: where.
    """

    def __init__(self, cut: Cut, reference: Playback, numbers: tuple[Counted, ...] = ()) -> None:
        super().__init__()
        self._graph, self._reference = cut.graph, reference
        self._step, self._ops = masked_step(cut, numbers), cut.graph.inference.tape.ops
        self._by_value = cut.graph.inference.tape.by_value
        self._kept = _Kept(cut.graph, cut)
        self._absent, self._parts = _absent(cut), bool(cut.plan.branches)
        self._tolerance = tolerance(cut.graph.inference.tape, inside=True)
        self._sizes: dict[Ref, float] = {}
        self._noise: dict[Ref, float] = {}
        self._raw = set[Ref]()  # memory that is filled in bit by bit
        self._moved, self._elsewhere = set[Ref](), _moved_constants(cut)
        self.compared, self.differs = 0, False
        self.verdict: str | None = None
        self.layer: str | None = None
        self.position: int | None = None

    @property
    def reached(self) -> int:
        """The operator that the masked original comes to next."""
        return self._reference.position

    @property
    def length(self) -> int:
        """Operators on the tape."""
        return len(self._ops)

    def outputs(self) -> list[Tensor]:
        """The masked original's outputs; what the pruned model did not call is played now."""
        self._reference.until(len(self._ops), self._step)
        return self._reference.outputs

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        first = next(
            (
                v
                for v in (result if isinstance(result, (tuple, list)) else (result,))
                if isinstance(v, Tensor)
            ),
            None,
        )
        if self.verdict is None and func.namespace != "prim" and first is not None:
            self._advance(func, first)
        return result

    def _advance(self, func: OpOverload, actual: Tensor) -> None:
        while self._reference.position in self._absent:
            self._reference.until(self._reference.position + 1, self._step)
        position = self._reference.position
        op = self._ops[position] if position < len(self._ops) else None
        if op is None or op.func is not func:
            if self._absent and func is torch.ops.aten.zeros_like.default:
                return  # what stands in for a branch
            where = (op and op.layer) or "the model"
            self._note(op, position, f"it takes another path at {func.overloadpacket} in {where}")
            return
        wanted: list[Tensor] = []

        def step(place: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = self._step(place, op, args, kwargs)
            wanted.append(result[0] if isinstance(result, (tuple, list)) else result)
            return result

        try:
            self._reference.until(position + 1, step)
        except (RuntimeError, IndexError, ValueError) as error:
            if not self._by_value:
                raise
            raise TraceError(
                f"masked, the original takes another path: {error}", op.layer, other_path=True
            ) from error
        # only the first result: others are statistics and indices that nothing compares
        self._compare(op, position, wanted[0], actual)

    def _compare(self, op: Op, position: int, wanted: Tensor, actual: Tensor) -> None:
        out = op.outputs[0]
        if self._fills_memory(op):
            return
        if wanted.layout != torch.strided or actual.layout != torch.strided:
            return
        if out is None or not wanted.is_floating_point() or self._lacks_constant(op, position):
            return
        if _is_view(op):
            self._carry(op, out, self._sizes.get(op.tensors[0], 0.0))
            return
        wanted = self._kept.of(out, wanted)
        self._carry(op, out, size_of(wanted), torch.finfo(wanted.dtype).eps)
        noise = self._noise[out] * self._sizes[out]
        self.compared += 1
        if not agrees(wanted, actual, noise, self._tolerance, self._sizes[out]):
            # what stands in for a branch calls operators of its own: only outputs tell there
            self.differs = not self._parts
            where = f"{op.layer or 'the model'} ({op.name})"
            self._note(op, position, f"the first layer that differs is {where}")

    def _fills_memory(self, op: Op) -> bool:
        """Whether a result is, or is part of, memory that code filled in bit by bit.

        What was not written yet is whatever lay there; what reads the whole of it is compared.
        """
        alias = op.func._schema.returns[0].alias_info if op.func._schema.returns else None
        if "empty" not in op.name and not (alias and op.tensors and op.tensors[0] in self._raw):
            return False
        for ref in (ref for ref in op.outputs if ref is not None):
            self._raw.add(ref)
            self._carry(op, ref, max((self._sizes.get(r, 0.0) for r in op.tensors), default=0.0))
        return True

    def _lacks_constant(self, op: Op, position: int) -> bool:
        """Whether a result lacks a constant of a mixing, which the normalisation behind adds."""
        behind = "batch_norm" in op.name
        if position in self._elsewhere or (not behind and self._moved & set(op.tensors)):
            self._moved.update(ref for ref in op.outputs if ref is not None)
            return True
        return False

    def _carry(self, op: Op, out: Ref, size: float, precision: float = 0.0) -> None:
        """How large a result is, and which share of it may be rounding."""
        operands = [ref for ref in op.tensors if ref in self._sizes]
        largest = max((self._sizes[ref] for ref in operands), default=size)
        fresh = ROUNDINGS * precision * largest / size if size else 0.0
        self._noise[out] = min(1.0, max([fresh, *(self._noise[ref] for ref in operands)]))
        self._sizes[out] = size

    def _note(self, op: Op | None, position: int, verdict: str) -> None:
        self.verdict, self.position = verdict, position
        self.layer = op.layer if op else None


def _is_view(op: Op) -> bool:
    """Whether a result is a part of an operand's memory, which was compared when it was written."""
    alias = op.func._schema.returns[0].alias_info
    return alias is not None and not alias.is_write


def _absent(cut: Cut) -> set[int]:
    """Operators of layers that something else stands in for."""
    gone = [layer for layers in cut.plan.branches.values() for layer in layers]
    return {
        position
        for position, op in enumerate(cut.graph.inference.tape.ops)
        if any(op.layer == layer or op.layer.startswith(f"{layer}.") for layer in gone)
    }


def _moved_constants(cut: Cut) -> set[int]:
    """Operators of which a mixing's constant goes into the stored mean of what comes behind."""
    weights = {
        place.weight
        for name, mixing in cut.mixings.items()
        if mixing.shifted
        for place in offsets(cut.graph, name)[0]
        if place.kind == "mean"
    }
    reads = cut.graph.inference.reads
    return {read.position for read in reads if weight_of(cut.graph, read) in weights}


class _Kept:
    """What a cut leaves of the values of a run."""

    def __init__(self, graph: Graph, cut: Cut) -> None:
        self._axes, self._masks = graph.inference.axes, graph.masks(cut.plan.kept)
        self._indices: dict[Ref, list[tuple[int, Tensor]]] = {}
        self._of_terms: dict[int, Tensor | None] = {}  # by identity: the graph holds the terms

    def of(self, ref: Ref, value: Tensor) -> Tensor:
        """The value without the channels that go."""
        if ref not in self._indices:
            indices = ((axis, self._index(term)) for axis, term in self._terms(ref, value))
            self._indices[ref] = [(axis, index) for axis, index in indices if index is not None]
        for axis, index in self._indices[ref]:
            value = value.index_select(axis, index.to(value.device))
        return value

    def _index(self, term: Term) -> Tensor | None:
        """What stays of an axis, where something goes."""
        if id(term) not in self._of_terms:
            mask = keep_mask(term, self._masks)
            self._of_terms[id(term)] = None if bool(mask.all()) else mask.nonzero().squeeze(1)
        return self._of_terms[id(term)]

    def _terms(self, ref: Ref, value: Tensor) -> list[tuple[int, Any]]:
        terms = self._axes.get(ref, [])
        return [(a, term) for a, term in enumerate(terms) if value.shape[a] == term.size]
