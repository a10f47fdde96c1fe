"""Whether two runs agree."""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.running.tape import Tape

# share of the largest output; far above rounding in deep networks, far below the effect of one
# wrong channel
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def difference(wanted: Tensor, found: Tensor) -> float:
    """The largest difference as a share of the largest entry; infinite where the shapes differ."""
    if wanted.shape != found.shape:
        return float("inf")
    if wanted.is_complex() and found.is_complex():
        wanted, found = (
            torch.view_as_real(wanted.resolve_conj()),
            torch.view_as_real(found.resolve_conj()),
        )
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(wanted, found) else float("inf")
    if not wanted.numel() or torch.equal(wanted, found):
        return 0.0
    gap = (wanted.double() - found.double()).abs().max()
    return (
        float("inf")
        if torch.isnan(gap)
        else float(gap / wanted.double().abs().max().clamp(min=1e-30))
    )


def tolerance(tape: Tape) -> float:
    """What rounding may come to: that of the coarsest numbers in a run, which the output's own may
    not be (autocast).
    """
    met = {tape.dtypes[ref.index] for op in tape.ops for ref in op.outputs if ref is not None}
    return max((TOLERANCE.get(REAL.get(dtype, dtype), 0.0) for dtype in met), default=0.0)


def same_structure(a: Tape, b: Tape) -> bool:
    """Whether two runs called the same operators on the same shapes, with the same numbers."""
    return a.shapes == b.shapes and [_without_device(op) for op in a.ops] == [
        _without_device(op) for op in b.ops
    ]


def _without_device(op: object) -> object:
    return (op.func, op.args, {k: v for k, v in op.kwargs.items() if k != "device"}, op.outputs)  # type: ignore[attr-defined]
