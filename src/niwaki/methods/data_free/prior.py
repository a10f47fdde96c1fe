"""What is taken for granted of inputs: how neighbouring places of a map are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """What is taken for granted of neighbouring places: correlation w at none but the same place, 1
    - w decaying.
    """

    white: float = 0.2
    reach: float = 3.0  # places

    def correlation(self, sizes: tuple[int, ...], steps: tuple[int, ...] | None = None) -> Tensor:
        """Of all places of a grid with each other: (places, places)."""
        axes = [
            torch.arange(size, dtype=torch.float64, device="cpu") * step
            for size, step in zip(sizes, steps or (1,) * len(sizes), strict=True)
        ]
        grid = (
            torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
            if axes
            else torch.zeros(1, 1, device="cpu")
        )
        near = torch.exp(-torch.cdist(grid, grid) / self.reach)
        return (1 - self.white) * near.double() + self.white * torch.eye(
            len(grid), dtype=torch.float64, device="cpu"
        )
