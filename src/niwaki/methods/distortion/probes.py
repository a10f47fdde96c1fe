"""What the network's answer loses when one group alone is cut: it runs up to the group's first
reader once, and from there on once a cut.

Answers are compared by their squared difference as a share of how they vary, class scores too: a
network that is sure of its classes hardly changes its chances when one group goes, though the
scores move, and it is their movements that add up when many groups go. (ResNet-56, half of the
multiply-adds: 97.6 % of 1,000 held-out training images, and 95.0 % by the Kullback-Leibler
divergence of the chances.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Folded, Graph
from niwaki.graph.terms import leaves
from niwaki.methods.base.cut import Cut
from niwaki.running import (
    Inputs,
    Playback,
    Tape,
    plainly,
    restated,
    tensors_in,
)


class Probes:
    """The original on some inputs, with what it answers."""

    def __init__(self, graph: Graph, inputs: Sequence[Inputs]) -> None:
        self._graph = graph
        tapes: dict[Any, Tape] = {}
        self._runs: list[tuple[Tape, Inputs, list[Tensor]]] = []
        for batch in inputs:
            shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(batch))
            if shapes not in tapes:
                tapes[shapes] = restated(graph.model, graph.inference.tape, batch)
            whole = Playback(tapes[shapes], graph.state, batch)
            whole.until(len(tapes[shapes].ops), plainly)
            self._runs.append((tapes[shapes], batch, whole.outputs))
        self._first = {
            name: min(read.position for read in graph.inference.reads if var in leaves(read.term))
            for name, var in graph.variables.items()
            if any(var in leaves(read.term) for read in graph.inference.reads)
        }

    def alone(self, cuts: Sequence[Cut]) -> list[dict[str, float]]:
        """For each cut, group → what the answer loses when that group alone is cut as there."""
        tries: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for number, cut in enumerate(cuts):
            for name in cut.plan.kept.keys() & self._first.keys():
                tries[self._first[name]].append((number, name))
        sums: list[dict[str, Distance]] = [defaultdict(Distance) for _ in cuts]
        for tape, batch, wanted in self._runs:
            original = Playback(tape, self._graph.state, batch)
            for position in sorted(tries):
                original.until(position, plainly)
                for number, name in tries[position]:
                    cut, run = cuts[number], original.fork()
                    masked = of_one(self._graph, name, cut.plan[name], cut.mixings)
                    run.until(len(tape.ops), masked.run)
                    sums[number][name].add(wanted, run.outputs)
        return [{name: float(total) for name, total in of_cut.items()} for of_cut in sums]

    def together(self, cut: Cut) -> float:
        """What the answer loses when all of a cut goes."""
        total = Distance()
        for tape, batch, wanted in self._runs:
            run = Playback(tape, self._graph.state, batch)
            run.until(len(tape.ops), Folded(self._graph, cut.plan, cut.mixings).run)
            total.add(wanted, run.outputs)
        return float(total)


class Distance:
    """Of answers, over batches."""

    def __init__(self) -> None:
        self._off: dict[int, float] = defaultdict(float)
        self._signal: dict[int, float] = defaultdict(float)

    def add(self, wanted: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Take up one batch."""
        for place, (one, other) in enumerate(zip(wanted, answers, strict=True)):
            if not one.numel():
                continue
            off, signal = (_values if one.is_floating_point() else _entries)(one, other)
            self._off[place] += off
            self._signal[place] += signal

    def __float__(self) -> float:
        shares = (off / max(self._signal[place], 1e-300) for place, off in self._off.items())
        total = sum(shares, 0.0)
        return total if total == total else float("inf")


def _values(wanted: Tensor, values: Tensor) -> tuple[float, float]:
    good = torch.isfinite(wanted)
    off = (values.double() - wanted.double())[good].square().sum()
    spread = (wanted - wanted.mean(0)).double()[good].square().nan_to_num(0, 0, 0).sum()
    return float(off), float(spread) or float(wanted.double()[good].square().sum())


def _entries(wanted: Tensor, values: Tensor) -> tuple[float, float]:
    """Of class numbers and whatever else is no measure: how many are others, and of how many."""
    if wanted.is_complex():
        return _values(torch.view_as_real(wanted), torch.view_as_real(values))
    other = (wanted != values).sum() if wanted.shape == values.shape else wanted.numel()
    return float(other), float(wanted.numel())


def of_one(graph: Graph, name: str, kept: Kept, mixings: Mapping[str, Mixing]) -> Folded:
    own = {name: mixings[name]} if name in mixings else {}
    return Folded(graph, Plan({name: kept}), own)
