"""The only place that says whether two runs agree.

Two values agree where every element does: on a local scale, the largest entry of its row (of the
last axis), because the largest of a whole tensor would hide an error in a row of small numbers.
Rounding sets a floor to that scale: what is computed from numbers up to M in a type of precision ε
is not known better than a few ε·M. Infinity equals infinity, and NaN equals NaN. Marks that code
puts into its outputs on purpose (-1e9 where a mask is) are equal on both sides, and count for no
scale.

Worked example: rows (1000, 1) and (1, 2), differing by 0.01 in the last entry. The largest entry of
all is 1000, which makes it 1e-5; the largest of its row is 2, which makes it 5e-3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.running.tape import Op, Tape

# share of the local scale; far above rounding in deep networks, far below one wrong channel
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# of values inside, which may be differences of larger ones: a wrong channel is far above it too
TOLERANCE_INSIDE = {
    torch.float64: 1e-6,
    torch.float32: 1e-2,
    torch.bfloat16: 0.5,
    torch.float16: 0.2,
}
ROUNDINGS = 64  # so many ε of the largest number come together in a layer
MARK = 1e4  # from here on a number that is equal on both sides may be a mark, and sets no scale

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def tolerance(tape: Tape, *, inside: bool = False) -> float:
    """What rounding may come to: that of the coarsest numbers in a run, which the output's own may
    not be (autocast).

    Args:
        inside: of values that operators hand to one another, in the place of outputs.
    """
    table = TOLERANCE_INSIDE if inside else TOLERANCE
    return max((table.get(dtype, 0.0) for dtype in _types(tape)), default=0.0)


def _types(tape: Tape) -> set[torch.dtype]:
    met = {tape.dtypes[ref.index] for op in tape.ops for ref in op.outputs if ref is not None}
    return {REAL.get(dtype, dtype) for dtype in met}


def difference(wanted: Tensor, actual: Tensor, noise: float = 0.0) -> float:
    """The largest difference of two values as a share of the local scale; infinite where their
    shapes differ, or one has a number where the other has none.

    Args:
        noise: what rounding may have come to by now, beside that of the values' own size.
    """
    if wanted.shape != actual.shape:
        return float("inf")
    wanted, actual = _real(wanted), _real(actual)
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(wanted, actual) else float("inf")
    if not wanted.numel() or torch.equal(wanted, actual):
        return 0.0
    precision = max(torch.finfo(wanted.dtype).eps, torch.finfo(actual.dtype).eps)
    loosest = max(TOLERANCE.get(wanted.dtype, 1.0), TOLERANCE.get(actual.dtype, 1.0))
    wanted, actual = wanted.double(), actual.double()
    same = (wanted == actual) | (wanted.isnan() & actual.isnan())
    gaps = torch.where(same, 0.0, (wanted - actual).abs())
    if not bool(gaps.isfinite().all()):
        return float("inf")
    sizes = torch.where(same & ~(wanted.abs() < MARK), 0.0, wanted.abs())
    rows = sizes.amax(-1, keepdim=True) if sizes.ndim else sizes
    floor = max(ROUNDINGS * precision * float(sizes.max()), noise) / loosest
    return float((gaps / rows.clamp(min=max(floor, 1e-30))).max())


def agrees(
    wanted: Tensor, actual: Tensor, noise: float, allowed: float, size: float | None = None
) -> bool:
    """Whether the difference of two values is no more than is allowed; most are far below it, which
    is seen without looking at them row by row.

    Args:
        size: `size_of(wanted)`, where it is known.
    """
    alike = wanted.shape == actual.shape and wanted.dtype == actual.dtype
    plain = wanted.layout == actual.layout == torch.strided and wanted.is_floating_point()
    if alike and plain and wanted.numel():
        size = size_of(wanted) if size is None else size
        floor = max(ROUNDINGS * torch.finfo(wanted.dtype).eps * size, noise)
        least = floor / TOLERANCE.get(wanted.dtype, 1.0)  # every row's scale is at least this
        if 2 * float((wanted - actual).abs().max()) <= allowed * least:
            return True
    return difference(wanted, actual, noise) <= allowed


def size_of(value: Tensor) -> float:
    """The largest finite entry, by its amount; marks do not count. 0 for what holds no numbers."""
    value = _real(value)
    if not value.is_floating_point() or not value.numel():
        return 0.0
    amounts = value.abs()
    largest = float(amounts.max())
    if largest < MARK:  # never true of NaN
        return largest
    return float(torch.where(amounts < MARK, amounts, 0.0).max())


def _real(value: Tensor) -> Tensor:
    value = value if value.layout == torch.strided else value.to_dense()
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def worst(wanted: list[Tensor], actual: list[Tensor]) -> float:
    """The largest difference of two lists of outputs; infinite where there are not as many."""
    if len(wanted) != len(actual):
        return float("inf")
    return max((difference(a, b) for a, b in zip(wanted, actual, strict=True)), default=0.0)


def same_structure(a: Tape, b: Tape) -> bool:
    """Whether two runs called the same operators on the same shapes, with the same numbers."""
    return a.shapes == b.shapes and [_without_device(op) for op in a.ops] == [
        _without_device(op) for op in b.ops
    ]


def _without_device(op: Op) -> tuple[object, ...]:
    kwargs = {name: value for name, value in op.kwargs.items() if name != "device"}
    return (op.func, op.args, kwargs, op.outputs)
