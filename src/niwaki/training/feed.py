"""Training batches of a split: in a new order and newly augmented each epoch, and the same again
for the same seed.

All chance of an epoch is drawn at its start from (seed, epoch), so that training can go on from any
batch of any epoch without the ones before it. Held images are augmented in batches on their device,
as uint8; images in files are read ahead by a DataLoader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from niwaki.core.errors import DataError, SettingError, UnknownNameError
from niwaki.data import HeldSplit, Split, StreamedSplit
from niwaki.training.augment import Augment, alternating

Missing = Literal["refuse", "skip"]
Batch = tuple[Tensor, Tensor]
_NONE = Augment(pad=0, flip=False)


@dataclass(frozen=True)
class FeedSettings:
    """How a split becomes batches.

    Attributes:
        batch_size: images a step, of all processes together.
        augment: None leaves the images as they are.
        drop_last: leave out the last batch where it is smaller than the others.
        missing: what to do about a file that cannot be read any more: "refuse" ends the training
            and names it, "skip" goes on without it and counts it.
        sizes: (epoch, pixels) pairs: from that epoch on, images are scaled to so many pixels a
            side; ((1, 24), (9, 32)) begins small and quick. The network must take such images.
        workers: processes that read image files ahead; 0 reads them in this one.
    """

    batch_size: int = 64
    augment: Augment | None = None
    seed: int = 0
    drop_last: bool = False
    missing: Missing = "refuse"
    workers: int = 0
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.sizes]
        if epochs != sorted(set(epochs)) or any(min(pair) < 1 for pair in self.sizes):
            raise SettingError(
                "sizes are (epoch, pixels) pairs of whole numbers, later epochs last; got "
                f"{self.sizes!r}"
            )
        if self.missing not in get_args(Missing):
            raise UnknownNameError("missing", self.missing, get_args(Missing))
        for name, value, least in (
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise SettingError(
                    f"{name} must be a whole number of at least {least}; got {value!r}"
                )


class Feed:
    """Batches of a split for `niwaki.training.fit`: float32 and normalised (b, channels, height,
    width), labels (b,).

    Attributes:
        skipped: path → how often it was left out because it could not be read.
    """

    def __init__(self, split: Split, settings: FeedSettings) -> None:
        self.split = split
        self.settings = settings
        self.skipped: dict[str, int] = {}

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self.split), self.settings.batch_size)
        return whole + bool(rest and not self.settings.drop_last)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """All batches of an epoch."""
        return self.batches(epoch)

    def batches(
        self, epoch: int, start: int = 0, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """The batches of an epoch from the `start`-th on.

        Args:
            part: (process, processes): each process gets an equal part of every batch; the few
                images that are left over in the last one go to none.

        Raises:
            DataError: a file cannot be read, and `missing` is "refuse".
        """
        generator = torch.Generator().manual_seed(
            (self.settings.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63
        )
        order = torch.randperm(len(self.split), generator=generator)
        augment = self.settings.augment or _NONE
        drawn = augment.draw(len(order), generator)
        if augment.flip == "alternate":
            drawn[:, 2] = alternating(order, self.settings.seed, epoch)
        drawn = drawn.to(self.split.labels.device)
        size = self.settings.batch_size
        starts = range(start * size, len(self) * size, size)
        places = [_part(range(first, min(first + size, len(order))), part) for first in starts]
        for pixels, labels, taken in self._read(order, [place for place in places if place]):
            images = pixels if self.settings.augment is None else augment(pixels, drawn[taken])
            yield self._scaled(self.split.normalization(images), epoch), labels

    def _scaled(self, images: Tensor, epoch: int) -> Tensor:
        """Images of the epoch's size."""
        begun = [pixels for first, pixels in self.settings.sizes if first <= epoch]
        if not begun or images.shape[-2:] == (begun[-1], begun[-1]):
            return images
        size = (begun[-1], begun[-1])
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def _read(
        self, order: Tensor, places: list[range]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | slice]]:
        """Pixels and labels of each batch, and the places in the order that they came from."""
        if isinstance(self.split, StreamedSplit):
            yield from self._stream(self.split, order, places)
            return
        order = order.to(self.split.labels.device)
        for place in places:
            taken = slice(place.start, place.stop)
            indices = order[taken]
            yield self.split.pixels(indices), self.split.labels[indices], taken

    def _stream(
        self, split: StreamedSplit, order: Tensor, places: list[range]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        device = split.labels.device
        loader = DataLoader(
            _Files(split.to("cpu"), order.tolist()),
            batch_sampler=[list(place) for place in places],
            collate_fn=_collate,
            num_workers=self.settings.workers,
        )
        for images, labels, taken, lost in loader:
            for path, problem in lost:
                if self.settings.missing == "refuse":
                    raise DataError(
                        f"{problem}; put it back, or train with missing='skip' to go on without it"
                    )
                self.skipped[path] = self.skipped.get(path, 0) + 1
            if len(images):
                yield images.to(device, non_blocking=True), labels.to(device), taken.to(device)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the run must know."""
        if not self.skipped:
            return ()
        first = next(iter(self.skipped))
        return (
            (
                f"{len(self.skipped)} files could not be read and were left out, the first of them "
                f"{first}"
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Everything that the batches depend on, as plain data."""
        given = self.settings
        return {
            "images": len(self.split),
            "held": isinstance(self.split, HeldSplit),
            "batch_size": given.batch_size,
            "augment": str(given.augment),
            "data_seed": given.seed,
            "drop_last": given.drop_last,
            **({"sizes": [list(pair) for pair in given.sizes]} if given.sizes else {}),
            "labels": int(
                self.split.labels.cpu()
                .double()
                .dot(torch.arange(len(self.split), dtype=torch.float64))
                .item()
            ),
        }


def _part(places: range, part: tuple[int, int]) -> range:
    number, of = part
    share = len(places) // of
    return places[number * share : (number + 1) * share]


@dataclass(frozen=True)
class _Image:
    pixels: Tensor
    label: int
    place: int


Lost = tuple[str, str]  # the path of a file, and what is wrong with it


class _Files(Dataset[Any]):
    """Places in an epoch's order → images. What cannot be read is an item too: an error would come
    back from another process as the text of a traceback."""

    def __init__(self, split: StreamedSplit, order: list[int]) -> None:
        self.split = split
        self.order = order

    def __getitem__(self, place: int) -> _Image | Lost:
        index = self.order[place]
        try:
            return _Image(self.split.image(index), int(self.split.labels[index]), place)
        except (DataError, OSError) as error:
            return str(self.split.files[index]), str(error)


def _collate(items: list[_Image | Lost]) -> tuple[Tensor, Tensor, Tensor, list[Lost]]:
    read = [item for item in items if isinstance(item, _Image)]
    images = torch.stack([item.pixels for item in read]) if read else torch.empty(0)
    labels = torch.tensor([item.label for item in read], dtype=torch.int64)
    places = torch.tensor([item.place for item in read], dtype=torch.int64)
    return images, labels, places, [item for item in items if not isinstance(item, _Image)]
