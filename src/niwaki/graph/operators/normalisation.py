"""Normalisations: by stored statistics (one affine map a channel), or by statistics taken over an
axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from niwaki.graph.facts import Facts
from niwaki.graph.inference import Inference, Kind, Norm, Rule
from niwaki.graph.reasons import SPATIAL
from niwaki.graph.terms import Term
from niwaki.running import Op, Ref


def _finish(state: Inference, op: Op, axes: list[Term]) -> None:
    """The first result has the input's axes; the others are statistics that nothing reads."""
    state.give(op.result, axes)
    for out in op.outputs[1:]:
        if out is not None:
            state.give(out, state.fresh(state.shape(out), state.why("statistics of")))


def batch_norm(state: Inference, op: Op) -> Kind:
    """(B, C, …) with scale, shift, mean and variance (C) each; a channel is normalised alone."""
    axes = state.terms(op.args[0])
    affine = op.args[1:5]
    for ref in affine:
        if isinstance(ref, Ref):
            state.unify(axes[1], state.terms(ref)[0])
    state.scaled_by(op.args[1])
    scale, shift, mean, var = (
        state.tape.parameters.get(ref) if isinstance(ref, Ref) else None for ref in affine
    )
    _finish(state, op, axes)
    named = sum(isinstance(ref, Ref) for ref in affine) == sum(
        name is not None for name in (scale, shift, mean, var)
    )
    training = "no_training" not in op.name and op.arg(5, "training", False)
    # standardised weights, or a layer without stored statistics: these are taken over all other
    # axes
    if training:
        state.reduces(0, [axis for axis in range(len(axes)) if axis != 1])
    if training or not named or mean is None or var is None:
        return Kind.OTHER
    state.norms.append(Norm(state.position, axes[1], scale, shift, mean, var, float(op.args[-1])))
    return Kind.NORM


def layer_norm(state: Inference, op: Op) -> Kind:
    """(…, *normalized_shape): statistics over the last axes."""
    axes, count = state.terms(op.args[0]), len(op.args[1])
    for slot in (2, 3):
        ref = op.args[slot]
        if isinstance(ref, Ref):
            state.same(axes[-count:], state.terms(ref))
    state.scaled_by(op.args[2])
    for axis in range(len(axes) - count, len(axes)):
        state.normalises(0, axis, axes[axis])
        state.number("normalized_shape", axes[axis])
    _finish(state, op, axes)
    return Kind.OTHER


def group_norm(state: Inference, op: Op) -> Kind:
    """(B, groups ⊗ c, …): statistics over c and the space."""
    axes, groups = state.terms(op.args[0]), op.args[6]
    inner = axes[1]
    state.scaled_by(op.args[1])
    state.number("num_channels", axes[1])
    if groups > 1:
        group, inner = state.split(axes[1], [groups, axes[1].size // groups])
        state.number("num_groups", group)
    for slot in (1, 2):
        ref = op.args[slot]
        if isinstance(ref, Ref):
            state.unify(axes[1], state.terms(ref)[0])
    if inner.size > 1:
        state.normalises(0, 1, inner)
    state.freeze(*axes[2:], reason=SPATIAL)
    _finish(state, op, axes)
    return Kind.OTHER


def weight_norm(state: Inference, op: Op) -> Kind:
    """(v, g, dim): g·v/‖v‖, the norm taken over all axes but `dim`; one channel less there would be
    another norm.
    """
    axes, dim = state.terms(op.args[0]), op.arg(2, "dim", 0) % len(state.shape(op.args[0]))
    state.unify(axes[dim], state.terms(op.args[1])[dim])
    state.freeze(*axes[:dim], *axes[dim + 1 :], reason=state.why("the norm is taken over it by"))
    _finish(state, op, axes)
    return Kind.OTHER


def _layer_sizes(op: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The sizes of the axes that are normalised, the last ones."""
    axes = len(op["normalized_shape"])
    return op.replaced({"normalized_shape": list(operands[0].shape[-axes:])}, operands)


def _channel_count(op: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The number of channels."""
    return op.replaced({"C": operands[0].shape[1]}, operands)


OWN_SIZES = Facts(
    "own sizes",
    "integer arguments that repeat an operand's size; the masked reference asks, which runs it on "
    "the kept channels alone",
    {"native_layer_norm": _layer_sizes, "native_group_norm": _channel_count},
)

BATCH_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
}
