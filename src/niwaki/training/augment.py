"""Random crops and flips of whole batches of uint8 images, where the images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from niwaki.errors import SettingError, UnknownNameError

Border = Literal["reflect", "zero"]


@dataclass(frozen=True)
class Augment:
    """Shift by up to `pad` pixels each way, and mirror left to right every other time.

    Attributes:
        pad: pixels; 0 shifts nothing.
        border: what comes in at the edge: the image reflected, or black.
        flip: whether images are mirrored at all.
    """

    pad: int = 4
    border: Border = "reflect"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.border not in get_args(Border):
            raise UnknownNameError("border", self.border, get_args(Border))
        if not isinstance(self.pad, int) or self.pad < 0:
            raise SettingError(f"pad must be a whole number of pixels of at least 0; got {self.pad!r}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """What is to be done to each of so many images: (count, 3) int64, shift down, shift right, mirrored."""
        shifts = torch.randint(-self.pad, self.pad + 1, (count, 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (count, 1), generator=generator)
        return torch.cat([shifts, flips], 1)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images (b, channels, height, width), augmented as `drawn` (b, 3) says; the same shape and dtype.

        Raises:
            SettingError: the images are not larger than the pad that is to reflect them.
        """
        height, width = images.shape[2:]
        if self.border == "reflect" and self.pad >= min(height, width):
            raise SettingError(f"pad={self.pad} reflects more than an image of {height} × {width} has; use a smaller one")
        rows = torch.arange(height, device=images.device) + drawn[:, :1]  # (b, height): the source of every row
        columns = torch.arange(width, device=images.device).expand(len(images), -1)
        columns = torch.where(drawn[:, 2:].bool(), columns.flip(1), columns) + drawn[:, 1:2]
        outside = (_outside(rows, height)[:, :, None] | _outside(columns, width)[:, None, :]).flatten(1)
        rows, columns = _inside(rows, height), _inside(columns, width)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (b, height · width): one gather, no padded copy
        moved = images.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1))
        if self.border == "zero":
            moved = moved.masked_fill(outside[:, None], 0)
        return moved.view_as(images)


def _outside(places: Tensor, size: int) -> Tensor:
    return (places < 0) | (places >= size)


def _inside(places: Tensor, size: int) -> Tensor:
    """Places beyond an edge, reflected at it."""
    return (size - 1 - (size - 1 - places.abs()).abs()).clamp(0, size - 1)
