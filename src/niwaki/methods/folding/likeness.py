"""How like each other the units of a group are, by what computes them.

A unit is described by the weights that write it, w, and its bias, b. Behind a normalisation, of
which the stored statistics say that the unit has mean β and deviation |γ|, that is γ·w/|w| and β:
under white inputs the squared distance of two descriptions is E|yᵢ - yⱼ|². Where one layer alone
writes the unit, a rectifier or something like it mostly follows, and the mean and deviation of
max(0, N(β, γ²)) take the places of β and |γ|, so that units that are mostly off are like each
other. Where several layers write into a stream their descriptions stand side by side, and so does
what is learned for a unit on its way (a layer scale, LayerNorm's factor and constant, a depthwise
kernel).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from niwaki.graph import Group, Normaliser, Role, Slice, Writer

COLUMNS = 4096  # of a description that are turned into float64 at once
TINY = 1e-150


def likeness(group: Group, state: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of the units' descriptions: (width, width), float64 on the CPU.

    A tensor on the way counts in all as much as one writer does on average: its numbers are of
    another kind.
    """
    alone = len(group.writers) == 1
    written = [_gram(group.width, _described(writer, state, alone)) for writer in group.writers]
    described = {
        (piece.tensor, piece.axis) for writer in group.writers for piece in _slices(writer)
    }
    rest = [
        piece
        for piece in group.slices
        if (piece.tensor, piece.axis) not in described and state[piece.tensor].is_floating_point()
    ]
    written += [
        _gram(group.width, [piece.rows(state)]) for piece in rest if piece.role is Role.PRODUCER
    ]
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


def _described(writer: Writer, state: Mapping[str, Tensor], alone: bool) -> Iterator[Tensor]:
    if writer.norm is None:
        yield from (piece.rows(state) for piece in writer.slices)
        return
    sizes = (
        torch.cat([piece.rows(state) for piece in writer.weights], 1)
        .double()
        .norm(dim=1, keepdim=True)
        .cpu()
    )
    mean, deviation = _put_out(writer.norm, state, sizes)
    if alone:
        mean, size = _rectified(mean, deviation.abs())
        deviation = size * deviation.sign()
    for piece in writer.weights:
        yield piece.rows(state).double().cpu() * (deviation / sizes.clamp(min=TINY))
    yield mean


def _put_out(norm: Normaliser, state: Mapping[str, Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
    """β, and γ where the unit has weights at all: (width, 1) each."""
    shift = _values(norm.shift, state) if norm.shift else torch.zeros_like(sizes)
    scale = _values(norm.scale, state) if norm.scale else torch.ones_like(sizes)
    return shift, scale * (sizes > 0)


def _rectified(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of what a rectifier makes of Gaussians."""
    place = mean / deviation.clamp(min=TINY)
    below, density = (
        torch.special.ndtr(place),
        torch.exp(-place.square() / 2) / math.sqrt(2 * math.pi),
    )
    first = mean * below + deviation * density
    second = (mean.square() + deviation.square()) * below + mean * deviation * density
    return first, (second - first.square()).clamp(min=0).sqrt()


def _values(piece: Slice, state: Mapping[str, Tensor]) -> Tensor:
    return piece.rows(state).double().cpu()


def _slices(writer: Writer) -> Iterator[Slice]:
    yield from writer.slices
    if writer.norm is not None:
        pieces = (writer.norm.scale, writer.norm.shift, writer.norm.mean, writer.norm.var)
        yield from (piece for piece in pieces if piece is not None)
