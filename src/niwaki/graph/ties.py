"""Counts that code computes from one another: `x.reshape(b, n, heads, c // heads)` makes head
dimensions of the width of a stream, `x.reshape(b, n, c)` a stream of all heads.

What is made so must be as wide as the code says, so that the two counts go together although their
channels are not the same.

Worked example: a stream of 96 channels, 3 heads of 32 dimensions by `c // heads`. With 48 left of
the stream the code asks for 16 dimensions a head; no other count fits. Where the dimensions cannot
change (a softmax over them), heads do: with 64 left of the stream, 2 heads of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from niwaki.graph.inference import Inference, Number
from niwaki.graph.terms import Term, Var, leaves, resolve
from niwaki.running.origins import Arithmetic, Axis, Source
from niwaki.running.tape import Arrival


@dataclass(frozen=True)
class Tie:
    """Two groups of which one has so many times as many units as the other, whatever is cut.

    Attributes:
        stream: the group whose width the code reads.
        part: the group that is made of that width.
        times: units of the stream to one of the part.
    """

    stream: str
    part: str
    times: int


def find_ties(
    model: nn.Module, inference: Inference, variables: Mapping[str, Var]
) -> tuple[Tie, ...]:
    """The ties among some groups, in the order of the tape.

    Args:
        model: whose run was inferred.
        variables: group → what its channels are known as.
    """
    names = {var: name for name, var in variables.items()}
    by_place: dict[int, list[Number]] = {}
    for number in inference.numbers:
        by_place.setdefault(number.position, []).append(number)
    ties: dict[Tie, None] = {}
    for arrival in inference.tape.arrivals:
        for position in range(arrival.start, arrival.stop):
            numbers = by_place.get(position, [])
            for source, term in _matched(arrival, numbers):
                tie = _tie(inference, names, source, term, numbers)
                if tie is not None:
                    ties[tie] = None
    ties.update(dict.fromkeys(_of_torchs_attention(model, inference, names)))
    return tuple(ties)


def _of_torchs_attention(
    model: nn.Module, inference: Inference, names: Mapping[Var, str]
) -> Iterator[Tie]:
    """Torch's own attention has as many channels in all heads as its queries have."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.MultiheadAttention):
            continue
        weight = "q_proj_weight" if module.in_proj_weight is None else "in_proj_weight"
        rows, columns = inference.parameters.get(f"{name}.{weight}".lstrip("."), (None, None))
        stream = None if columns is None else resolve(columns)
        if rows is None or not isinstance(stream, Var) or stream not in names:
            continue
        heads = list({var for var in leaves(rows) if var in names and var != stream})
        if len(heads) == 1 and heads[0].size == module.num_heads:
            yield Tie(names[stream], names[heads[0]], stream.size // module.num_heads)


def _matched(arrival: Arrival, numbers: list[Number]) -> Iterator[tuple[Source, Term]]:
    """Integers of known source with the term that each is the size of: where no other integer of
    the call, or size of the operator, has that value.
    """
    values = [value for value, _ in arrival.numbers]
    sizes = [number.term.size for number in numbers]
    for value, source in arrival.numbers:
        if source is not None and values.count(value) == sizes.count(value) == 1:
            yield source, numbers[sizes.index(value)].term


def _tie(
    inference: Inference,
    names: Mapping[Var, str],
    source: Source,
    term: Term,
    beside: Sequence[Number],
) -> Tie | None:
    """The tie that a size and its source speak of, if any.

    Args:
        beside: all sizes that the operator was given.
    """
    axes = list(_axes(source))
    if len(axes) != 1:
        return None
    known = _term(inference, axes[0])
    stream = None if known is None else resolve(known)
    parts = list(leaves(term))
    if not isinstance(stream, Var) or stream not in names or stream in parts:
        return None
    part = parts[-1]  # of heads and their dimensions, the dimensions
    if part not in names and source != axes[0]:
        heads = {
            var
            for number in beside
            for var in leaves(number.term)
            if var in names and var != stream and var.size * part.size == stream.size
        }
        part = heads.pop() if len(heads) == 1 else part
    if part not in names or stream.size % part.size:
        return None
    return Tie(names[stream], names[part], stream.size // part.size)


def _axes(source: Source | int) -> Iterator[Axis]:
    if isinstance(source, Axis):
        yield source
    elif isinstance(source, Arithmetic):
        for operand in source.operands:
            yield from _axes(operand)


def _term(inference: Inference, axis: Axis) -> Term | None:
    value = axis.value
    terms = inference.parameters.get(value) if isinstance(value, str) else inference.axes.get(value)
    return terms[axis.axis] if terms and axis.axis < len(terms) else None
