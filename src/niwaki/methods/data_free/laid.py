"""Where the channels of a Gaussian stand in a value.

A value's axes may hold its channels in any order: behind a convolution they are axis 1, behind
`permute` and `view` they may be the fastest part of one long axis, behind a split into heads two
axes, behind a slice some of them only. So every entry of a value is labelled with its channel, and
with its place on the map that the channel came from. Views are done to the labels as to the value.

    x (2, 3, 5, 5)           channels (1, 3, 1, 1) = 0, 1, 2        places (1, 1, 5, 5) = 0 … 24
    x.flatten(1) (2, 75)     channels (1, 75) = 0, 0, …, 1, …, 2    places (1, 75) = 0 … 24, 0 …
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from niwaki.methods.data_free.gaussian import Gaussian


@dataclass(frozen=True, eq=False)
class Laid:
    """A Gaussian, and the labels of a value's entries.

    Attributes:
        channels, places: int64, as many axes as the value; an axis along which no label changes has
            size one.
        space: the sizes of the map that the places are of.
    """

    of: Gaussian
    channels: Tensor
    places: Tensor
    space: tuple[int, ...] = ()

    @classmethod
    def along(cls, of: Gaussian, axis: int, shape: tuple[int, ...]) -> Laid:
        """With its channels as one axis of a value of this shape; all axes but the first and that
        one are the map.
        """
        axis %= len(shape)
        space = tuple(size for i, size in enumerate(shape) if i not in (0, axis))
        map_shape = [1 if i in (0, axis) else size for i, size in enumerate(shape)]
        places = torch.arange(math.prod(space), device="cpu").view(map_shape)
        own_shape = [-1 if i == axis else 1 for i in range(len(shape))]
        return cls(of, torch.arange(of.size, device="cpu").view(own_shape), places, space)

    def viewed(self, shape: tuple[int, ...], view: Callable[[Tensor], Tensor]) -> Laid:
        """After a view of a value of this shape: the same one of the labels."""
        channels = _compressed(view(self.channels.expand(shape)))
        places = _compressed(view(self.places.expand(shape)))
        return replace(self, channels=channels, places=places)

    def on(self, axis: int, size: int) -> tuple[Tensor, Tensor] | None:
        """Channel and place of each entry of one axis of this size; None where the channels there
        are others from place to place.
        """
        axis %= self.channels.ndim
        if self.channels.numel() != self.channels.shape[axis]:
            return None
        if self.channels.numel() not in (1, size) or self.places.shape[axis] not in (1, size):
            return None
        places = self.places
        for other in range(places.ndim):
            if other != axis:
                places = places.narrow(other, 0, 1)
        return self.channels.flatten().expand(size), places.flatten().expand(size)

    def placed(self, shape: tuple[int, ...]) -> Laid:
        """The same channels in a value of this shape, over another map where that is another."""
        if _fits(self.places, shape):
            return self
        if len(shape) > 2 and self.channels.numel() == self.channels.shape[1]:
            return replace(Laid.along(self.of, 1, shape), channels=self.channels)
        nowhere = torch.zeros([1] * len(shape), dtype=torch.int64, device="cpu")
        return replace(self, places=nowhere, space=())

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the channels can stand so in a value of another shape."""
        return _fits(self.channels, shape)


def _fits(labels: Tensor, shape: tuple[int, ...]) -> bool:
    return labels.ndim == len(shape) and all(
        size in (1, wanted) for size, wanted in zip(labels.shape, shape, strict=True)
    )


def _compressed(labels: Tensor) -> Tensor:
    """With size one for every axis along which nothing changes."""
    for axis, size in enumerate(labels.shape):
        if size > 1 and labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
    for axis, size in enumerate(labels.shape):
        if size > 1 and bool((labels == labels.narrow(axis, 0, 1)).all()):
            labels = labels.narrow(axis, 0, 1)
    return labels


def matched(a: Laid, b: Laid) -> tuple[Laid, Gaussian, Gaussian] | None:
    """Two values that an operator joins entry by entry: how the result is laid, and the Gaussians
    of both in its channels; None where a channel of one meets several of the other both ways.
    """
    if a.of.size == b.of.size and torch.equal(a.channels, b.channels):
        return a, a.of.regular(), b.of.regular()
    for first, second, turned in ((a, b, False), (b, a, True)):
        partners = _partners(first, second)
        if partners is not None:
            mine, theirs = first.of.regular(), second.of.pick(partners).regular()
            return first, *((theirs, mine) if turned else (mine, theirs))
    return None


def _partners(first: Laid, second: Laid) -> Tensor | None:
    """Channel of the first → the one of the second that it always meets: (channels,)."""
    own, other = _together(first.channels, second.channels)
    partners = torch.full((first.of.size,), -1, device="cpu")
    partners[own] = other
    if bool((partners < 0).any()) or not torch.equal(partners[own], other):
        return None
    return partners


def averaged(laid: Laid, constant: Tensor) -> Tensor | None:
    """A constant tensor that is joined with a value, as a number for each channel: its mean over
    the entries that it meets; None where it is wider than the value.
    """
    sized = constant.numel() == 1 or constant.ndim <= laid.channels.ndim
    if not sized or not bool(torch.isfinite(constant).all()):
        return None
    channels, numbers = _together(laid.channels, constant.double())
    total = torch.zeros(laid.of.size, dtype=torch.float64, device="cpu")
    total.index_add_(0, channels, numbers)
    counts = torch.bincount(channels, minlength=laid.of.size)
    return total / counts.clamp(min=1)


def _together(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of two tensors that meet each other: (entries,) each."""
    first, second = torch.broadcast_tensors(a, b)
    return first.flatten(), second.flatten()
