"""Shape algebra: views, permutations, cuts and joins. Values move, none changes."""

from __future__ import annotations

from collections.abc import Sequence

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.reasons import EMPTY, PART, PLACES, SPATIAL, Freeze, Reason
from niwaki.graph.terms import Term, Var, concat, cut, leaves, product
from niwaki.running import Op


def _is_frozen(term: Term) -> bool:
    return all(var.frozen for var in leaves(term))


def _cause(term: Term) -> Reason:
    """The first reason of a frozen axis that is not about space."""
    reasons = (var.frozen for var in leaves(term))
    return next((reason for reason in reasons if reason and reason not in PLACES), PART)


def view(state: Inference, op: Op) -> Kind:
    """Axes are joined and split where the running products of the old and the new shape meet."""
    old, shape = state.terms(op.args[0]), state.shape(op.result)
    axes = _regroup(state, old, shape)
    for term in axes:
        state.number("size", term)
    state.give(op.result, axes)
    return Kind.VIEW


def _regroup(state: Inference, old: list[Term], shape: Sequence[int]) -> list[Term]:
    if 0 in shape:
        return state.fresh(tuple(shape), EMPTY)
    axes: list[Term] = []
    pending, sizes = [t for t in old if t.size != 1], list(shape)
    while sizes:
        joined: list[Term] = []
        wanted: list[int] = []
        have, want = 1, 1
        while have != want or not wanted:
            if (have < want and pending) or not sizes:
                joined.append(pending.pop(0))
                have *= joined[-1].size
            else:
                wanted.append(sizes.pop(0))
                want *= wanted[-1]
        axes += _split_joined(state, joined, wanted)
    return axes


def _split_joined(state: Inference, joined: list[Term], wanted: list[int]) -> list[Term]:
    """Axes of the wanted sizes out of the taken ones, both with the same product."""
    if len(wanted) == 1:
        return [product(*joined)]
    if len(joined) == 1:
        return state.split(joined[0], wanted)
    return state.split(product(*joined), wanted)


def permute(state: Inference, op: Op) -> Kind:
    """Axes change places."""
    axes = state.terms(op.args[0])
    state.give(op.result, [axes[dim] for dim in op.args[1]])
    return Kind.VIEW


def transpose(state: Inference, op: Op) -> Kind:
    """Two axes change places."""
    axes = list(state.terms(op.args[0]))
    a, b = op.args[1:3] if len(op.args) > 2 else (0, len(axes) - 1)
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    state.give(op.result, axes)
    return Kind.VIEW


def squeeze(state: Inference, op: Op) -> Kind:
    """Axes of size one come or go; all others stay in order."""
    shape = state.shape(op.result)
    rest = [term for term in state.terms(op.args[0]) if term.size != 1]
    fresh = state.fresh(shape)
    state.give(op.result, [rest.pop(0) if new.size != 1 else new for new in fresh])
    return Kind.VIEW


def expand(state: Inference, op: Op) -> Kind:
    """Axes of size one are repeated: all positions of the new axis are equal, so that it may have
    any size.
    """
    shape, axes = state.shape(op.result), state.terms(op.args[0])
    terms: list[Term] = []
    before: list[Term | None] = [*[None] * (len(shape) - len(axes)), *axes]
    for new, old in zip(state.fresh(shape), before, strict=True):
        if old is not None and old.size == new.size:
            terms.append(
                old
            )  # no number of the caller's: it comes from matmul, or is read from a tensor
        else:
            state.number("size", new)
            terms.append(new)
    state.give(op.result, terms)
    return Kind.VIEW


def repeat(state: Inference, op: Op) -> Kind:
    """Whole copies behind one another: copies ⊗ axis."""
    counts, axes = op.args[1], list(state.terms(op.args[0]))
    axes = [*state.fresh((1,) * (len(counts) - len(axes))), *axes]
    copies = state.fresh(tuple(counts))
    for term in copies:
        state.number("repeats", term)
    state.give(op.result, [product(count, axis) for count, axis in zip(copies, axes, strict=True)])
    return Kind.VIEW


def select(state: Inference, op: Op) -> Kind:
    """One position of an axis; the axis keeps its size, the others go on."""
    axes = list(state.terms(op.args[0]))
    dim = op.args[1] % len(axes)
    state.freeze(axes.pop(dim), reason=state.why("taken one by one by"))
    state.give(op.result, axes)
    return Kind.VIEW


def unbind(state: Inference, op: Op) -> Kind:
    """All positions of an axis, one by one."""
    axes = list(state.terms(op.args[0]))
    dim = op.arg(1, "dim", 0) % len(axes)
    state.freeze(axes.pop(dim), reason=state.why("taken one by one by"))
    for out in op.outputs:
        if out is not None:
            state.give(out, axes)
    return Kind.VIEW


def cut_slice(state: Inference, op: Op) -> Kind:
    """x[start:end:step] along one axis; x[::2] and x[1::2] tie neighbours: pairs ⊗ 2."""
    axes = list(state.terms(op.args[0]))
    dim = op.arg(1, "dim", 0) % len(axes)
    size, out = axes[dim].size, state.shape(op.result)[dim]
    start, step = op.arg(2, "start") or 0, op.arg(4, "step", 1)
    if out == 0:
        axes[dim] = Var(0, EMPTY)
    elif out != size:
        if step > 1 and out * step == size and start < step and not _is_frozen(axes[dim]):
            axes[dim], each = state.split(axes[dim], [out, step])
            state.freeze(each, reason=state.why("taken in steps by"))
        elif step != 1 or _is_frozen(axes[dim]):
            state.freeze(axes[dim], reason=state.why("sliced by"))
            axes[dim] = Var(out, state.why("sliced by"))
        else:
            start = max(start + size, 0) if start < 0 else min(start, size)
            parts = cut(
                axes[dim],
                [n for n in (start, out, size - start - out) if n],
                state.why("sliced by"),
            )
            axes[dim] = parts[1 if start else 0]
            state.number("slice", axes[dim])
    state.give(op.result, axes)
    return Kind.VIEW


def split(state: Inference, op: Op) -> Kind:
    """Consecutive parts. Equal ones are tied unit by unit, so that code that halves an axis gets
    equal halves again.
    """
    axes = list(state.terms(op.args[0]))
    dim = op.arg(2, "dim", 0) % len(axes)
    outs = [out for out in op.outputs if out is not None]
    sizes = [state.shape(out)[dim] for out in outs]
    if _is_frozen(axes[dim]):
        parts = list(state.fresh(tuple(sizes), _cause(axes[dim])))
    elif len(set(sizes)) == 1:
        count, part = state.split(axes[dim], [len(sizes), sizes[0]])
        state.freeze(count, reason=state.why("taken one by one by"))
        parts = [part] * len(sizes)
    else:
        parts = cut(axes[dim], sizes, state.why("does not split at"))
    for out, part in zip(outs, parts, strict=True):
        state.number("split", part)
        state.give(out, [*axes[:dim], part, *axes[dim + 1 :]])
    return Kind.VIEW


def cat(state: Inference, op: Op) -> Kind:
    """Parts one behind the other; all other axes are the same."""
    refs = [ref for ref in op.args[0] if state.shape(ref) != (0,)]
    tables = [state.terms(ref) for ref in refs]
    if not tables:
        state.give(op.result, state.fresh(state.shape(op.result), EMPTY))
        return Kind.VIEW
    dim = op.arg(1, "dim", 0) % len(tables[0])
    for table in tables[1:]:
        for axis, (a, b) in enumerate(zip(tables[0], table, strict=True)):
            if axis != dim:
                state.unify(a, b)
    joined = concat(*(table[dim] for table in tables))
    if _is_frozen(joined):
        joined = Var(joined.size, _cause(joined))
    state.give(op.result, [*tables[0][:dim], joined, *tables[0][dim + 1 :]])
    return Kind.VIEW


def stack(state: Inference, op: Op) -> Kind:
    """A new axis whose positions are the operands, which are the same channels."""
    tables = [state.terms(ref) for ref in op.args[0]]
    for table in tables[1:]:
        state.same(tables[0], table)
    dim = op.arg(1, "dim", 0) % (len(tables[0]) + 1)
    new = Var(len(tables), state.why("stacked by"))
    state.give(op.result, [*tables[0][:dim], new, *tables[0][dim:]])
    return Kind.VIEW


def constant_pad(state: Inference, op: Op) -> Kind:
    """Constant channels before and behind an axis, or (negative) channels cut off."""
    axes = list(state.terms(op.args[0]))
    pads = op.args[1]
    for pair in range(len(pads) // 2):
        axis, before, behind = len(axes) - 1 - pair, pads[2 * pair], pads[2 * pair + 1]
        if not before and not behind:
            continue
        size = axes[axis].size + before + behind
        if min(before, behind) < 0 or _is_frozen(axes[axis]):
            state.freeze(axes[axis], reason=state.why("padded by"))
            axes[axis] = Var(size, state.why("padded by"))
        else:
            new = [Var(before), Var(behind)]
            for term in new:
                state.number("pad", term)
            axes[axis] = concat(new[0], axes[axis], new[1])
    state.give(op.result, axes)
    return Kind.LINEAR if not op.arg(2, "value", 0) else Kind.OTHER


def factory(state: Inference, op: Op) -> Kind:
    """zeros, ones, full: all positions are equal, so that an axis may have any size."""
    terms = state.fresh(state.shape(op.result))
    for term in terms:
        state.number("size", term)
    state.give(op.result, terms)
    return Kind.OTHER


def counted(state: Inference, op: Op) -> Kind:
    """arange: every position holds a number of its own, so that an axis keeps its size."""
    reason = Reason(Freeze.POSITIONS, state.where)
    state.give(op.result, state.fresh(state.shape(op.result), reason))
    return Kind.OTHER


def drawn(state: Inference, op: Op) -> Kind:
    """Random numbers, the unit matrix: positions differ, so that an axis keeps its size."""
    for out in op.outputs:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), state.why("made by")))
    return Kind.OTHER


def restride(state: Inference, op: Op) -> Kind | None:
    """as_strided(x, size, …) of the same size states a memory layout, and nothing else."""
    if tuple(op.args[1]) != state.shape(op.args[0]):
        return None
    state.give(op.result, state.terms(op.args[0]))
    return Kind.VIEW


def unfold_columns(state: Inference, op: Op) -> Kind | None:
    """im2col: (B, C, h, w) → (B, C ⊗ kernel, positions)."""
    axes = state.terms(op.args[0])
    if len(axes) != 4:
        return None
    state.freeze(*axes[2:], reason=SPATIAL)
    rows, positions = state.shape(op.result)[1:]
    channels = product(axes[1], Var(rows // axes[1].size, SPATIAL))
    state.give(op.result, [axes[0], channels, Var(positions, SPATIAL)])
    return Kind.VIEW


def windows(state: Inference, op: Op) -> Kind:
    """unfold(x, dim, size, step): one axis becomes windows along it and, last, the positions within
    a window.
    """
    axes = list(state.terms(op.args[0]))
    dim = op.args[1] % len(axes)
    state.freeze(axes[dim], reason=state.why("taken in windows by"))
    shape = state.shape(op.result)
    axes[dim] = Var(shape[dim], state.why("windows of"))
    state.give(op.result, [*axes, Var(shape[-1], state.why("windows of"))])
    return Kind.VIEW


def pixel_shuffle(state: Inference, op: Op) -> Kind:
    """(…, C ⊗ r², h, w) → (…, C, h·r, w·r)."""
    axes, factor = state.terms(op.args[0]), op.args[1]
    channels, block = state.split(axes[-3], [axes[-3].size // factor**2, factor**2])
    state.freeze(block, *axes[-2:], reason=SPATIAL)
    state.give(
        op.result, [*axes[:-3], channels, *state.fresh(state.shape(op.result)[-2:], SPATIAL)]
    )
    return Kind.VIEW


def pixel_unshuffle(state: Inference, op: Op) -> Kind:
    """(…, C, h·r, w·r) → (…, C ⊗ r², h, w)."""
    axes, factor = state.terms(op.args[0]), op.args[1]
    state.freeze(*axes[-2:], reason=SPATIAL)
    channels = product(axes[-3], Var(factor**2, SPATIAL))
    state.give(
        op.result, [*axes[:-3], channels, *state.fresh(state.shape(op.result)[-2:], SPATIAL)]
    )
    return Kind.VIEW


def halves(state: Inference, op: Op) -> Kind:
    """glu(x, dim): the first half times the sigmoid of the second."""
    axes = list(state.terms(op.args[0]))
    dim = op.arg(1, "dim", -1) % len(axes)
    two, axes[dim] = state.split(axes[dim], [2, axes[dim].size // 2])
    state.freeze(two, reason=state.why("taken one by one by"))
    state.give(op.result, axes)
    return Kind.OTHER


_DRAWN = "rand randn eye scalar_tensor randint tril_indices triu_indices"

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten"), view
    ),
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes"), transpose),
    **dict.fromkeys(("squeeze", "unsqueeze"), squeeze),
    "expand": expand,
    "repeat": repeat,
    "select": select,
    "unbind": unbind,
    "slice": cut_slice,
    **dict.fromkeys(
        ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk"), split
    ),
    "cat": cat,
    "stack": stack,
    "constant_pad_nd": constant_pad,
    **dict.fromkeys(
        ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"),
        factory,
    ),
    **dict.fromkeys(_DRAWN.split(), drawn),
    **dict.fromkeys(("arange", "linspace", "logspace"), counted),
    "glu": halves,
    "as_strided": restride,
    "im2col": unfold_columns,
    "unfold": windows,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
