"""A data set: what its images are like, and its splits, read when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from niwaki.core.errors import DataError, UnknownNameError
from niwaki.data.split import Normalization, Split

SPLITS = ("train", "validation", "test")
SEED = 20_25  # of every carved split: the same images for everyone, always


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """`split("train")`, `split("validation")` and `split("test")` of one kind of image.

    `input_shape` is (channels, height, width); `mean` and `std` are one number a channel, for
    pixels in [0, 1].
    """

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    normalization: Normalization
    # a split's name -> that split, and any other that was read with it
    read: Callable[[str], dict[str, Split]] = dataclasses.field(repr=False)
    _held: dict[str, Split] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def mean(self) -> tuple[float, ...]:
        """Subtracted from every colour channel, of pixels in [0, 1]."""
        return self.normalization.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Every colour channel is divided by it."""
        return self.normalization.std

    def split(self, name: str) -> Split:
        """The split called `name`; the first call reads and decodes it, later ones return the same
        object.

        Raises:
            UnknownNameError: not one of train, validation, test.
            DataError: its files are missing or damaged, or it is empty.
        """
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
        if name not in self._held:
            self._held.update(self.read(name))
        split = self._held[name]
        if not len(split):
            raise DataError(f"the {name} split of {self.name} is empty")
        return split


def carve(split: Split, share: float, names: tuple[str, str]) -> dict[str, Split]:
    """Cut `split` in two: `names[1]` gets `share` of every class, chosen by a fixed seed,
    `names[0]` the rest.
    """
    chosen = _stratified(split.labels, share)
    return {
        names[0]: split.take((~chosen).nonzero().flatten()),
        names[1]: split.take(chosen.nonzero().flatten()),
    }


def _stratified(labels: Tensor, share: float) -> Tensor:  # (n,) int64 -> (n,) bool
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(share * len(members))]]] = True
    return chosen
