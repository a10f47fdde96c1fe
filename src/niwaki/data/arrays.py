"""What every reader of held images returns, and the checks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from niwaki.core.errors import DataError


class Arrays(NamedTuple):
    """Decoded images and their labels."""

    images: Tensor  # (n, channels, height, width) uint8
    labels: Tensor  # (n,) int64


class Layout(Protocol):
    """One way in which a data set lies in a folder."""

    def files(self, folder: Path, split: str) -> list[Path]:
        """The files of "train" or "test" in `folder`, empty where it has none of this layout.

        Raises:
            DataError: some of them are there and others are missing.
        """

    def read(self, files: Sequence[Path], channels: int) -> Arrays:
        """Decode what `files` found.

        Raises:
            DataError: a file is damaged; the message names it.
        """

    def wanted(self, split: str) -> str:
        """The names that `files` looks for, for messages."""


def checked(arrays: Arrays, classes: int, input_shape: tuple[int, int, int], where: str) -> Arrays:
    """The same arrays, if they are what the data set promises.

    Raises:
        DataError: images and labels differ in number, images are of another shape, or a label is
            out of range.
    """
    images, labels = arrays
    if len(images) != len(labels):
        raise DataError(
            f"{where}: {len(images)} images but {len(labels)} labels; the files do not belong "
            "together"
        )
    if not len(labels):
        raise DataError(f"{where}: no images in it")
    if tuple(images.shape[1:]) != input_shape:
        raise DataError(
            f"{where}: images of shape {tuple(images.shape[1:])}; expected {input_shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{where}: labels from {low} to {high}; this data set has classes 0 to {classes - 1}"
        )
    return arrays
