"""Operators that pick or write positions by index or by value: what they look into keeps its size,
all else goes on.
"""

from __future__ import annotations

import torch

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.terms import Term
from niwaki.running import Op, Ref


def index(state: Inference, op: Op) -> Kind:
    """x[indices, …]: indexed axes keep their size and make way for the indices' own; all others go
    on.

    The new axes stand where the first indexed one stood, or in front where the indexed ones are not
    neighbours. A mask of truth values takes as many axes as it has, and makes one.
    """
    axes = list(state.terms(op.args[0]))
    places: list[int] = []
    axis = new = 0
    for ref in op.args[1]:
        if ref is None:
            axis += 1
            continue
        mask = state.tape.dtypes[ref.index] in (torch.bool, torch.uint8)
        rank = len(state.shape(ref)) if mask else 1
        new = max(new, 1 if mask else len(state.shape(ref)))
        places += range(axis, axis + rank)
        axis += rank
        state.freeze(*state.terms(ref))
    state.freeze(*(axes[place] for place in places), reason=state.why("looked up by index by"))
    rest = [term for place, term in enumerate(axes) if place not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    front = places[0] if adjacent else 0
    shape = state.shape(op.result)
    looked_up = state.fresh(shape[front : front + new], state.why("looked up by index by"))
    state.give(op.result, [*rest[:front], *looked_up, *rest[front:]])
    return Kind.VIEW


def index_put(state: Inference, op: Op) -> Kind:
    """x[indices] = values: indexed axes keep their size; the values' last axes are the axes that
    are not indexed.
    """
    axes, indexed = (
        state.terms(op.args[0]),
        [place for place, ref in enumerate(op.args[1]) if ref is not None],
    )
    masks = any(state.tape.dtypes[ref.index] is torch.bool for ref in op.args[1] if ref is not None)
    for ref in op.args[1]:
        if ref is not None:
            state.freeze(*state.terms(ref))
    if masks:
        state.freeze(*axes, *state.terms(op.args[2]))
    else:
        state.freeze(*(axes[place] for place in indexed), reason=state.why("looked up by index by"))
        rest = [term for place, term in enumerate(axes) if place not in indexed]
        _line_up(state, rest, state.terms(op.args[2]))
    state.give(op.result, axes)
    return Kind.OTHER


def _line_up(state: Inference, axes: list[Term], values: list[Term]) -> None:
    """Unify from the last axis backwards, as in broadcasting; what is left over is frozen."""
    for axis, value in zip(reversed(axes), reversed(values), strict=False):
        if axis.size == value.size:
            state.unify(axis, value)
    state.freeze(*values[: max(0, len(values) - len(axes))])


def gather(state: Inference, op: Op) -> Kind:
    """gather(x, dim, indices): positions of one axis are picked apart for every position of the
    others.
    """
    axes, indices = state.terms(op.args[0]), state.terms(op.args[2])
    dim = op.args[1] % max(len(axes), 1)
    state.freeze(axes[dim], indices[dim], reason=state.why("looked up by index by"))
    out = []
    for place, (term, index_term) in enumerate(zip(axes, indices, strict=True)):
        if place != dim and term.size == index_term.size:
            state.unify(term, index_term)
        elif place != dim:
            state.freeze(term, index_term)
        out.append(index_term)
    state.give(op.result, out)
    return Kind.OTHER


def scatter(state: Inference, op: Op) -> Kind:
    """scatter(x, dim, indices, source): one axis is written by index, for every position of the
    others; a channel is written from the same channel of the source.
    """
    axes, indices = state.terms(op.args[0]), state.terms(op.args[2])
    dim, reason = op.args[1] % max(len(axes), 1), state.why("written by index by")
    operands = [axes, indices]
    if isinstance(op.arg(3, "src"), Ref):
        operands.append(state.terms(op.arg(3, "src")))
    for place in range(len(axes)):
        terms = [operand[place] for operand in operands]
        if place == dim or len({term.size for term in terms}) > 1:
            state.freeze(*terms, reason=reason)
        else:
            for term in terms[1:]:
                state.unify(terms[0], term)
    state.give(op.result, axes)
    return Kind.OTHER


def index_add(state: Inference, op: Op) -> Kind:
    """index_add(x, dim, indices, source): rows of one axis are added to; all other axes are the
    same.
    """
    axes, source = state.terms(op.args[0]), state.terms(op.args[3])
    dim = op.args[1] % max(len(axes), 1)
    state.freeze(
        axes[dim],
        source[dim],
        *state.terms(op.args[2]),
        reason=state.why("written by index by"),
    )
    for place, (term, other) in enumerate(zip(axes, source, strict=True)):
        if place != dim:
            state.unify(term, other)
    state.give(op.result, axes)
    return Kind.OTHER


def nonzero(state: Inference, op: Op) -> Kind:
    """Positions of what is not zero: how many there are depends on values."""
    state.freeze(*state.terms(op.args[0]), reason=state.why("told apart by"))
    state.give(op.result, state.fresh(state.shape(op.result), state.why("made by")))
    return Kind.OTHER


def index_select(state: Inference, op: Op) -> Kind:
    """index_select(x, dim, indices)."""
    axes = list(state.terms(op.args[0]))
    assert isinstance(op.args[2], Ref)
    return _look_up(state, op, axes, op.args[1] % len(axes), state.terms(op.args[2]))


def _look_up(state: Inference, op: Op, axes: list[Term], dim: int, positions: list[Term]) -> Kind:
    state.freeze(axes[dim], *positions, reason=state.why("looked up by index by"))
    state.give(op.result, [*axes[:dim], *positions, *axes[dim + 1 :]])
    return Kind.VIEW


def index_fill(state: Inference, op: Op) -> Kind:
    """index_fill(x, dim, indices, value): positions of one axis are overwritten."""
    axes = state.terms(op.args[0])
    dim = op.args[1] % max(len(axes), 1)
    state.freeze(axes[dim], *state.terms(op.args[2]), reason=state.why("written by index by"))
    state.give(op.result, axes)
    return Kind.OTHER


def slice_scatter(state: Inference, op: Op) -> Kind:
    """slice_scatter(x, source, dim, …): a stretch of one axis is overwritten; all others go on."""
    axes, source = state.terms(op.args[0]), state.terms(op.args[1])
    dim = op.arg(2, "dim", 0) % len(axes)
    for place, (term, other) in enumerate(zip(axes, source, strict=True)):
        if place == dim and term.size != other.size:
            state.freeze(term, other, reason=state.why("written by"))
        else:
            state.unify(term, other)
    state.give(op.result, axes)
    return Kind.OTHER


def select_scatter(state: Inference, op: Op) -> Kind:
    """select_scatter(x, source, dim, place): one position of an axis is overwritten."""
    axes = state.terms(op.args[0])
    dim = op.arg(2, "dim") % len(axes)
    state.freeze(axes[dim], reason=state.why("written by"))
    state.same([*axes[:dim], *axes[dim + 1 :]], state.terms(op.args[1]))
    state.give(op.result, axes)
    return Kind.OTHER


def bins(state: Inference, op: Op) -> Kind:
    """bucketize(x, edges) and searchsorted(edges, x): the bin of every value of x."""
    values, edges = op.args[:2] if op.name == "aten.bucketize" else op.args[1::-1]
    state.freeze(*state.terms(edges), reason=state.why("compared along by"))
    if not isinstance(values, Ref):
        state.give(op.result, state.fresh(state.shape(op.result)))
        return Kind.OTHER
    if len(state.shape(edges)) > 1:  # a row of edges for every row of values
        for edge, value in zip(state.terms(edges)[:-1], state.terms(values)[:-1], strict=True):
            state.unify(edge, value)
    state.give(op.result, state.terms(values))
    return Kind.OTHER


def pack(state: Inference, op: Op) -> Kind:
    """_pack_padded_sequence(x, lengths, batch first): samples and steps become one axis."""
    axes, reason = state.terms(op.args[0]), state.why("packed by")
    state.freeze(*axes[:2], *state.terms(op.args[1]), reason=reason)
    data, sizes = op.outputs
    assert data is not None
    state.give(data, [*state.fresh(state.shape(data)[:1], reason), *axes[2:]])
    if sizes is not None:
        state.give(sizes, state.fresh(state.shape(sizes), reason))
    return Kind.VIEW


def by_values(state: Inference, op: Op) -> Kind:
    """Sizes and positions that depend on all values: repeats, unique entries."""
    for ref in op.tensors:
        state.freeze(*state.terms(ref), reason=state.why("told apart by"))
    for out in op.outputs:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), state.why("made by")))
    return Kind.OTHER


RULES: dict[str, Rule] = {
    "index": index,
    **dict.fromkeys(("index_put", "_unsafe_index_put"), index_put),
    "_unsafe_index": index,
    "gather": gather,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    **dict.fromkeys(("index_add", "index_copy"), index_add),
    "index_fill": index_fill,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    **dict.fromkeys(("bucketize", "searchsorted"), bins),
    "_pack_padded_sequence": pack,
    **dict.fromkeys(("_unique2", "unique_dim", "unique_consecutive"), by_values),
    "repeat_interleave": by_values,
    "nonzero": nonzero,
    "index_select": index_select,
}
