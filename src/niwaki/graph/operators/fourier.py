"""Fourier transforms and complex numbers: a transform runs along some axes, and carries others."""

from __future__ import annotations

from functools import partial

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.operators.elementwise import join, pointwise
from niwaki.graph.terms import Term, Var
from niwaki.running import Op


def transform(state: Inference, op: Op) -> Kind:
    """_fft_r2c, _fft_c2r, _fft_c2c (x, dims, …): every frequency is made of all positions."""
    axes, reason = list(state.terms(op.args[0])), state.why("transformed by")
    for dim in op.args[1]:
        state.freeze(axes[dim], reason=reason)
        axes[dim] = Var(state.shape(op.result)[dim], reason)
    state.give(op.result, axes)
    return Kind.LINEAR


def as_real(state: Inference, op: Op) -> Kind:
    """view_as_real: (…) → (…, 2)."""
    parts = Var(2, state.why("real and imaginary part of"))
    state.give(op.result, [*state.terms(op.args[0]), parts])
    return Kind.VIEW


def as_complex(state: Inference, op: Op) -> Kind:
    """view_as_complex: (…, 2) → (…)."""
    axes: list[Term] = state.terms(op.args[0])
    state.freeze(axes[-1], reason=state.why("real and imaginary part of"))
    state.give(op.result, axes[:-1])
    return Kind.VIEW


RULES: dict[str, Rule] = {
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), transform),
    "view_as_real": as_real,
    "view_as_complex": as_complex,
    **dict.fromkeys(("complex", "polar"), join),
    **dict.fromkeys(
        ("_conj", "conj_physical", "_conj_physical", "resolve_conj", "_neg_view", "resolve_neg"),
        partial(pointwise, kind=Kind.OTHER),
    ),
    "angle": partial(pointwise, kind=Kind.OTHER),
}
