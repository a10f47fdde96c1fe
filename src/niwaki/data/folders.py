"""Where in a user's folder the files of a data set are: the folder may be its own, or one above."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from niwaki.core.errors import DataError

# inside a data set's folder, what torchvision, the hub and the official archives put its files in
INNER = ("raw", "data", "plain_text", "cifar-10-batches-py", "cifar-100-python")
DEPTH = 2  # folders below the one that the user gave


def candidates(root: Path, name: str, others: Iterable[str]) -> list[Path]:
    """Folders that may hold the files of data set `name`, the innermost first, `root` last.

    Folders are recognised by name, whatever their case, hyphens and underscores.

    Raises:
        DataError: there is no folder `root`, or it is named after one of the `others`, whose files
            look the same.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give the folder that holds the files of {name}, or the one "
            "above it"
        )
    for folder in (root, root.parent) if _plain(root.name) in map(_plain, INNER) else (root,):
        if _plain(folder.name) in {_plain(other) for other in others}:
            raise DataError(f"{root} is the folder of {folder.name}, by its name, not of {name}")
    return _walk(root, {_plain(name): 0, **{_plain(inner): 1 for inner in INNER}}, DEPTH)


def _walk(folder: Path, ranks: dict[str, int], depth: int) -> list[Path]:
    inside = (
        [path for path in folder.iterdir() if path.is_dir() and _plain(path.name) in ranks]
        if depth
        else []
    )
    inside.sort(
        key=lambda path: (ranks[_plain(path.name)], path.name)
    )  # the data set's own name before "data"
    return [below for path in inside for below in _walk(path, ranks, depth - 1)] + [folder]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
