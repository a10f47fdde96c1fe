"""A part of a data set: labels, and images that come out in normalised batches."""

from __future__ import annotations

import abc
import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError

SplitT = TypeVar("SplitT", bound="Split")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """x = (pixel / 255 - mean) / std, one mean and std a colour channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:  # (n, channels, h, w) uint8 -> the same, float32
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)


class Split(abc.ABC):
    """Labelled images, `labels` (n,) int64 beside them; a subclass says where the pixels are."""

    def __init__(self, labels: Tensor, normalization: Normalization) -> None:
        self.labels = labels
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def mean(self) -> tuple[float, ...]:
        """Subtracted from every colour channel, of pixels in [0, 1]."""
        return self.normalization.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Every colour channel is divided by it."""
        return self.normalization.std

    @abc.abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """The images at `indices` (n,): (n, channels, height, width) uint8, on the split's
        device.
        """

    @abc.abstractmethod
    def take(self: SplitT, indices: Tensor) -> SplitT:
        """A split of the images at `indices` (n,), in that order; an index may come twice."""

    def to(self: SplitT, device: torch.device | str) -> SplitT:
        """The same split with everything that it holds on `device`; its batches come out there."""
        moved = copy.copy(self)
        moved.labels = self.labels.to(device)
        return moved

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of images (b, channels, height, width), float32 and normalised, and labels (b,),
        int64.

        Args:
            batch_size: images in every batch but perhaps the last.
            shuffle: in random order, another one each time.
            generator: where the order comes from; torch's global generator without it.
            limit: at most so many images, the first of the order.

        Raises:
            SettingError: a batch size or limit below 1.
        """
        for name, value in (("batch_size", batch_size), ("limit", limit)):
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}")
        return self._batches(batch_size, self._order(shuffle, generator)[:limit])

    def _order(self, shuffle: bool, generator: torch.Generator | None) -> Tensor:
        if not shuffle:
            return torch.arange(len(self), device=self.labels.device)
        where = generator.device if generator is not None else None
        return torch.randperm(len(self), generator=generator, device=where).to(self.labels.device)

    def _batches(self, batch_size: int, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            yield self.normalization(self.pixels(indices)), self.labels[indices]


class HeldSplit(Split):
    """All images in memory: `images` (n, channels, height, width) uint8."""

    def __init__(self, images: Tensor, labels: Tensor, normalization: Normalization) -> None:
        super().__init__(labels, normalization)
        self.images = images

    def pixels(self, indices: Tensor) -> Tensor:
        """The images at `indices`, a copy."""
        return self.images[indices]

    def take(self, indices: Tensor) -> HeldSplit:
        """A split of copies of the images at `indices`."""
        return HeldSplit(self.images[indices], self.labels[indices], self.normalization)

    def to(self, device: torch.device | str) -> HeldSplit:
        """The same split, with images and labels on `device`."""
        moved = super().to(device)
        moved.images = self.images.to(device)
        return moved


class StreamedSplit(Split):
    """Images in files, read when a batch needs them: `read` makes (channels, height, width) uint8
    of a path.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Tensor,
        normalization: Normalization,
        read: Callable[[Path], Tensor],
    ) -> None:
        super().__init__(labels, normalization)
        self.files = files
        self._read = read

    def pixels(self, indices: Tensor) -> Tensor:
        """The images at `indices`, read by as many threads as there are cores."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(self._read, (self.files[index] for index in indices.tolist())))
        return torch.stack(images).to(self.labels.device)

    def image(self, index: int) -> Tensor:
        """One image (channels, height, width) uint8, read now.

        Raises:
            DataError: the file is missing or damaged; the message names it.
        """
        return self._read(self.files[index])

    def take(self, indices: Tensor) -> StreamedSplit:
        """A split of the files at `indices`."""
        files = [self.files[index] for index in indices.tolist()]
        return StreamedSplit(files, self.labels[indices], self.normalization, self._read)
