"""Which places of a map are looked at: a few of each input, evenly spread over it, and others in
every input.

The same few places in all inputs would tell of those places only: on an image of 32 × 32, with its
borders padded, four or eight of them can be off by tens of points of accuracy. Where an input's
places lie is drawn from its own values, so that neither the batches nor the order in which inputs
come change what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.running import Inputs, batch_size, tensors_in

GOLDEN = (math.sqrt(5) - 1) / 2
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Places:
    """A few places of maps that a batch of inputs gave.

    Attributes:
        most: places of an input at most; None: all.
        starts: (inputs,), in [0, 1): where the places of each begin.
    """

    most: int | None
    starts: Tensor

    @classmethod
    def of(cls, inputs: Inputs, most: int | None) -> Places:
        """Those of a batch of model inputs."""
        return cls(most, _drawn(inputs))

    def __call__(self, maps: Tensor) -> Tensor:
        """(n, channels, places) → (n, channels, at most `most`); n is the number of inputs or a
        multiple of it (windows).
        """
        count, channels, there = maps.shape
        if self.most is None or there <= self.most:
            return maps
        stretches = torch.arange(self.most, dtype=torch.float64, device="cpu")
        # one in each of as many equal stretches, within it by the golden ratio: even over rows and
        # columns of any width
        inside = (stretches * GOLDEN + self._starts(count)[:, None]).frac()
        chosen = ((stretches + inside) * there / self.most).long().clamp(max=there - 1)
        return maps.gather(2, chosen.to(maps.device)[:, None].expand(-1, channels, -1))

    def _starts(self, count: int) -> Tensor:
        parts, rest = divmod(count, len(self.starts))
        if rest:  # the first axis is not that of the inputs
            return torch.zeros(count, dtype=torch.float64, device="cpu")
        within = torch.arange(count, dtype=torch.float64, device="cpu").remainder(
            parts
        ) * math.sqrt(2)
        return (self.starts.repeat_interleave(parts) + within).frac()


def _drawn(inputs: Inputs) -> Tensor:
    """A number in [0, 1) for each input, out of all its bits: whole numbers, whose sum is the same
    in any order.
    """
    size = batch_size(inputs)
    total = torch.zeros(size, dtype=torch.int64, device="cpu")
    for tensor in _samples(inputs, size):
        bits = (
            tensor.contiguous().view(BITS[tensor.element_size()])
            if tensor.is_floating_point()
            else tensor
        )
        total += bits.reshape(size, -1).sum(1, dtype=torch.int64).cpu()
    return (total * 2654435761).remainder(2**32).double() / 2**32  # Knuth's multiplicative hash


def _samples(inputs: Inputs, size: int) -> Iterator[Tensor]:
    for tensor in tensors_in(inputs):
        if (
            tensor.ndim
            and len(tensor) == size
            and tensor.numel()
            and not tensor.is_complex()
            and not tensor.is_quantized
            and tensor.layout == torch.strided
        ):
            yield tensor
