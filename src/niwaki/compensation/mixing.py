"""A mixing: how the kept units of a group make up for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixing:
    """unit ≈ matrix · kept units, folded into the consumers: W' = W · matrix.

    Attributes:
        matrix: float64 (width, kept). Plain pruning is the matrix that selects rows.
    """

    matrix: Tensor

    @classmethod
    def selecting(cls, width: int, units: Sequence[int]) -> Mixing:
        """The mixing of plain pruning: kept units are themselves, the others are zero."""
        matrix = torch.zeros(width, len(units), dtype=torch.float64)
        matrix[list(units), range(len(units))] = 1
        return cls(matrix)
