"""Hugging Face's image data sets: parquet files with a column of {bytes, path} and a column of
labels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from niwaki.core.errors import DataError, MissingExtraError
from niwaki.data.arrays import Arrays

if TYPE_CHECKING:
    import pyarrow

IMAGE_COLUMNS = ("img", "image")
FORMATS = (
    "PNG",
    "WEBP",
    "JPEG",
)  # stated, as Pillow otherwise tries some forty readers on every image


@dataclass(frozen=True)
class Parquet:
    """One or more shards a split: `train-00000-of-00001.parquet`, or `train.parquet`; labels in
    column `label`.
    """

    label: str = "label"

    def wanted(self, split: str) -> str:
        """The names that `files` looks for, for messages."""
        return f"{split}-*.parquet"

    def files(self, folder: Path, split: str) -> list[Path]:
        """All shards, in order."""
        paths = sorted(folder.glob(f"{split}-*.parquet")) or sorted(folder.glob(f"{split}.parquet"))
        for path in paths:
            shards = re.search(r"-of-(\d+)", path.name)
            if shards and int(shards[1]) != len(paths):
                raise DataError(
                    f"{folder} has {len(paths)} of the {int(shards[1])} shards that {path.name} "
                    "speaks of"
                )
        return paths

    def read(self, files: Sequence[Path], channels: int) -> Arrays:
        """Decode and join the shards."""
        parts = [part for path in files for part in _read_shard(path, self.label, channels)]
        if len(parts) == 1:  # joining one would copy it
            return parts[0]
        images, labels = zip(*parts, strict=True)
        if len({part.shape[1:] for part in images}) > 1:
            raise DataError(f"{files[0]}: images of different sizes; all must have one")
        return Arrays(torch.cat(images), torch.cat(labels))


def _read_shard(path: Path, label: str, channels: int) -> Iterator[Arrays]:
    """The row groups of a file, one after the other: what is encoded is never whole in memory."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    done = 0
    try:
        with parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path}: no images in it")
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                yield decode(table, label, channels, str(path), done)
                done += len(table)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error


def decode(table: pyarrow.Table, label: str, channels: int, where: str, first: int = 0) -> Arrays:
    """The images and labels of an Arrow table in Hugging Face's layout.

    Args:
        first: the number of its first image, for messages.

    Raises:
        DataError: a column is missing, or an image cannot be decoded or differs in size; `where` is
            named.
    """
    columns = table.flatten()  # {bytes, path} becomes two columns
    encoded = _column(columns, [f"{name}.bytes" for name in IMAGE_COLUMNS], where)
    labels = _column(columns, [label], where).to_pylist()
    if not len(encoded):
        raise DataError(f"{where}: no images in it")
    if encoded.null_count or "binary" not in str(encoded.type):
        raise DataError(f"{where}: an image without bytes")
    if not all(isinstance(value, int) for value in labels):
        raise DataError(f"{where}: a label in column {label} that is no integer")
    return Arrays(
        _decode_images(encoded, channels, where, first), torch.tensor(labels, dtype=torch.int64)
    )


def _column(columns: pyarrow.Table, names: Sequence[str], where: str) -> Any:
    for name in names:
        if name in columns.column_names:
            return columns[name]
    raise DataError(
        f"{where} has no column {' or '.join(names)}; it has {', '.join(columns.column_names)}"
    )


def _decode_images(
    encoded: Any, channels: int, where: str, first: int
) -> Tensor:  # -> (n, c, h, w) uint8
    """One image after the other, each straight to its place: no second copy of all of them.

    In one thread: Pillow holds the interpreter's lock on images as small as these, so more would
    only wait.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    mode = "L" if channels == 1 else "RGB"
    decoded: Any = None
    sizes = set()
    for number, blob in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(blob.as_py()), formats=FORMATS) as image:
                sizes.add(image.size)
                pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        except (
            OSError,
            ValueError,
            SyntaxError,
        ) as error:  # Pillow raises all three on damaged images
            raise DataError(
                f"{where}: image {first + number} cannot be decoded ({error})"
            ) from error
        if number == 0:
            decoded = np.empty((len(encoded), channels, *pixels.shape[:2]), np.uint8)
        if len(sizes) == 1:
            decoded[number] = pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)
    if len(sizes) != 1:
        raise DataError(f"{where}: images of {len(sizes)} different sizes; all must have one")
    pixels_of_all: Tensor = torch.from_numpy(decoded)
    return pixels_of_all
