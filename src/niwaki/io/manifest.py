"""manifest.json: which files belong to a saved network, and the SHA-256 of each.

Names are compared with the few that niwaki writes and never used as paths, so nothing outside the
folder can be named. The text must be exactly what niwaki would write for what it says: then a
change of any byte in any file shows.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from niwaki.core.errors import CheckpointError, SettingError
from niwaki.core.records import DEPENDENCIES, irregular, too_large
from niwaki.io.blocks import BLOCKS
from niwaki.io.blueprint import read_json

MANIFEST, PLAN, WEIGHTS, BUFFERS, RECORD = (
    "manifest.json",
    "plan.json",
    "model.safetensors",
    "buffers.safetensors",
    "record.json",
)
CARD, STANDALONE = (
    "README.md",
    "load_without_niwaki.py",
)  # for people: not read by niwaki, and free to be changed
REQUIRED, OPTIONAL = (PLAN, WEIGHTS, RECORD), (BUFFERS, BLOCKS, DEPENDENCIES)
SCHEMA = 1


def write_manifest(folder: Path) -> None:
    """Note every file of the folder that niwaki will read."""
    names = [name for name in (*REQUIRED, *OPTIONAL) if (folder / name).exists()]
    (folder / MANIFEST).write_text(
        _text({name: _digest(folder / name) for name in names}), encoding="utf-8"
    )


def check_manifest(folder: Path) -> tuple[str, ...]:
    """The files of a saved network, all there and unchanged.

    Raises:
        CheckpointError: one is missing, changed or not niwaki's, or the manifest itself is.
    """
    try:
        data = read_json(read_text(folder / MANIFEST))
    except SettingError as error:
        raise CheckpointError(
            f"{folder / MANIFEST}: {error}; copy or download the folder again"
        ) from error
    files = data.get("files") if isinstance(data, dict) else None
    if isinstance(data, dict) and type(data.get("schema")) is int and data["schema"] > SCHEMA:
        raise CheckpointError(
            f"{folder / MANIFEST} has schema {data['schema']}; a newer niwaki wrote it: update "
            "yours"
        )
    if not isinstance(files, dict) or not {*REQUIRED} <= files.keys() <= {*REQUIRED, *OPTIONAL}:
        raise CheckpointError(
            f"{folder / MANIFEST} must list {', '.join(REQUIRED)} and perhaps "
            f"{', '.join(OPTIONAL)}, and nothing else"
        )
    if read_text(folder / MANIFEST) != _text(files):
        raise CheckpointError(
            f"{folder / MANIFEST} was changed after niwaki wrote it; copy or download the folder "
            "again"
        )
    for name, digest in files.items():
        if not os.path.lexists(folder / name):
            raise CheckpointError(f"{folder / name} is missing; copy or download the folder again")
        if wrong := irregular(folder / name):
            raise CheckpointError(f"{folder / name} {wrong}; copy or download the folder again")
        if _digest(folder / name) != digest:
            raise CheckpointError(
                f"{folder / name} was changed after it was saved; copy or download the folder again"
            )
    return tuple(files)


def read_text(path: Path) -> str:
    """A JSON file of a saved network.

    Raises:
        CheckpointError: it is missing, no regular file, no text, or absurdly large.
    """
    try:
        if wrong := (os.path.lexists(path) and irregular(path)) or too_large(path):
            raise CheckpointError(f"{path} {wrong}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); is its folder what niwaki.save or niwaki prune "
            "wrote?"
        ) from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return (
                hashlib.file_digest(file, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else _by_blocks(path)
            )
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _by_blocks(path: Path) -> str:  # Python 3.10 has no file_digest
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


def _text(files: dict[str, str]) -> str:
    return json.dumps({"schema": SCHEMA, "files": files}, indent=2) + "\n"
