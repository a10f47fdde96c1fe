"""The IDX files of MNIST and its successors, gzipped or not (format: yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niwaki.core.errors import DataError
from niwaki.data.arrays import Arrays

PREFIXES = {"train": "train", "test": "t10k"}
UNSIGNED_BYTES = 0x08  # the only type of number that these data sets use


class Idx:
    """An images file and a labels file a split."""

    def wanted(self, split: str) -> str:
        """The names that `files` looks for, for messages."""
        return " and ".join(f"{name}[.gz]" for name in _names(split))

    def files(self, folder: Path, split: str) -> list[Path]:
        """Images, then labels."""
        paths = [_either(folder, name) for name in _names(split)]
        present = [path for path in paths if path is not None]
        if present and len(present) < len(paths):
            raise DataError(f"{folder} has {present[0].name} but not both of {self.wanted(split)}")
        return present

    def read(self, files: Sequence[Path], channels: int) -> Arrays:
        """Decode the images file and the labels file."""
        images, labels = (_read(path, axes) for path, axes in zip(files, (3, 1), strict=True))
        return Arrays(images.unsqueeze(1), labels.long())


def _names(split: str) -> tuple[str, str]:
    return f"{PREFIXES[split]}-images-idx3-ubyte", f"{PREFIXES[split]}-labels-idx1-ubyte"


def _either(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _read(path: Path, axes: int) -> Tensor:  # -> uint8, with so many axes
    content = _content(path)
    header = 4 * (1 + axes)
    # two zero bytes, the type of number, the number of axes; then each axis's size, most
    # significant byte first
    if len(content) < header or content[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise DataError(
            f"{path} is not an IDX file of bytes with {axes} axes (it starts with "
            f"{content[:4].hex(' ')})"
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} promises {math.prod(shape)} bytes but holds {len(content) - header}; "
            "download it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error
