"""One place for a constant: see `offsets`, which finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Offset:
    """The place for one consumer's constant.

    Attributes:
        weight: the consumer's weight, by name; `axis` holds what it reads, `out_axis` what it puts
            out.
        tensor: the bias or stored mean that takes the constant up; of kind "new", the name that a
            new bias will have.
        layer: the consumer.
        padded: it reads zeros around an image, so that at the border a constant unit makes less of
            its constant.
    """

    weight: str
    axis: int
    out_axis: int
    kind: Literal["bias", "mean", "new"]
    tensor: str
    layer: str
    padded: bool = False

    def constant(self, weight: Tensor, units: Tensor, shift: Tensor) -> Tensor:
        """W · shift in float64, by output channel: (out,).

        Args:
            units: int64 (axis size,), the unit of every index of the axis, -1 where it belongs to
                another group.
            shift: (width,).
        """
        values = shift.new_zeros(len(units))
        values[units >= 0] = shift[units[units >= 0]]
        rows = weight.detach().movedim((self.out_axis, self.axis), (0, 1))
        places = rows.reshape(*rows.shape[:2], -1)  # of a kernel
        table = (
            places.sum(2, dtype=torch.float64) if places.shape[2] > 1 else rows.flatten(1).double()
        )
        return table @ values.to(weight.device)
