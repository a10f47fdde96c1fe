"""The python files of CIFAR-10 and CIFAR-100: pickles of one dict (format:
www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from niwaki.core.errors import DataError
from niwaki.data.arrays import Arrays

SIDE = 32  # pixels
# all that a pickled numpy array needs, under the module names of numpy 1 and 2 and of pickles made
# by Python 2
ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class _Refused(pickle.UnpicklingError):
    pass


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows numpy arrays and nothing else that could run."""

    def find_class(
        self, module: str, name: str
    ) -> Any:  # the type in the standard library's own signature
        if (module, name) not in ALLOWED:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


@dataclass(frozen=True)
class CifarBatches:
    """`train` and `test` are the names of a split's files; `label` is the key of their labels."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    label: str

    def wanted(self, split: str) -> str:
        """The names that `files` looks for, for messages."""
        return ", ".join(self._names(split))

    def files(self, folder: Path, split: str) -> list[Path]:
        """All batches of the split, in order."""
        names = self._names(split)
        paths = [folder / name for name in names if (folder / name).is_file()]
        if paths and len(paths) < len(names):
            missing = sorted(set(names) - {path.name for path in paths})
            raise DataError(f"{folder} lacks {', '.join(missing)}; unpack the data set again")
        return paths

    def read(self, files: Sequence[Path], channels: int) -> Arrays:
        """Decode and join the batches."""
        images, labels = zip(*(self._read_one(path, channels) for path in files), strict=True)
        return Arrays(torch.cat(images), torch.cat(labels))

    def _names(self, split: str) -> tuple[str, ...]:
        return self.train if split == "train" else self.test

    def _read_one(self, path: Path, channels: int) -> Arrays:
        content = _unpickle(path)
        if not isinstance(content, dict):
            raise DataError(
                f"{path} holds a {type(content).__name__}, not the dict of a CIFAR batch"
            )
        # Python 2 wrote the keys as bytes
        content = {
            key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()
        }
        pixels, labels = content.get("data"), content.get(self.label)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise DataError(f"{path} has no 'data' of unsigned bytes, one row an image")
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise DataError(f"{path} has no {self.label!r}, a list of integers")
        if pixels.shape[1] != channels * SIDE**2:
            raise DataError(
                f"{path} has rows of {pixels.shape[1]} bytes; an image has {channels * SIDE**2}"
            )
        if len(labels) != len(pixels):
            raise DataError(f"{path}: {len(pixels)} images but {len(labels)} labels")
        images = torch.from_numpy(pixels.reshape(-1, channels, SIDE, SIDE).copy())
        return Arrays(images, torch.tensor(labels, dtype=torch.int64))


def _unpickle(path: Path) -> object:
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except _Refused as error:
        raise DataError(
            f"{path} is refused: to load it, {error} would have to run, and a CIFAR batch needs "
            "numpy arrays only; download it from its official site"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}); download it again"
        ) from error


CIFAR10 = CifarBatches(
    tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",), "labels"
)
CIFAR100 = CifarBatches(("train",), ("test",), "fine_labels")
