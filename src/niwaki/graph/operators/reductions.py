"""Operators that reduce or mix positions along some axes: sums, means, softmax, pooling,
resampling.
"""

from __future__ import annotations

from functools import partial

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.operators.elementwise import join
from niwaki.graph.reasons import SPATIAL
from niwaki.graph.terms import Term
from niwaki.running import Op, Ref


def _dims(op: Op, rank: int, position: int = 1) -> list[int]:
    dims = op.arg(position, "dim")
    if dims is None or dims == []:
        return list(range(rank))
    return [dim % rank for dim in ([dims] if isinstance(dims, int) else dims)]


def _reduced(state: Inference, op: Op, axes: list[Term], dims: list[int]) -> None:
    """State the results of a reduction: the axes are dropped, or stay with size one."""
    for out in op.outputs:
        if out is None:
            continue
        shape = state.shape(out)
        if len(shape) == len(axes):
            state.give(
                out,
                [
                    axes[i] if i not in dims else state.fresh((shape[i],))[0]
                    for i in range(len(axes))
                ],
            )
        else:
            state.give(out, [axes[i] for i in range(len(axes)) if i not in dims])


def total(state: Inference, op: Op) -> Kind:
    """sum: a channel that is left out is a summand that is left out."""
    axes = state.terms(op.args[0])
    dims = _dims(op, len(axes))
    for dim in dims:
        state.reads_channels(0, dim, axes[dim])
    _reduced(state, op, axes, dims)
    return Kind.LINEAR


def reduction(state: Inference, op: Op, *, kind: Kind, position: int = 1) -> Kind:
    """Means, maxima, variances, norms: over channels, they are taken over the kept ones.

    Where something reads which position was the largest, positions are told apart.
    """
    if isinstance(op.arg(1, "other"), Ref):
        return join(state, op)  # max(a, b)
    axes = state.terms(op.args[0])
    dims = _dims(op, len(axes), position)
    if op.name in _POSITIONS or _gives_positions(state, op):
        state.freeze(*(axes[dim] for dim in dims), reason=state.why("told apart by"))
    state.reduces(0, dims)
    _reduced(state, op, axes, dims)
    return kind


def _gives_positions(state: Inference, op: Op) -> bool:
    """Whether something reads at which positions the results stood."""
    return op.name in _WITH_POSITIONS and any(map(state.is_used, op.outputs[1:]))


def norm(state: Inference, op: Op) -> Kind:
    """linalg_vector_norm(x, ord, dim): what is left out adds nothing, but it is taken over the kept
    ones all the same.
    """
    axes = state.terms(op.args[0])
    dims = _dims(op, len(axes), position=2)
    state.reduces(0, dims)
    _reduced(state, op, axes, dims)
    return Kind.OTHER


def counted(state: Inference, op: Op) -> Kind:
    """histc and bincount: (…) → (bins), how many entries fall into each."""
    reason = state.why("counted by")
    state.freeze(*state.terms(op.args[0]), reason=reason)
    state.give(op.result, state.fresh(state.shape(op.result), reason))
    return Kind.OTHER


def triangle(state: Inference, op: Op) -> Kind:
    """tril and triu: the last two axes keep their positions."""
    axes = state.terms(op.args[0])
    state.freeze(*axes[-2:], reason=state.why("told apart by"))
    state.give(op.result, axes)
    return Kind.OTHER


def along(state: Inference, op: Op, *, kind: Kind, position: int = 1) -> Kind:
    """Softmax, sorting, cumulative sums, flips: positions along the axis are told apart or
    compared.
    """
    axes = state.terms(op.args[0])
    dims = op.arg(position, "dim", -1)
    state.freeze(
        *(axes[dim] for dim in ([dims] if isinstance(dims, int) else dims)),
        reason=state.why("compared along by"),
    )
    for out in op.outputs:
        if out is not None:
            shape = state.shape(out)
            state.give(
                out,
                [
                    t if t.size == n else state.fresh((n,), state.why("picked by"))[0]
                    for t, n in zip(axes, shape, strict=True)
                ],
            )
    return kind


def roll(state: Inference, op: Op) -> Kind:
    """roll(x, shifts, dims); without dims the tensor is rolled as one row."""
    axes = state.terms(op.args[0])
    state.freeze(
        *(axes[dim] for dim in _dims(op, len(axes), position=2)), reason=state.why("shifted by")
    )
    state.give(op.result, axes)
    return Kind.VIEW


def spatial(state: Inference, op: Op, *, rank: int, kind: Kind) -> Kind:
    """Pooling, resampling, padding of borders: the last `rank` axes are space, all before are
    carried.
    """
    axes = state.terms(op.args[0])
    state.freeze(*axes[-rank:], reason=SPATIAL)
    for out in op.outputs:
        if out is not None:
            state.give(out, [*axes[:-rank], *state.fresh(state.shape(out)[-rank:], SPATIAL)])
    return kind


_POSITIONS = ("aten.argmax", "aten.argmin", "aten.kthvalue")
_WITH_POSITIONS = ("aten.max", "aten.min", "aten.median", "aten.nanmedian", "aten.mode")

_MAX = partial(reduction, kind=Kind.HOMOGENEOUS)
_MEAN = partial(reduction, kind=Kind.LINEAR)
_REDUCE = partial(reduction, kind=Kind.OTHER)
_ALONG = partial(along, kind=Kind.OTHER)


def _spatial_rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for rank in (1, 2, 3):
        linear = partial(spatial, rank=rank, kind=Kind.LINEAR)
        maximum = partial(spatial, rank=rank, kind=Kind.HOMOGENEOUS)
        rules[f"avg_pool{rank}d"] = rules[f"_adaptive_avg_pool{rank}d"] = rules[
            f"adaptive_avg_pool{rank}d"
        ] = linear
        rules[f"max_pool{rank}d_with_indices"] = rules[f"adaptive_max_pool{rank}d"] = maximum
        rules[f"max_pool{rank}d"] = maximum
        rules[f"reflection_pad{rank}d"] = rules[f"replication_pad{rank}d"] = linear
        rules[f"upsample_nearest{rank}d"] = rules[f"_upsample_nearest_exact{rank}d"] = linear
    for name in (
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
    ):
        rules[name] = partial(spatial, rank=2, kind=Kind.LINEAR)
    rules["upsample_linear1d"] = partial(spatial, rank=1, kind=Kind.LINEAR)
    rules["upsample_trilinear3d"] = partial(spatial, rank=3, kind=Kind.LINEAR)
    return rules


RULES: dict[str, Rule] = {
    **dict.fromkeys(("sum", "nansum"), total),
    "mean": _MEAN,
    **dict.fromkeys(("amax", "max", "amin", "min", "argmax", "argmin"), _MAX),
    **dict.fromkeys(
        (
            "var",
            "std",
            "var_mean",
            "std_mean",
            "prod",
            "any",
            "all",
            "logsumexp",
            "aminmax",
            "median",
            "nanmedian",
            "mode",
            "count_nonzero",
        ),
        _REDUCE,
    ),
    "linalg_vector_norm": norm,
    **dict.fromkeys(
        (
            "_softmax",
            "_safe_softmax",
            "_log_softmax",
            "cumsum",
            "cumprod",
            "logcumsumexp",
            "sort",
            "cummax",
            "cummin",
            "flip",
        ),
        _ALONG,
    ),
    "kthvalue": partial(reduction, kind=Kind.OTHER, position=2),
    "topk": partial(along, kind=Kind.OTHER, position=2),
    **dict.fromkeys(("histc", "bincount"), counted),
    **dict.fromkeys(("tril", "triu"), triangle),
    "roll": roll,
    **_spatial_rules(),
}
