"""Operators that contract axes: matrix products, convolutions, attention, and the look-up of an
embedding.
"""

from __future__ import annotations

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.operators.projections import come_from_projections
from niwaki.graph.operators.weighted import ATTENTION
from niwaki.graph.reasons import SPATIAL
from niwaki.graph.terms import Term, product
from niwaki.running import Op, Ref


def _contract(state: Inference, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Sum over an axis of two operands, each given as (argument, axis); the activation is the one
    that is read.
    """
    op = state.op
    (a, a_axis), (b, b_axis) = left, right
    term = state.terms(op.args[a])[a_axis]
    state.unify(term, state.terms(op.args[b])[b_axis])
    if state.is_activation(op.args[a]) or not state.is_activation(op.args[b]):
        state.reads_channels(a, a_axis, term, (op.args[b], b_axis))
    else:
        state.reads_channels(b, b_axis, term, (op.args[a], a_axis))


def matrix_product(state: Inference, op: Op) -> Kind:
    """mm and bmm: (…, n, k) × (…, k, m) → (…, n, m)."""
    return _matrix_product(state, op, first=0)


def added_matrix_product(state: Inference, op: Op) -> Kind:
    """addmm and baddbmm: the first argument is added, broadcast."""
    kind = _matrix_product(state, op, first=1)
    out, added = state.terms(op.result), state.terms(op.args[0])
    for term, other in zip(reversed(out), reversed(added), strict=False):
        if term.size == other.size:
            state.unify(term, other)
    return kind


def _matrix_product(state: Inference, op: Op, first: int) -> Kind:
    a, b = state.terms(op.args[first]), state.terms(op.args[first + 1])
    for left, right in zip(a[:-2], b[:-2], strict=True):
        state.unify(left, right)
    _contract(state, (first, len(a) - 1), (first + 1, len(b) - 2))
    state.multiplies(*a, b[-1])
    state.give(op.result, [*a[:-1], b[-1]])
    return Kind.PRODUCT


def routed_product(state: Inference, op: Op) -> Kind | None:
    """_grouped_mm: rows (n, k), sorted by expert, × experts (e, k, m) → (n, m)."""
    rows, experts = state.terms(op.args[0]), state.terms(op.args[1])
    if (len(rows), len(experts)) != (2, 3):
        return None
    ends = op.arg(2, "offs")
    if isinstance(ends, Ref):
        state.unify(experts[0], state.terms(ends)[0])
    state.freeze(rows[0], experts[0], reason=state.why("told apart by"))
    _contract(state, (0, 1), (1, 1))
    state.multiplies(*rows, experts[2])
    state.give(op.result, [rows[0], experts[2]])
    return Kind.PRODUCT


def vector_product(state: Inference, op: Op) -> Kind:
    """mv and dot: (…, k) × (k) → (…)."""
    a = state.terms(op.args[0])
    _contract(state, (0, len(a) - 1), (1, 0))
    state.multiplies(*a)
    state.give(op.result, a[:-1])
    return Kind.PRODUCT


def linear(state: Inference, op: Op) -> Kind:
    """linear: (…, k) × (m, k) + (m) → (…, m)."""
    x, weight = state.terms(op.args[0]), state.terms(op.args[1])
    _contract(state, (0, len(x) - 1), (1, 1))
    state.multiplies(*x, weight[0])
    bias = op.arg(2, "bias")
    if bias is not None:
        state.unify(weight[0], state.terms(bias)[0])
    state.give(op.result, [*x[:-1], weight[0]])
    return Kind.PRODUCT


def convolution(state: Inference, op: Op) -> Kind:
    """Convolution of any rank, transposed or not: channels = groups ⊗ channels a group, on both
    sides.
    """
    x_ref, weight_ref, bias = op.args[:3]
    transposed, groups = op.arg(6, "transposed", False), op.arg(8, "groups", 1)
    x, weight = state.terms(x_ref), state.terms(weight_ref)
    batch, channels, *space = x
    kernel = weight[2:]
    state.freeze(*space, *kernel, reason=SPATIAL)
    group, inner = _grouped(state, channels, groups)
    if transposed:
        state.unify(channels, weight[0])
        outer = weight[1]
        out = product(group, outer) if group is not None else outer
        axis = 0
    else:
        other_group, outer = _grouped(state, weight[0], groups)
        state.unify(inner, weight[1])
        if group is not None and other_group is not None:
            state.unify(group, other_group)
        out, axis = weight[0], 1
    if group is not None:
        state.number("groups", group)
    if inner.size > 1 or group is None:
        state.reads_channels(0, 1, inner, (weight_ref, axis))
    if isinstance(bias, Ref):
        state.unify(out, state.terms(bias)[0])
    positions = state.fresh(state.shape(op.result)[2:], SPATIAL)
    if transposed:
        state.multiplies(batch, channels, *space, outer, *kernel)
    else:
        state.multiplies(batch, out, *positions, inner, *kernel)
    state.give(op.result, [batch, out, *positions])
    return Kind.PRODUCT


def _grouped(state: Inference, channels: Term, groups: int) -> tuple[Term | None, Term]:
    if groups == 1:
        return None, channels
    group, inner = state.split(channels, [groups, channels.size // groups])
    return group, inner


def attention(state: Inference, op: Op) -> Kind | None:
    """Scaled dot product attention: q (…, n, d), k (…, m, d), v (…, m, e) → (…, n, e)."""
    q, k, v = (state.terms(ref) for ref in op.args[:3])
    state.same(k[:-2], v[:-2])
    for heads, shared in zip(q[:-2], k[:-2], strict=True):
        if heads.size == shared.size:
            state.unify(heads, shared)
        elif (
            shared.size > 1 and heads.size % shared.size == 0
        ):  # grouped-query attention: several heads share one
            state.unify(state.split(heads, [shared.size, heads.size // shared.size])[0], shared)
        elif shared.size != 1:
            return None
    state.unify(k[-2], v[-2])
    state.freeze(k[-2], q[-2])
    state.unify(q[-1], k[-1])
    if op.kwargs.get("scale") is None and not come_from_projections(state, op.args[:2]):
        # the operator divides by the square root of this width, which only the weights of a
        # projection could make up for
        state.freeze(q[-1], reason=state.why("sets the scale of"))
    state.reads_channels(0, len(q) - 1, q[-1])
    state.multiplies(*q, k[-2])
    state.multiplies(*q[:-1], k[-2], v[-1])
    mask = (
        op.arg(3, "attn_bias")
        if isinstance(op.arg(3, "attn_bias"), Ref)
        else op.kwargs.get("attn_mask")
    )
    if mask is not None:  # broadcast over batch and heads
        for term, other in zip(
            reversed([*q[:-1], k[-2]]), reversed(state.terms(mask)), strict=False
        ):
            if term.size == other.size:
                state.unify(term, other)
    state.give(op.result, [*q[:-1], v[-1]])
    for out in op.outputs[1:]:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), state.why("fixed by")))
    return Kind.PRODUCT


def embedding(state: Inference, op: Op) -> Kind:
    """embedding(weight (entries, c), indices (…)) → (…, c)."""
    weight, indices = state.terms(op.args[0]), state.terms(op.args[1])
    state.freeze(weight[0], reason=state.why("looked up by index by"))
    state.give(op.result, [*indices, weight[1]])
    return Kind.PRODUCT


def embedding_bag(state: Inference, op: Op) -> Kind:
    """_embedding_bag(weight (entries, c), indices, offsets, …) → (bags, c), and statistics."""
    weight = state.terms(op.args[0])
    state.freeze(weight[0], reason=state.why("looked up by index by"))
    state.give(op.result, [*state.fresh(state.shape(op.result)[:1]), weight[1]])
    for out in op.outputs[1:]:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), state.why("statistics of")))
    largest = 2
    return Kind.OTHER if op.arg(4, "mode", 0) == largest else Kind.PRODUCT


def distances(state: Inference, op: Op) -> Kind:
    """_cdist_forward(x (…, n, c), y (…, m, c)) → (…, n, m): over the kept channels of both."""
    a, b = state.terms(op.args[0]), state.terms(op.args[1])
    state.same(a[:-2], b[:-2])
    state.unify(a[-1], b[-1])
    state.normalises(0, len(a) - 1, a[-1])
    state.normalises(1, len(b) - 1, b[-1])
    state.give(op.result, [*a[:-1], b[-2]])
    return Kind.OTHER


RULES: dict[str, Rule] = {
    **dict.fromkeys(("mm", "bmm", "_sparse_mm"), matrix_product),
    **dict.fromkeys(("addmm", "baddbmm", "_sparse_addmm"), added_matrix_product),
    **dict.fromkeys(("mv", "dot"), vector_product),
    "_grouped_mm": routed_product,
    "linear": linear,
    "convolution": convolution,
    **dict.fromkeys(ATTENTION, attention),
    "embedding": embedding,
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), embedding_bag),
    "_cdist_forward": distances,
}
