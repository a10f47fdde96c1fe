"""How like each other the units of a group are, by what computes them.

A unit is described by the weights that write it, put through the normalisation behind them: y = γ/σ·(w·h + b - μ) + β has the
weights γ/σ·w and the bias β + γ/σ·(b - μ). Under white inputs h of the size that the stored variances speak of,
τ² = mean(σ²/|w|²), the squared distance of two such descriptions is E|yᵢ - yⱼ|². Where several layers write into a stream
their descriptions stand side by side, and so does what is learned for a unit on its way (a layer scale, LayerNorm's factor
and constant, a depthwise kernel).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from niwaki.graph.types import Group, Normaliser, Role, Slice, Writer

COLUMNS = 4096  # of a description that are turned into float64 at once
TINY = 1e-300


def likeness(group: Group, state: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of the units' descriptions: (width, width), float64 on the CPU.

    A tensor on the way counts in all as much as one writer does on average: its numbers are of another kind.
    """
    written = [_gram(group.width, _described(writer, state)) for writer in group.writers]
    told = {(piece.tensor, piece.axis) for writer in group.writers for piece in _slices(writer)}
    rest = [
        piece for piece in group.slices if (piece.tensor, piece.axis) not in told and state[piece.tensor].is_floating_point()
    ]
    written += [_gram(group.width, [piece.rows(state)]) for piece in rest if piece.role is Role.PRODUCER]
    total = sum(written, torch.zeros(group.width, group.width, dtype=torch.float64, device="cpu"))
    level = float(total.trace()) / max(1, len(written))
    for piece in (piece for piece in rest if piece.role is Role.CARRIER):
        carried = _gram(group.width, [piece.rows(state)])
        total += carried * (level / max(float(carried.trace()), TINY))
    return total


def _gram(width: int, blocks: Iterator[Tensor] | list[Tensor]) -> Tensor:
    total = torch.zeros(width, width, dtype=torch.float64, device="cpu")
    for rows in blocks:
        for piece in torch.split(rows, COLUMNS, 1):
            columns = piece.double().cpu()
            total += columns @ columns.T
    return total


def _described(writer: Writer, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    bias = writer.bias.rows(state).double().cpu() if writer.bias else None
    if writer.norm is None:
        yield from (piece.rows(state) for piece in writer.weights)
        if bias is not None:
            yield bias
        return
    factor, constant = _affine(writer.norm, state)
    sizes = torch.cat([piece.rows(state) for piece in writer.weights], 1).double().square().sum(1).cpu()
    variance = _values(writer.norm.var, state) + writer.norm.eps
    reach = (variance / sizes)[sizes > 0].mean().nan_to_num(1.0).sqrt()
    for piece in writer.weights:
        yield piece.rows(state).double().cpu() * factor * reach
    yield constant if bias is None else constant + factor * bias


def _affine(norm: Normaliser, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """γ/σ and β - γ/σ·μ: (width, 1) each."""
    sigma = (_values(norm.var, state) + norm.eps).sqrt()
    factor = (_values(norm.scale, state) if norm.scale else 1.0) / sigma
    constant = (_values(norm.shift, state) if norm.shift else 0.0) - factor * _values(norm.mean, state)
    return factor[:, None], constant[:, None]


def _values(piece: Slice, state: Mapping[str, Tensor]) -> Tensor:
    return piece.rows(state).double().cpu().squeeze(1)


def _slices(writer: Writer) -> Iterator[Slice]:
    yield from writer.slices
    if writer.norm is not None:
        pieces = (writer.norm.scale, writer.norm.shift, writer.norm.mean, writer.norm.var)
        yield from (piece for piece in pieces if piece is not None)
