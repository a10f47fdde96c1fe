"""Means and covariances of channels without any data: what the weights and the stored statistics
say of them.

The operators of the tape are walked once with a Gaussian in the place of every value. What is known
of the inputs is taken from the example inputs where they say enough, else it is a prior: zero mean,
unit variance. Neighbouring places are alike, cov = w·[same place] + (1 - w)·exp(-distance/reach).
Products carry the covariance through their weights; a normalisation by stored statistics states
mean and scale, and leaves the correlations. Branches that are added or multiplied are taken to be
independent. What an operator without a rule puts out is taken to be white, as if it were an input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.graph.operators import Facts
from niwaki.methods.data_free.inputs import laid_inputs
from niwaki.methods.data_free.joins import JOINS
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.layers import LAYERS
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.data_free.state import Result, Walk
from niwaki.methods.data_free.views import VIEWS, keep
from niwaki.running import Op, Ref, preserved_rng
from niwaki.running.replay import written
from niwaki.running.tape import refs_in, with_leaves

MOMENTS = Facts(
    "moments",
    "what it makes of channels of known mean and covariance; the repair without data asks",
    {**VIEWS, **JOINS, **LAYERS},
)
Take = Callable[[int, Laid | None], None]


def walk(graph: Graph, prior: Prior, wanted: Mapping[int, int], take: Take) -> None:
    """Go through the operators, and give away what is known of one operand of some of them.

    Args:
        wanted: operator → the argument that is asked for.
        take: called with (operator, what is known of that argument or None), in the order of the
            tape, so that no more than what lies ahead is held.
    """
    going = _Going(graph, prior)
    with torch.no_grad(), preserved_rng():
        for position, op in enumerate(graph.inference.tape.ops):
            if position in wanted:
                take(position, going.operand(op, wanted[position]))
            going.advance(position, op)


@dataclass
class _Going:
    """The state of a walk, and how it goes on by one operator."""

    graph: Graph
    prior: Prior
    walk: Walk = field(init=False)

    def __post_init__(self) -> None:
        tape = self.graph.inference.tape
        norms = {norm.position: norm for norm in self.graph.inference.norms}
        self.walk = Walk(self.graph, self.prior, norms)
        # copies of what the operators that are computed on them write into: a buffer that counts,
        # a running mean
        changed = written(tape)
        tensors = {ref: self.graph.state[name] for ref, name in tape.parameters.items()}
        for ref, tensor in {**tensors, **tape.constants}.items():
            self.walk.tensors[ref] = tensor.detach().to("cpu", copy=ref in changed)
        self.walk.known.update(laid_inputs(self.graph))
        self._last_use = tape.last_uses
        self._wholes: dict[Ref, Ref] = {}  # view → what it is a view of

    def operand(self, op: Op, slot: int) -> Laid | None:
        """What is known of one argument, by its place."""
        ref = op.args[slot]
        return self.walk.known.get(ref) if isinstance(ref, Ref) else None

    def advance(self, position: int, op: Op) -> None:
        self.walk.position = position
        self._note_views(op)
        if all(ref in self.walk.tensors for ref in op.tensors):
            self._compute(op)
        else:
            self._carry(op)
        for ref in op.values:
            if self._last_use[ref] == position:
                self.walk.known.pop(ref, None)

    def _carry(self, op: Op) -> None:
        rule = MOMENTS.get(op) or keep
        try:
            result = rule(self.walk, op)
        except (RuntimeError, LookupError, ValueError):  # forms of operators that no rule expects
            result = None
        for place, ref in enumerate(op.outputs):
            if ref is None:
                continue
            laid = _one_of(result, place)
            self.walk.known.pop(ref, None)
            if laid is not None and laid.of.finite and laid.fits(self.walk.shape(ref)):
                self.walk.known[ref] = laid.placed(self.walk.shape(ref))
        self._forget_written(op)

    def _forget_written(self, op: Op) -> None:
        """What else lies in memory that an operator writes into holds other numbers from here on:
        zeros of which a slice is filled in, what a slice of was doubled.
        """
        for place, schema in enumerate(op.func._schema.arguments):
            if schema.alias_info is None or not schema.alias_info.is_write:
                continue
            for ref in refs_in(op.arg(place, schema.name)):
                whole = self._wholes.get(ref, ref)
                views = [view for view, of in self._wholes.items() if of == whole]
                for other in (whole, *views):
                    self.walk.tensors.pop(other, None)
                    if other not in op.outputs:
                        self.walk.known.pop(other, None)

    def _note_views(self, op: Op) -> None:
        """Which values are views of which."""
        for place, schema in enumerate(op.func._schema.arguments):
            if schema.alias_info is None:
                continue
            for ref in refs_in(op.arg(place, schema.name)):
                whole = self._wholes.get(ref, ref)
                for view in op.outputs:
                    if view is not None and view != whole:
                        self._wholes.setdefault(view, whole)

    def _compute(self, op: Op) -> None:
        """An operator on parameters and constants alone."""
        tensors = self.walk.tensors

        def value(leaf: Any) -> Any:
            return tensors[leaf] if isinstance(leaf, Ref) else leaf

        args, kwargs = with_leaves((op.args, op.kwargs), value)
        if str(kwargs.get("device", "cpu")) != "cpu":
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = op.func(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        for ref, tensor in zip(op.outputs, results, strict=True):
            if ref is not None and isinstance(tensor, Tensor):
                tensors[ref] = tensor


def _one_of(result: Result, place: int) -> Laid | None:
    if isinstance(result, list):
        return result[place] if place < len(result) else None
    return result if place == 0 else None
