"""A mixing: how the kept units of a group make up for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixing:
    """unit ≈ matrix · kept units + shift, folded into the consumers: W' = W · matrix, bias' = bias
    + W · shift.

    By definition the term W · shift is added to what a consumer puts out, at every place of it: at
    the zero-padded border of a convolution, where part of W lies outside the image, the constant is
    that of the inside.

    Attributes:
        matrix: float64 (width, kept). Plain pruning is the matrix that selects rows.
        shift: float64 (width,), or None for none.
        readers: consumer weight by name → its own mixing, where one for all consumers would be a
            compromise.
    """

    matrix: Tensor
    shift: Tensor | None = None
    readers: Mapping[str, Mixing] = field(default_factory=dict)

    @classmethod
    def selecting(cls, width: int, units: Sequence[int]) -> Mixing:
        """The mixing of plain pruning: kept units are themselves, the others are zero."""
        matrix = torch.zeros(width, len(units), dtype=torch.float64, device="cpu")
        matrix[list(units), range(len(units))] = 1
        return cls(matrix)

    def at(self, reader: str | None) -> Mixing:
        """The mixing of one consumer weight."""
        return self.readers.get(reader, self) if reader is not None else self

    @property
    def shifted(self) -> bool:
        """Whether a constant goes with it, for any consumer."""
        return self.shift is not None or any(
            mixing.shift is not None for mixing in self.readers.values()
        )
