"""The data sets that niwaki knows by name."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import ClassVar

from niwaki.core.errors import DataError, SettingError
from niwaki.data import cifar_batches, digits, imagefolder
from niwaki.data.dataset import Dataset, carve
from niwaki.data.idx import Idx
from niwaki.data.parquet import Parquet
from niwaki.data.source import Facts, FileSource, Source, sources
from niwaki.data.split import HeldSplit, Normalization, Split

DIGITS_TEST = 0.2  # the share that is kept for testing, as scikit-learn's digits come in one piece


def available() -> list[str]:
    """Names that `load` knows, sorted."""
    return sorted(sources)


def load(spec: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """The data set that `spec` names, with its settings: `cifar10`,
    `mnist:normalize=half,validation=0.2`.

    Files are looked for in `root` and in folders in it that are named after the data set. Without a
    root they are fetched from the Hugging Face hub, except for `digits`, which needs no files, and
    `imagefolder`, which needs a root. No image is read before its split is asked for.

    Raises:
        UnknownNameError: no such data set or setting; the nearest names are offered.
        SettingError: a setting of the wrong type or value.
        DataError: the files are not at `root`, or not whole.
        MissingExtraError: a library of niwaki[data] is missing (raised when a split is read).
    """
    return sources.build(spec).load(None if root is None else Path(root))


@sources.register("mnist")
@dataclasses.dataclass(frozen=True)
class Mnist(FileSource):
    """Hand-written digits, 28 × 28 grey (LeCun et al. 1998). Not normalised by default, as MINT
    trains on it.
    """

    facts: ClassVar = Facts("mnist", 10, (1, 28, 28), "ylecun/mnist", (Idx(), Parquet()))
    channels: ClassVar = 1
    statistics: ClassVar = {"standard": Normalization((0.1307,), (0.3081,))}
    normalize: str = "none"


@sources.register("fashion-mnist")
@dataclasses.dataclass(frozen=True)
class FashionMnist(FileSource):
    """Clothes, 28 × 28 grey (arXiv 1708.07747). "half" by default, as Neuron Merging's checkpoint
    needs it.
    """

    facts: ClassVar = Facts(
        "fashion-mnist", 10, (1, 28, 28), "zalando-datasets/fashion_mnist", (Idx(), Parquet())
    )
    channels: ClassVar = 1
    statistics: ClassVar = {"standard": Normalization((0.2860,), (0.3530,))}
    normalize: str = "half"


@sources.register("cifar10")
@dataclasses.dataclass(frozen=True)
class Cifar10(FileSource):
    """Photographs, 32 × 32 colour (Krizhevsky 2009).

    "standard" has the deviations of most pruning code, which are means of each image's own; "exact"
    has those over all pixels of the training images.
    """

    facts: ClassVar = Facts(
        "cifar10", 10, (3, 32, 32), "uoft-cs/cifar10", (cifar_batches.CIFAR10, Parquet())
    )
    channels: ClassVar = 3
    statistics: ClassVar = {
        "standard": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "exact": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    }


@sources.register("cifar100")
@dataclasses.dataclass(frozen=True)
class Cifar100(FileSource):
    """Photographs of 100 fine classes, 32 × 32 colour (Krizhevsky 2009).

    "cifar10" has CIFAR-10's numbers, which Neuron Merging normalises these images by too.
    """

    facts: ClassVar = Facts(
        "cifar100",
        100,
        (3, 32, 32),
        "uoft-cs/cifar100",
        (cifar_batches.CIFAR100, Parquet("fine_label")),
        label="fine_label",
    )
    channels: ClassVar = 3
    statistics: ClassVar = {
        "standard": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "cifar10": Cifar10.statistics["standard"],
    }


@sources.register("digits")
@dataclasses.dataclass(frozen=True)
class Digits(Source):
    """Hand-written digits, 8 × 8 grey, from scikit-learn; needs no files. A fixed fifth of every
    class is the test.
    """

    channels: ClassVar = 1
    statistics: ClassVar = {"standard": Normalization((0.3053,), (0.3760,))}

    def load(self, root: Path | None) -> Dataset:
        """`root` must be None."""
        if root is not None:
            raise SettingError(
                f"digits comes with scikit-learn and reads no files; leave out its root ({root})"
            )
        return Dataset("digits", 10, (1, 8, 8), self.normalization, self._read)

    def _read(self, name: str) -> dict[str, Split]:
        images, labels = digits.read()
        parts = carve(HeldSplit(images, labels, self.normalization), DIGITS_TEST, ("rest", "test"))
        # `validation` is a share of what is not tested on, as for the other data sets
        return {
            "test": parts["test"],
            **carve(parts["rest"], self.validation, ("train", "validation")),
        }


@sources.register("imagefolder")
@dataclasses.dataclass(frozen=True)
class ImageFolder(Source):
    """root/{train, val, test}/class/image, streamed; the centre of each image, `image_size` pixels
    square.

    "standard" has ImageNet's statistics.
    """

    channels: ClassVar = 3
    statistics: ClassVar = {"standard": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
    image_size: int = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 1:
            raise SettingError(f"image_size must be at least 1; got {self.image_size}")

    def load(self, root: Path | None) -> Dataset:
        """The classes are the folders in the first of train/, val/ and test/."""
        if root is None or not root.is_dir():
            raise DataError(
                f"imagefolder needs the folder that holds train/ and val/ as root; got {root}"
            )
        classes = imagefolder.class_names(root)
        read = functools.partial(
            imagefolder.read, root, classes, self.image_size, self.normalization, self.validation
        )
        shape = (self.channels, self.image_size, self.image_size)
        return Dataset("imagefolder", len(classes), shape, self.normalization, read)
