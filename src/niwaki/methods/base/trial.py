"""Mixings on trial: what they are worth at readers and at the outputs, beside plain pruning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from niwaki.core.errors import TraceError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Folded, Graph
from niwaki.graph.offsets import reads_of, weight_of
from niwaki.running import (
    Inputs,
    Op,
    Playback,
    Tape,
    plainly,
    play,
    restated,
    tensors_in,
)
from niwaki.running.hollow import HollowRun
from niwaki.running.probes import is_heavy
from niwaki.running.replay import Step

WEAKER = (0.5, 0.25)
DEPTH = 3  # halvings
SLACK = 1e-6  # of an error: no more than rounding


@dataclass
class Sums:
    """Over all calls of one reader: of squares of the plain error, of its product with the move, of
    the move's squares, and of the signal's squares.
    """

    plain: float = 0.0
    across: float = 0.0
    moved: float = 0.0
    signal: float = 0.0

    def add(self, wanted: Any, mixed: Any, plain: Any) -> None:
        """Take up what one call put out on one batch."""
        wanted, mixed, plain = (
            next(tensors_in(value)).double() for value in (wanted, mixed, plain)
        )
        off, moved = plain - wanted, mixed - plain
        self.plain += float(off.square().sum())
        self.across += float((off * moved).sum())
        self.moved += float(moved.square().sum())
        self.signal += float((wanted - wanted.mean(0)).square().sum())

    def at(self, weight: float) -> float:
        """e(t)."""
        error = self.plain + 2 * weight * self.across + weight**2 * self.moved
        return error / max(self.signal, 1e-300)


@dataclass
class Parabola:
    """e(t) of one group, over its readers by the weight that reads."""

    readers: dict[str | None, Sums] = field(default_factory=dict)

    def __call__(self, weight: float) -> float:
        return sum(sums.at(weight) for sums in self.readers.values())

    def best(self, margin: float) -> float:
        """The largest weight that does not lose; 0 where nothing can be compared."""
        allowed = self(0.0) * (1 + margin + SLACK) + 1e-12
        return next((weight for weight in (1.0, *WEAKER) if self(weight) <= allowed), 0.0)


@dataclass
class Trial:
    """A plan's mixings on trial.

    Attributes:
        margin: by which share an error may be larger and still count as chance.
        errors: group → e(t).
    """

    graph: Graph
    plan: Plan
    mixings: Mapping[str, Mixing]
    held: Sequence[Inputs]
    margin: float = 0.0
    errors: dict[str, Parabola] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tapes: dict[Any, Tape] = {}
        self._runs: list[tuple[Tape, Inputs]] = []
        for inputs in self.held:
            shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(inputs))
            if shapes not in tapes:
                tapes[shapes] = self._tape(inputs, shapes)
            self._runs.append((tapes[shapes], inputs))
        self._readers: dict[int, dict[str, str | None]] = {}  # position → group → weight
        for name in self.mixings:
            for read in reads_of(self.graph, name):
                here = self._readers.setdefault(read.position, {})
                here[name] = weight_of(self.graph, read)
        self._plain = Folded(self.graph, self.plan, {})
        self._alone = Folded(self.graph, self.plan, {}, like=self._plain)
        self._weaker: dict[tuple[str, float], Mixing] = {}
        self._wanted: list[list[Tensor]] = []
        self._known: dict[tuple[tuple[str, float], ...], float] = {}

    def _tape(self, inputs: Inputs, shapes: tuple[tuple[int, ...], ...]) -> Tape:
        """The recorded operators, with the sizes that they are given on such inputs."""
        tape = self.graph.inference.tape
        recorded = tuple(tape.shapes[ref.index] for ref in tape.inputs)
        if shapes == recorded and not tape.by_value:
            return tape
        if is_heavy(tape):
            with suppress(TraceError):
                return restated(self.graph.model, tape, inputs, HollowRun())
        return restated(self.graph.model, tape, inputs)

    def at_readers(self) -> dict[str, float]:
        """Group → weight of its repair, by what its readers put out; each is judged behind those
        before it as they were judged, so that one that harms does not speak against the next.
        """
        self.errors = {name: Parabola() for name in self.mixings}
        mixed = Folded(self.graph, self.plan, self.mixings, like=self._plain)
        pairs: list[tuple[Tape, Playback, Playback]] = []
        for tape, inputs in self._runs:
            original, repaired = (Playback(tape, self.graph.state, inputs) for _ in range(2))
            pairs.append((tape, original, repaired))
        last = {name: at for at, here in sorted(self._readers.items()) for name in here}
        for position in sorted(self._readers):
            results = []
            for tape, original, repaired in pairs:
                original.until(position, plainly)
                repaired.until(position, mixed.run)
                results.append(self._compare(position, tape.ops[position], original, repaired))
            here = self._readers[position]
            for name in (name for name in here if last[name] == position):
                mixed.mixings[name] = self._weakened(name, self.errors[name].best(self.margin))
            if len(here) == 1 and all(mixed.mixings[name] is self.mixings[name] for name in here):
                for (tape, _, repaired), result in zip(pairs, results, strict=True):
                    if _is_new(tape.ops[position]):
                        repaired.until(position + 1, _known(result))
        for tape, original, _ in pairs:
            original.until(len(tape.ops), plainly)
            self._wanted.append(original.outputs)
        weights = {name: error.best(self.margin) for name, error in self.errors.items()}
        if all(weights[name] == 1 or len(self._of(name)) == 1 for name in weights):
            # every reader was run as it was judged in the end
            for tape, _, repaired in pairs:
                repaired.until(len(tape.ops), mixed.run)
            outputs = [repaired.outputs for _, _, repaired in pairs]
            self._known[_key(weights)] = self._apart(outputs)
        return weights

    def _of(self, name: str) -> list[int]:
        """Where a group is read."""
        return [position for position, here in self._readers.items() if name in here]

    def _compare(self, position: int, op: Op, original: Playback, repaired: Playback) -> Any:
        """One reader, with the mixing of each group that it reads, the others plain; what it puts
        out with the last one's.
        """
        args, kwargs = original.arguments()
        wanted = op.func(*_copies(op, args), **kwargs)
        if _is_new(op):
            original.until(position + 1, _known(wanted))
        args, kwargs = repaired.arguments()
        plain, mixed = self._plain.run(position, op, _copies(op, args), kwargs), None
        for name, weight in self._readers[position].items():
            self._alone.mixings = {name: self.mixings[name]}
            mixed = self._alone.run(position, op, _copies(op, args), kwargs)
            self.errors[name].readers.setdefault(weight, Sums()).add(wanted, mixed, plain)
        return mixed

    def _weakened(self, name: str, weight: float) -> Mixing:
        if weight == 1:
            return self.mixings[name]
        if (name, weight) not in self._weaker:
            units = self.plan.kept[name]
            plain = Mixing.selecting(self.plan[name].width, units) if not weight else None
            weaker = plain or weakened(self.mixings[name], units, weight)
            self._weaker[name, weight] = weaker
        return self._weaker[name, weight]

    def at_outputs(self, weights: dict[str, float]) -> dict[str, float]:
        """The same, with those weakened or dropped that make the outputs worse than plain."""
        if self._error(weights) <= self._error({}) * (1 + self.margin + SLACK):
            return weights
        names = [name for name, weight in weights.items() if weight]
        return self._halved({}, {name: weights[name] for name in names}, DEPTH)

    def _halved(
        self, base: dict[str, float], more: dict[str, float], depth: int
    ) -> dict[str, float]:
        """What of some repairs can be added to others without making the outputs worse."""
        allowed = self._error(base) * (1 + self.margin + SLACK)
        if not more or self._error({**base, **more}) <= allowed:
            return {**base, **more}
        if len(more) == 1 or not depth:
            for factor in WEAKER:
                weaker = {name: factor * weight for name, weight in more.items()}
                if self._error({**base, **weaker}) <= allowed:
                    return {**base, **weaker}
            return base
        names = list(more)
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            base = self._halved(base, {name: more[name] for name in half}, depth - 1)
        return base

    def _error(self, weights: Mapping[str, float]) -> float:
        """How far the outputs are from the original's, as a share of how these vary."""
        key = _key(weights)
        if key not in self._known:
            mixings = {name: self._weakened(name, weight) for name, weight in key}
            masked = Folded(self.graph, self.plan, mixings, like=self._plain)
            outputs = (
                play(tape, self.graph.state, inputs, masked.run) for tape, inputs in self._runs
            )
            self._known[key] = self._apart(outputs)
        return self._known[key]

    def _apart(self, outputs: Iterable[list[Tensor]]) -> float:
        """The sum over all runs of how far outputs are from the original's."""
        pairs = zip(self._wanted, outputs, strict=True)
        total = sum(sum(map(_share, wanted, actual)) for wanted, actual in pairs)
        return total if total == total else float("inf")


def _key(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, weight) for name, weight in weights.items() if weight))


def _is_new(op: Op) -> bool:
    """Whether a result is memory of its own, and no operand is written into."""
    schema = op.func._schema
    return not any(item.alias_info for item in (*schema.arguments, *schema.returns))


def _known(result: Any) -> Step:
    """A step whose result is there already."""
    return lambda position, op, args, kwargs: result


def weakened(mixing: Mixing, units: Sequence[int], weight: float) -> Mixing:
    """A mixing between plain selection (weight 0) and itself (weight 1)."""
    if weight == 1:
        return mixing
    matrix = weight * mixing.matrix
    matrix[list(units), range(len(units))] += 1 - weight  # of plain selection
    shift = None if mixing.shift is None else weight * mixing.shift
    readers = {name: weakened(one, units, weight) for name, one in mixing.readers.items()}
    return Mixing(matrix, shift, readers)


def _share(wanted: Tensor, outputs: Tensor) -> float:
    if not wanted.is_floating_point() or not wanted.numel():
        return 0.0
    good = torch.isfinite(wanted)  # a mask of -inf among the outputs
    off = (outputs.double() - wanted.double())[good].square().sum()
    spread = (wanted - wanted.mean(0)).double()[good].square().nan_to_num(0, 0, 0).sum()
    signal = float(spread) or float(wanted.double()[good].square().sum())
    return float(off) / max(signal, 1e-300)


def _copies(op: Op, args: Any) -> Any:
    """Operands of its own for an operator that is run more than once, where it may write into
    them.
    """
    if _is_new(op):
        return args
    return tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)
