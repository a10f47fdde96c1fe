"""What the network's answer loses when one group alone is cut, to first order: of all groups at
once, from one run and a few gradients.

Let e_g be what the readers of group g put out with it cut, less what they put out without, and J
the derivative of the answer with respect to that. The answer moves by J·e_g, and for a random
direction v of independent entries of variance one

    E (vᵀ·J·e_g)² = |J·e_g|²,

in which vᵀ·J is one gradient for all groups. So it takes a run, in which each reader is run once
more for every cut, and as many gradients as it takes for the mean over samples and directions to
settle; probes (niwaki.methods.distortion.probes) take half a run a group and cut.

Worked example: the answer is y = 3·a, the reader puts out a, and a cut makes a - 0.1 of it. The
gradient of v·y is 3·v, and (3·v·0.1)² is 0.09 in the mean: the square of what y moves by.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from niwaki.graph import Folded, Graph
from niwaki.graph.terms import leaves
from niwaki.methods.base.cut import Cut
from niwaki.methods.distortion.probes import of_one
from niwaki.running import Inputs, Op, Playback, batch_size, restated, tensors_in

MOST = 6  # directions; gradients are what takes long
Key = tuple[int, str]  # cut, group
Errors = dict[Key, Tensor]  # what a reader puts out more
Alone = Mapping[str, Mapping[Key, Folded]]


def slopes(
    graph: Graph, inputs: Sequence[Inputs], cuts: Sequence[Cut], draws: int
) -> list[dict[str, float]]:
    """For each cut, group → what the answer loses when that group alone is cut as there, as a share
    of how the answer varies.

    Args:
        draws: about so many directions, over all samples; `MOST` a sample.

    Raises:
        RuntimeError: no output has a derivative.
    """
    readers = _readers(graph, cuts)
    alone: dict[str, dict[Key, Folded]] = defaultdict(dict)
    for number, cut in enumerate(cuts):
        for name, kept in cut.plan.items():
            alone[name][number, name] = of_one(graph, name, kept, cut.mixings)
    samples = sum(map(batch_size, inputs))
    rounds = min(MOST, max(1, round(draws / max(samples, 1))))
    sums: dict[Key, float] = defaultdict(float)
    for batch in inputs:
        for key, value in _squares(graph, batch, readers, alone, rounds).items():
            sums[key] += value / samples
    return [
        {name: sums.get((number, name), 0.0) for name in cut.plan.kept}
        for number, cut in enumerate(cuts)
    ]


def _readers(graph: Graph, cuts: Sequence[Cut]) -> dict[int, list[str]]:
    """Operator → the groups that it reads."""
    names = {graph.variables[name]: name for cut in cuts for name in cut.plan.kept}
    readers: dict[int, list[str]] = defaultdict(list)
    for read in graph.inference.reads:
        here = readers[read.position]
        here += [names[v] for v in leaves(read.term) if v in names and names[v] not in here]
    return {position: here for position, here in readers.items() if here}


def _squares(
    graph: Graph,
    batch: Inputs,
    readers: Mapping[int, list[str]],
    alone: Alone,
    rounds: int,
) -> dict[Key, float]:
    """(cut, group) → the mean of (vᵀ·J·e)² over directions, summed over the samples."""
    try:
        return _Run(graph, batch, readers, alone).squares(rounds)
    except RuntimeError as error:
        # of autograd: an operator wrote into what a gradient needs, as no training does; torch can
        # keep a copy, but what that imports takes seconds
        if "modified by an inplace operation" not in str(error):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return _Run(graph, batch, readers, alone).squares(rounds)


class _Run:
    """One batch, run with the errors of all cuts beside it."""

    def __init__(
        self,
        graph: Graph,
        batch: Inputs,
        readers: Mapping[int, list[str]],
        alone: Alone,
    ) -> None:
        self._readers, self._alone = readers, alone
        self._statistics = {r.position for r in graph.inference.reads if r.statistics}
        self._size = batch_size(batch)
        self._anchor = torch.zeros((), requires_grad=True)
        self._moved: dict[Key, Tensor] = {}
        tape = restated(graph.model, graph.inference.tape, batch)
        state = {name: tensor.detach() for name, tensor in graph.state.items()}
        playback = Playback(tape, state, batch)
        playback.until(len(tape.ops), self._step)
        self._outputs = [
            output
            for output in playback.outputs
            if output.requires_grad and output.numel() and bool(torch.isfinite(output).all())
        ]
        if not self._outputs:
            raise RuntimeError("none of its outputs has a derivative")
        self._deviations = [_deviation(output) for output in self._outputs]

    def squares(self, rounds: int) -> dict[Key, float]:
        """(cut, group) → the mean of (vᵀ·J·e)² over directions, summed over the samples."""
        generator = torch.Generator().manual_seed(0)
        sums: dict[Key, float] = defaultdict(float)
        for number in range(rounds):
            self._moved.clear()
            ways = [
                torch.randn(output.shape, generator=generator, device="cpu").to(output) / deviation
                for output, deviation in zip(self._outputs, self._deviations, strict=True)
            ]
            torch.autograd.grad(self._outputs, self._anchor, ways, retain_graph=number + 1 < rounds)
            for key, moved in self._moved.items():
                sums[key] += float(moved.square().sum()) / rounds
        return sums

    def _step(self, position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = {
            (number, name): masked.run(position, op, *self._own(op, args, kwargs))
            for name in self._readers.get(position, ())
            for (number, name), masked in self._alone[name].items()
        }
        with torch.enable_grad():
            result = op.func(*args, **kwargs)
            first = next(tensors_in(result), None)
            if not found or first is None or not first.is_floating_point():
                return result
            return self._watched(result, first, self._errors(position, first.detach(), found))

    def _own(
        self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Operands for another run of an operator, of its own where it writes into them."""
        operands: tuple[tuple[Any, ...], dict[str, Any]] = (args, kwargs)
        return _copies(operands) if op.func._schema.is_mutable else operands

    def _errors(self, position: int, wanted: Tensor, found: Mapping[Key, Any]) -> Errors:
        errors = {}
        for key, result in found.items():
            there = next(tensors_in(result))
            error = there - wanted
            if position in self._statistics:  # what is zero there is missed by later readers
                error = error.masked_fill(there == 0, 0)
            errors[key] = error.nan_to_num(0, 0, 0)
        return errors

    def _watched(self, result: Any, first: Tensor, errors: Errors) -> Any:
        """The result, with a look at its gradient."""
        watched = first if first.requires_grad else first + self._anchor.to(first)
        watched.register_hook(partial(self._add, errors))
        if isinstance(result, Tensor):
            return watched
        return type(result)((watched, *result[1:]))

    def _add(self, errors: Errors, gradient: Tensor) -> None:
        for key, error in errors.items():
            by_sample = error.ndim > 0 and len(error) % self._size == 0
            rows = self._size if by_sample else 1
            moved = torch.linalg.vecdot(
                gradient.reshape(rows, -1), error.reshape(rows, -1)
            ).double()
            known = self._moved.get(key)
            if known is not None and len(known) != len(moved):
                known, moved = known.sum()[None], moved.sum()[None]
            self._moved[key] = moved if known is None else known + moved


def _deviation(output: Tensor) -> float:
    """The root of how far samples of an output are from their mean, in all its entries together; of
    its size where there is one sample, or they are alike.
    """
    values = output.detach().double()
    rows = len(values) if values.ndim else 1
    spread = float((values - values.mean(0)).square().sum()) if values.ndim else 0.0
    return math.sqrt(max((spread or float(values.square().sum())) / rows, 1e-300))


def _copies(values: Any) -> Any:
    """Operands of its own for an operator that is run more than once: it may write into them."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, values)
