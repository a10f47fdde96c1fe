"""A folder of images: root/{train, val | validation, test}/class/image, read when a batch needs
them.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niwaki.core.errors import DataError, MissingExtraError
from niwaki.data.dataset import carve
from niwaki.data.split import Normalization, Split, StreamedSplit

FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
CROP = 224 / 256  # the central part of the shorter side that is kept, as ImageNet is evaluated


def class_names(root: Path) -> list[str]:
    """The classes: the folders inside the first split that is there, sorted.

    Raises:
        DataError: no split there, or it has no folders.
    """
    for split in FOLDERS:
        folder = _folder(root, split)
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder else []
        if names:
            return names
    raise DataError(
        f"{root} has no train/, val/ or test/ with one folder a class in it; give such a folder "
        "as root"
    )


def read(
    root: Path,
    classes: list[str],
    image_size: int,
    normalization: Normalization,
    validation: float,
    name: str,
) -> dict[str, Split]:
    """The split `name`, and train with it where validation is carved from train.

    Where only one of val/ and test/ is there, it is the test split, and validation is carved from
    train.
    """
    read_image = functools.partial(_read_image, size=image_size)

    def streamed(folder: Path | None, wanted: str) -> StreamedSplit:
        if folder is None:
            raise DataError(f"{root} has no {wanted} folder")
        return StreamedSplit(*_scan(folder, classes), normalization, read_image)

    validation_folder, test_folder = _folder(root, "validation"), _folder(root, "test")
    if name == "test":
        return {"test": streamed(test_folder or validation_folder, "test/ or val/")}
    if name == "validation" and validation_folder and test_folder:
        return {"validation": streamed(validation_folder, "val/")}
    train = streamed(_folder(root, "train"), "train/")
    if validation_folder and test_folder:
        return {"train": train}
    return carve(train, validation, ("train", "validation"))


def _folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)


def _scan(folder: Path, classes: list[str]) -> tuple[list[Path], Tensor]:
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
    if unknown:
        raise DataError(
            f"{folder} has classes that the other splits have not: {', '.join(unknown[:5])}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES
        )
        files += images
        labels += [label] * len(images)
    return files, torch.tensor(labels, dtype=torch.int64)


def _read_image(path: Path, size: int) -> Tensor:  # -> (3, size, size) uint8
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    try:
        with Image.open(path) as image:
            colours = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three on damaged images
        raise DataError(f"{path} cannot be decoded ({error})") from error
    shorter = round(size / CROP)
    scale = shorter / min(colours.size)
    width, height = (max(size, round(side * scale)) for side in colours.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = colours.resize((width, height), Image.Resampling.BILINEAR)
    centre = np.array(resized.crop((left, top, left + size, top + size)))
    return torch.from_numpy(centre).permute(2, 0, 1).contiguous()
