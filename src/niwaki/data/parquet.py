"""Hugging Face's image data sets: parquet files with a column of {bytes, path} and a column of
labels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        found = sorted(folder.glob(f"{split}-*.parquet")) or sorted(folder.glob(f"{split}.parquet"))
        for path in found:
            shards = re.search(r"-of-(\d+)", path.name)
            if shards and int(shards[1]) != len(found):
                raise DataError(
                    f"{folder} has {len(found)} of the {int(shards[1])} shards that {path.name} "
                    "speaks of"
                )
        return found

    def read(self, files: Sequence[Path], channels: int) -> Arrays:
        """Decode and join the shards."""
        images, labels = zip(
            *(_read_shard(path, self.label, channels) for path in files), strict=True
        )
        return Arrays(torch.cat(images), torch.cat(labels))


def _read_shard(path: Path, label: str, channels: int) -> Arrays:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error
    return decode(table, label, channels, str(path))


def decode(table: pyarrow.Table, label: str, channels: int, where: str) -> Arrays:
    """The images and labels of an Arrow table in Hugging Face's layout.

    Raises:
        DataError: a column is missing, or an image cannot be decoded or differs in size; `where` is
            named.
    """
    columns = table.flatten()  # {bytes, path} becomes two columns
    encoded = _column(columns, [f"{name}.bytes" for name in IMAGE_COLUMNS], where)
    labels = _column(columns, [label], where)
    if not encoded:
        raise DataError(f"{where}: no images in it")
    if not all(isinstance(blob, bytes) for blob in encoded):
        raise DataError(f"{where}: an image without bytes")
    if not all(isinstance(value, int) for value in labels):
        raise DataError(f"{where}: a label in column {label} that is no integer")
    return Arrays(_decode_images(encoded, channels, where), torch.tensor(labels, dtype=torch.int64))


def _column(columns: pyarrow.Table, names: Sequence[str], where: str) -> list[Any]:
    for name in names:
        if name in columns.column_names:
            return columns[name].to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types
    raise DataError(
        f"{where} has no column {' or '.join(names)}; it has {', '.join(columns.column_names)}"
    )


def _decode_images(
    encoded: Sequence[bytes], channels: int, where: str
) -> Tensor:  # -> (n, c, h, w) uint8
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    mode = "L" if channels == 1 else "RGB"
    decoded, sizes = [], set()
    # one thread: Pillow holds the interpreter's lock on images as small as these, so more would
    # only wait
    for number, blob in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(blob), formats=FORMATS) as image:
                sizes.add(image.size)
                decoded.append((image if image.mode == mode else image.convert(mode)).tobytes())
        except (
            OSError,
            ValueError,
            SyntaxError,
        ) as error:  # Pillow raises all three on damaged images
            raise DataError(f"{where}: image {number} cannot be decoded ({error})") from error
    if len(sizes) != 1:
        raise DataError(f"{where}: images of {len(sizes)} different sizes; all must have one")
    width, height = sizes.pop()
    joined = torch.frombuffer(
        bytearray().join(decoded), dtype=torch.uint8
    )  # a bytearray, as torch wants to write
    return joined.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
