"""Pairs of layers of which one reads what the other writes, and where on the tape both can be
watched at work.

A layer is a product with a weight of its own (a matrix product, a convolution). Its parent is
whoever wrote what it reads: one layer, all that write into a residual stream, or the model's input.
A parent is watched where the child reads it, after the non-linearity, the pooling and the
normalisation in between; a child where its own output is read next, or as it is where nothing
reads it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.errors import SettingError, TraceError, UnknownNameError
from niwaki.graph.channel_graph import Graph
from niwaki.graph.inference import Read
from niwaki.graph.reasons import PLACES, Freeze
from niwaki.graph.terms import Term, Var, leaves, positions, resolve

INPUT = "input"


@dataclass(frozen=True, eq=False)
class Site:
    """An operand or result of an operator, and how its values become one number a unit and sample.

    Attributes:
        position, slot: the operator on the tape, and which of its arguments; None for its result.
        axis: of the channels.
        units: int64 (axis size,), the unit of every index; -1 where it belongs to something else.
        count: how many units.
        picture: the values are an image: its colours are averaged, and every pixel is a unit.
    """

    position: int
    slot: int | None
    axis: int
    units: Tensor
    count: int
    picture: bool = False

    def watch(self, values: Tensor, samples: int) -> Tensor:
        """Means over all axes but those of samples and units: float32 (samples, count) on the CPU.

        Raises:
            TraceError: the samples cannot be told apart on the values' first axis.
        """
        if self.picture:
            return values.float().mean(self.axis).reshape(samples, -1).cpu()
        values = values.movedim(self.axis, -1)
        if not samples or values.shape[0] % samples:
            raise TraceError(
                f"operator {self.position} sees {tuple(values.shape)} for {samples} samples, "
                "which cannot be told apart there"
            )
        means = values.float().reshape(samples, -1, values.shape[-1]).mean(1).cpu()
        used = (self.units >= 0).nonzero().squeeze(1)
        sums = means.new_zeros(samples, self.count).index_add_(1, self.units[used], means[:, used])
        return sums / torch.bincount(self.units[used], minlength=self.count)


@dataclass(frozen=True, eq=False)
class LayerPair:
    """A child layer and what it reads.

    Attributes:
        parent: the name of the group that it reads (groups, joined by " + "), or "input"; what it
            reads where that is neither.
        child: the child layer.
        weight: the child's weight.
        out_axis, in_axis: its axes of what the child writes and reads.
        rows, columns: int64, the child's and the parent's unit at every index of these axes; None
            where the weight has no column for every unit of the parent (an image's pixels; a
            grouped convolution).
        writes, reads: where the child and the parent are watched.
        child_units, parent_units: group → int64 (width,), which of the watched units each of its
            units is.
    """

    parent: str
    child: str
    weight: str
    out_axis: int
    in_axis: int
    rows: Tensor
    columns: Tensor | None
    writes: Site
    reads: Site
    child_units: Mapping[str, Tensor]
    parent_units: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """Parent and child in one word."""
        return f"{self.parent} -> {self.child}"


def layer_pairs(graph: Graph) -> tuple[LayerPair, ...]:
    """All pairs, in the order of the children on the tape; a layer that is called several times
    counts at its first call.
    """
    pairs: dict[tuple[str, int], LayerPair] = {}
    for read in sorted(graph.inference.reads, key=lambda read: read.position):
        if read.statistics or read.weight is None or not graph.inference.origins[read.weight].pure:
            continue
        (weight,) = graph.inference.origins[read.weight].names
        axes = _axes(graph, read, weight)
        if axes is not None and (weight, axes[0]) not in pairs:
            pairs[weight, axes[0]] = _pair(graph, read, weight, *axes)
    return tuple(pairs.values())


def find_pair(graph: Graph, parent: str, child: str) -> LayerPair:
    """The pair of two layers, by their names.

    Raises:
        UnknownNameError: no such child.
        SettingError: the child does not read the parent.
    """
    pairs = layer_pairs(graph)
    if child not in {pair.child for pair in pairs}:
        raise UnknownNameError("layer", child, (pair.child for pair in pairs))
    for pair in pairs:
        if pair.child == child and parent in (pair.parent, *_writers(graph, pair)):
            return pair
    read = " and ".join(sorted({pair.parent for pair in pairs if pair.child == child}))
    raise SettingError(f"{parent!r} and {child!r} share no edge: {child} reads what {read} writes")


def _writers(graph: Graph, pair: LayerPair) -> list[str]:
    return [layer for name in pair.parent_units for layer in graph[name].layers]


def _axes(graph: Graph, read: Read, weight: str) -> tuple[int, int] | None:
    """The axes of a weight that are written and read; None where they cannot be told apart."""
    assert read.weight is not None
    terms = graph.inference.parameters[weight]
    wanted = graph.inference.axes[read.weight][read.weight_axis]
    reading = [axis for axis, term in enumerate(terms[:2]) if term is wanted]
    reading = reading or [
        axis for axis, term in enumerate(terms[:2]) if resolve(term) is resolve(wanted)
    ]
    if len(terms) < 2 or len(reading) != 1:
        return None
    return 1 - reading[0], reading[0]


def _pair(graph: Graph, read: Read, weight: str, out_axis: int, in_axis: int) -> LayerPair:
    state, op = graph.inference, graph.inference.tape.ops[read.position]
    out = state.parameters[weight][out_axis]
    parents = _channels(read.whole)
    groups = {var: name for name, var in graph.variables.items()}
    shape = state.shape(op.args[read.slot])
    picture = (
        len(shape) == 4 and read.axis == 1 and _all_of_input(state.axes[op.args[read.slot]][2:])
    )
    if picture:
        reads = Site(
            read.position,
            read.slot,
            read.axis,
            torch.zeros(0, dtype=torch.int64),
            shape[2] * shape[3],
            picture=True,
        )
        columns = None
    else:
        units, keys = _units(read.whole, parents)
        reads = Site(read.position, read.slot, read.axis, units, len(keys))
        columns = units if graph.state[weight].shape[in_axis] == len(units) else None
    children = _channels(out)
    rows, keys = _units(out, children)
    writes = _written(graph, read.position, out, children, keys)
    named = [groups[var] for var in parents if var in groups]
    return LayerPair(
        " + ".join(named)
        or (
            INPUT
            if picture or _all_of_input([read.whole])
            else f"what {op.layer or 'the model'} reads"
        ),
        op.layer,
        weight,
        out_axis,
        in_axis,
        rows,
        columns,
        writes,
        reads,
        _of_groups(out, children, groups, rows),
        {} if reads.picture else _of_groups(read.whole, parents, groups, reads.units),
    )


def _all_of_input(terms: Sequence[Term]) -> bool:
    """Whether axes are those of the model's input."""
    variables = [var for term in terms for var in leaves(term)]
    return bool(variables) and all(_is_of_input(var) for var in variables)


def _is_of_input(var: Var) -> bool:
    return var.frozen is not None and var.frozen.kind in (Freeze.INPUT, Freeze.SIZE_ONE)


def _channels(term: Term) -> list[Var]:
    """The variables of an axis that stand for channels, not for places in space."""
    return [var for var in dict.fromkeys(leaves(term)) if var.frozen not in PLACES]


Key = tuple[int, ...]


def _keys(term: Term, variables: Sequence[Var]) -> list[Key]:
    """At every index of an axis, which channel of every variable it belongs to (-1: none); the
    index, without variables.
    """
    if not variables:
        return [(index,) for index in range(term.size)]
    return list(zip(*(positions(term, var).tolist() for var in variables), strict=True))


def _units(term: Term, variables: Sequence[Var]) -> tuple[Tensor, list[Key]]:
    """One unit for all indices of an axis that belong to the same channels, numbered as they come;
    and what they are.
    """
    keys = _keys(term, variables)
    known = {
        key: number
        for number, key in enumerate(dict.fromkeys(key for key in keys if max(key) >= 0))
    }
    return torch.tensor([known.get(key, -1) for key in keys], dtype=torch.int64), list(known)


def _of_groups(
    term: Term, variables: Sequence[Var], groups: Mapping[Var, str], units: Tensor
) -> dict[str, Tensor]:
    """Which unit of an axis each unit of the groups on it is; the first, where it is several."""
    units_of = {}
    for var in variables:
        if var in groups:
            places = positions(term, var)
            own = (places >= 0).nonzero().squeeze(1).flip(0)
            units_of[groups[var]] = torch.full((var.size,), -1).index_put_(
                (places[own],), units[own]
            )
    return units_of


def _written(
    graph: Graph, position: int, out: Term, variables: Sequence[Var], keys: Sequence[Key]
) -> Site:
    """Where the units that an operator puts out are read next; its own result, where they are
    not.
    """
    state = graph.inference
    wanted = set(variables)
    for read in sorted(state.reads, key=lambda read: read.position):
        if (
            wanted
            and read.position > position
            and not read.statistics
            and wanted <= set(leaves(read.whole))
        ):
            numbers = {key: number for number, key in enumerate(keys)}
            units = torch.tensor([numbers.get(key, -1) for key in _keys(read.whole, variables)])
            if len(set(units.tolist()) - {-1}) == len(keys):
                return Site(read.position, read.slot, read.axis, units, len(keys))
    result = state.tape.ops[position].result
    axes = [axis for axis, term in enumerate(state.axes[result]) if resolve(term) is resolve(out)]
    axis = axes[0] if axes else len(state.axes[result]) - 1
    numbers = {key: number for number, key in enumerate(keys)}
    units = torch.tensor([numbers.get(key, -1) for key in _keys(out, variables)])
    return Site(position, None, axis, units, len(keys))
