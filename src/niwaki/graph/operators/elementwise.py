"""Operators that work position by position: axes line up from the last one backwards, size one is
broadcast.
"""

from __future__ import annotations

from functools import partial

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.terms import Term
from niwaki.running import Op, Ref


def broadcast(state: Inference, op: Op) -> None:
    """Unify all operands' axes with the results'."""
    for out in op.outputs:
        if out is None:
            continue
        shape = state.shape(out)
        terms: list[Term | None] = [None] * len(shape)
        for ref in op.tensors:
            offset = len(shape) - len(state.shape(ref))
            for axis, term in enumerate(state.terms(ref), start=offset):
                if term.size != shape[axis]:
                    continue  # broadcast: it has size one
                known = terms[axis]
                if known is None:
                    terms[axis] = term
                else:
                    state.unify(known, term)
        fresh = state.fresh(shape)
        state.give(out, [known or new for known, new in zip(terms, fresh, strict=True)])


def pointwise(state: Inference, op: Op, *, kind: Kind) -> Kind:
    """A function of one tensor; of more (clamp by tensors, masked fills) it joins them."""
    broadcast(state, op)
    return kind if len(op.tensors) == 1 else Kind.OTHER


def add(state: Inference, op: Op) -> Kind:
    """Sum: a join of activations, or an activation and its bias."""
    broadcast(state, op)
    return _pair(state, op, parameter=Kind.BIAS if op.kwargs.get("alpha", 1) == 1 else Kind.OTHER)


def subtract(state: Inference, op: Op) -> Kind:
    """Difference; one with a parameter is no bias as other code reads it (the sign is wrong)."""
    broadcast(state, op)
    return _pair(state, op, parameter=Kind.OTHER)


def multiply(state: Inference, op: Op) -> Kind:
    """Product or quotient: by a number it is linear, by a parameter or an activation it is not one
    function a unit.
    """
    broadcast(state, op)
    if len(op.tensors) == 1:
        number = op.arg(1, "other")
        scales = isinstance(op.args[0], Ref) and isinstance(number, (int, float)) and number > 0
        return Kind.LINEAR if scales and "rounding_mode" not in op.kwargs else Kind.OTHER
    for ref in op.tensors:  # a hand-written normalisation, a layer scale
        if (
            not state.is_activation(ref)
            and sum(size > 1 for size in state.shape(ref)) == 1
            and op.name.startswith("aten.mul")
        ):
            state.scaled_by(ref)
    return _pair(state, op, parameter=Kind.OTHER)


def _pair(state: Inference, op: Op, *, parameter: Kind) -> Kind:
    refs = op.tensors
    if len(refs) < 2:
        return Kind.OTHER
    return Kind.JOIN if all(map(state.is_activation, refs)) else parameter


def join(state: Inference, op: Op) -> Kind:
    """A function of several tensors."""
    broadcast(state, op)
    return Kind.JOIN


_VIEWS = """
alias clone contiguous detach dropout lift_fresh lift_fresh_copy _to_copy to native_dropout
positive
"""
_HOMOGENEOUS = """relu leaky_relu"""
_OTHER = """
abs acos asin atan bitwise_not ceil celu clamp clamp_max clamp_min cos cosh digamma elu erf erfc
exp exp2 expm1 bernoulli exponential normal uniform random fill floor frac gelu hardshrink
hardsigmoid hardswish hardtanh isfinite isinf isnan log log10 log1p log2 log_sigmoid_forward
logical_not logit mish nan_to_num neg ones_like zeros_like full_like empty_like rand_like
randn_like reciprocal relu6 round rsqrt rsub selu sgn sigmoid sign silu sin sinh softplus
softshrink sqrt square tan tanh threshold trunc zero
"""
_JOINS = """
_prelu_kernel addcdiv addcmul atan2 bitwise_and bitwise_or bitwise_xor copy eq fmod ge gt
heaviside hypot le lerp logaddexp logical_and logical_or logical_xor lt masked_fill maximum
minimum ne pow remainder where xlogy floor_divide
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_VIEWS.split(), partial(pointwise, kind=Kind.VIEW)),
    **dict.fromkeys(_HOMOGENEOUS.split(), partial(pointwise, kind=Kind.HOMOGENEOUS)),
    **dict.fromkeys(_OTHER.split(), partial(pointwise, kind=Kind.OTHER)),
    **dict.fromkeys(_JOINS.split(), join),
    "add": add,
    "sub": subtract,
    **dict.fromkeys(("mul", "div"), multiply),
}

_FUNCTIONS = frozenset(f"aten.{name}" for name in f"{_HOMOGENEOUS} {_OTHER}".split())


def is_sum(op: Op) -> bool:
    """Whether an operator adds two values as they are."""
    plain = op.name.rstrip("_") == "aten.add" and op["alpha"] == 1
    return plain and len(op.tensors) == 2


def is_function(op: Op) -> bool:
    """Whether an operator is a function of one number that is not linear, position by position."""
    return op.name.rstrip("_") in _FUNCTIONS and len(op.tensors) == 1
