"""A Gaussian in the place of a value: one mean and one covariance over the channels, the same at
every place.

Of many channels only those of one block of neighbours are taken to be correlated, so that time and
memory grow with the width and not with its square.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from niwaki.methods.data_free.mehler import TINY, expansion, series

BLOCK = 1024  # channels that are correlated with each other at most
EXACT = 64  # up to so many channels in float64


def bounds(channels: int) -> list[tuple[int, int]]:
    """Where the blocks of so many channels begin and end: as few as may be, of nearly one size.

    >>> bounds(2049)
    [(0, 683), (683, 1366), (1366, 2049)]
    """
    blocks = max(1, -(-channels // BLOCK))
    ends = [channels * number // blocks for number in range(blocks + 1)]
    return list(itertools.pairwise(ends))


def precision(channels: int) -> torch.dtype:
    """What covariances of so many channels are computed in."""
    return torch.float64 if channels <= EXACT else torch.float32


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Channels of a value.

    Attributes:
        mean: float64 (channels,).
        blocks: covariances of consecutive channels, (size, size) each; between blocks there is
            none.
    """

    mean: Tensor
    blocks: tuple[Tensor, ...]

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """Of one covariance (channels, channels), of which only the blocks are kept."""
        form = precision(len(mean))
        blocks = tuple(covariance[a:b, a:b].to(form) for a, b in bounds(len(mean)))
        return cls(mean.double(), blocks)

    @classmethod
    def white(cls, channels: int) -> Gaussian:
        """Zero mean, unit covariance."""
        form = precision(channels)
        blocks = tuple(torch.eye(b - a, dtype=form, device="cpu") for a, b in bounds(channels))
        return cls(torch.zeros(channels, dtype=torch.float64, device="cpu"), blocks)

    @classmethod
    def joined(cls, parts: Sequence[Gaussian]) -> Gaussian:
        """The channels of several, one behind the other, each part independent of the others."""
        mean = torch.cat([part.mean for part in parts])
        return cls(mean, tuple(block for part in parts for block in part.blocks)).regular()

    @property
    def size(self) -> int:
        return len(self.mean)

    @property
    def variance(self) -> Tensor:
        """Float64 (channels,)."""
        return torch.cat([block.diagonal() for block in self.blocks]).double()

    @property
    def covariance(self) -> Tensor:
        """All of it: (channels, channels), zero between blocks."""
        whole: Tensor = torch.block_diag(*self.blocks)
        return whole

    @property
    def finite(self) -> bool:
        """Whether it holds no NaN and nothing infinite."""
        tensors = (self.mean, *self.blocks)
        return all(bool(torch.isfinite(tensor.sum())) for tensor in tensors)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last channel of each block."""
        ends = [0]
        for block in self.blocks:
            ends.append(ends[-1] + len(block))
        return list(itertools.pairwise(ends))

    def between(self, channels: Tensor) -> Tensor:
        """The covariance of some channels, in any order and also several times: (n, n)."""
        if len(self.blocks) == 1:
            return self.blocks[0][channels][:, channels]
        picked = self.blocks[0].new_zeros(len(channels), len(channels))
        for block, (start, stop) in zip(self.blocks, self.spans, strict=True):
            here = ((channels >= start) & (channels < stop)).nonzero().flatten()
            inside = channels[here] - start
            picked[here[:, None], here] = block[inside][:, inside].to(picked.dtype)
        return picked

    def pick(self, channels: Tensor) -> Gaussian:
        """Some channels, in any order and also several times."""
        if torch.equal(channels, torch.arange(self.size, device="cpu")):
            return self
        form = precision(len(channels))
        blocks = tuple(self.between(channels[a:b]).to(form) for a, b in bounds(len(channels)))
        return Gaussian(self.mean[channels], blocks)

    def regular(self) -> Gaussian:
        """With blocks that begin and end where those of any other of this size do."""
        if self.spans == bounds(self.size) and self.blocks[0].dtype == precision(self.size):
            return self
        every = torch.arange(self.size, device="cpu")
        form = precision(self.size)
        blocks = tuple(self.between(every[a:b]).to(form) for a, b in bounds(self.size))
        return Gaussian(self.mean, blocks)

    def scaled(self, factor: Tensor) -> Gaussian:
        """Each channel times a number."""
        blocks = []
        for block, (start, stop) in zip(self.blocks, self.spans, strict=True):
            part = factor[start:stop].to(block.dtype)
            blocks.append(block * part[:, None] * part)
        return Gaussian(self.mean * factor, tuple(blocks))

    def shifted(self, constant: Tensor) -> Gaussian:
        """A number added to each channel."""
        return replace(self, mean=self.mean + constant)

    def plus(self, other: Gaussian, factor: float = 1.0) -> Gaussian:
        """This and a multiple of an independent one of the same channels."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        blocks = tuple(a.add(b, alpha=factor**2) for a, b in pairs)
        return Gaussian(self.mean + factor * other.mean, blocks)

    def times(self, other: Gaussian) -> Gaussian:
        """This times an independent one of the same channels."""
        blocks = []
        for a, b, (start, stop) in zip(self.blocks, other.blocks, self.spans, strict=True):
            mine = self.mean[start:stop].to(a.dtype)
            theirs = other.mean[start:stop].to(a.dtype)
            blocks.append(a * b + a * torch.outer(theirs, theirs) + b * torch.outer(mine, mine))
        return Gaussian(self.mean * other.mean, tuple(blocks))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Gaussian | None:
        """An element-wise function of the values, by Mehler's formula; None where it is defined
        for none of them.
        """
        scale = self.variance.clamp(min=TINY).sqrt()
        expanded = expansion(function, self.mean, scale)
        if expanded is None:
            return None
        mean, variance, coefficients = expanded
        blocks = []
        for block, (start, stop) in zip(self.blocks, self.spans, strict=True):
            here = slice(start, stop)
            blocks.append(series(block, scale[here], coefficients[here], variance[here]))
        return Gaussian(mean, tuple(blocks))
