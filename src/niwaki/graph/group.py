"""Groups of channels that live or die together, and what they are made of; `groups` finds them."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph.reasons import Reason


class Role(enum.Enum):
    """What a tensor slice does with its units."""

    PRODUCER = "producer"  # writes the unit: an output row of a Linear
    CARRIER = "carrier"  # passes it on: BatchNorm, bias, depthwise kernel
    CONSUMER = "consumer"  # reads it: an input column of a Linear


@dataclass(frozen=True, eq=False)
class Slice:
    """Which indices of one axis of one parameter or buffer belong to which unit.

    Attributes:
        units: int64 (axis size,), the unit of every index, -1 where it belongs to another group.
    """

    tensor: str
    axis: int
    role: Role
    units: Tensor

    def rows(self, state: Mapping[str, Tensor]) -> Tensor:
        """The tensor's entries by unit: (width, entries a unit); a complex one is two entries. Not
        to be written into: where each index is a unit, it is the tensor's own memory.
        """
        data = state[self.tensor].detach().movedim(self.axis, 0)
        data = torch.view_as_real(data) if data.is_complex() else data
        order = torch.argsort(self.units, stable=True)
        order = order[self.units[order] >= 0]
        width = int(self.units.max()) + 1
        if not torch.equal(order, torch.arange(len(data), device=order.device)):
            data = data[order.to(data.device)]
        return data.reshape(width, -1)


@dataclass(frozen=True)
class Scale:
    """A learned factor a unit: of BatchNorm, LayerNorm, GroupNorm or RMSNorm, or a layer scale.

    Attributes:
        bounded: the factor is sigmoid(entry) and not the entry itself.
    """

    piece: Slice
    bounded: bool


@dataclass(frozen=True)
class Normaliser:
    """A normalisation by stored statistics: out = (x - mean)/sqrt(var + eps)·scale + shift, tensors
    by name.
    """

    scale: Slice | None
    shift: Slice | None
    mean: Slice
    var: Slice
    eps: float


@dataclass(frozen=True)
class Writer:
    """One layer that computes the units of a group, up to its normalisation.

    Attributes:
        weights: the tensors whose rows are the units; several where a parametrisation makes the
            weight of them.
        norm: the normalisation that follows at once, if one does.
    """

    layer: str
    weights: tuple[Slice, ...]
    bias: Slice | None
    norm: Normaliser | None

    def rows(self, state: Mapping[str, Tensor]) -> Tensor:
        """Weights and bias by unit: (width, weights a unit + biases a unit)."""
        return torch.cat([piece.rows(state) for piece in self.slices], 1)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The weights, and the bias where there is one."""
        return (*self.weights, *([self.bias] if self.bias else []))


@dataclass(frozen=True)
class Group:
    """Channels of several tensors that must live or die together, index by index.

    Attributes:
        name: the layers that produce the units; the first of them where there are several.
        width: how many units.
        layers: names of all producing layers.
        scaling_obstacle: why c times a unit before its non-linearity is not c times the unit where
            it is read (c ≥ 0); None where it is, so that one unit can stand in for another.
        fold_obstacle: why a mixing of units cannot be folded into the consumers' weights; None
            where it can.
        normalised: the operator that takes statistics over the units, of the kept ones alone once
            some are gone; None where none does.
        scales: learned factors that the units are multiplied by, in every normalisation that they
            go through.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    slices: tuple[Slice, ...]
    writers: tuple[Writer, ...]
    scaling_obstacle: str | None = None
    fold_obstacle: str | None = None
    normalised: str | None = None
    scales: tuple[Scale, ...] = ()

    def of_role(self, role: Role) -> tuple[Slice, ...]:
        """The slices of one role."""
        return tuple(piece for piece in self.slices if piece.role is role)

    @property
    def multiplies(self) -> bool:
        """Whether a multiple of a unit can be read in the place of another, because it stays that
        multiple until then.
        """
        return self.scaling_obstacle is None and self.normalised is None

    def blocks(self, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """All that is learned to compute each unit, weights and biases of its producers: (width,
        features) a tensor.
        """
        pieces = [piece for writer in self.writers for piece in writer.slices] or self.of_role(
            Role.PRODUCER
        )
        for piece in pieces:
            yield piece.rows(state)

    def rows(self, state: Mapping[str, Tensor]) -> Tensor:
        """The same side by side: (width, features)."""
        return torch.cat(list(self.blocks(state)), 1)


@dataclass(frozen=True)
class Frozen:
    """Channels that keep their number, and why."""

    layer: str
    width: int
    reason: Reason
