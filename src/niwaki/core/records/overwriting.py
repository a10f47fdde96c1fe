"""What output may take the place of: nothing that niwaki did not write itself.

Every folder that niwaki writes holds a mark that lists its files; a file of another name in it is
somebody's own, and such a folder is not replaced, whatever the options say.
"""

from __future__ import annotations

import os
from pathlib import Path

from niwaki.core.errors import OutputError
from niwaki.core.records.leftovers import sweep
from niwaki.core.records.reading import irregular

MARK = ".niwaki"  # lies in every folder that was written here, so that no other is ever replaced
OLDER = {  # what folders may hold whose mark does not list their files
    MARK,
    "README.md",
    "blocks.json",
    "buffers.safetensors",
    "dependencies.json",
    "load_without_niwaki.py",
    "manifest.json",
    "model.safetensors",
    "plan.json",
    "record.json",
}


def check_file(path: str | Path, overwrite: bool, *marks: bytes) -> None:
    """Refuse an output file before any work is done for it.

    Args:
        marks: texts of which niwaki writes one near the start of a file of this kind.

    Raises:
        OutputError: it exists and `overwrite` is False, or niwaki did not write it; or its folder
            is not there.
    """
    place = Path(path)
    if not place.parent.is_dir():
        raise OutputError(f"{place.parent} is no folder, so {path} cannot be written")
    if not place.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists; pass --overwrite to replace it, or name another file")
    if irregular(place) or not _holds(place, marks):
        raise OutputError(f"{path} was not written by niwaki, so it stays; name another file")


def _holds(path: Path, marks: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        start = file.read(4096)
    return not start or any(mark in start for mark in marks)


def check_output(target: str | Path, overwrite: bool) -> None:
    """Refuse an output folder before any work is done for it.

    Raises:
        OutputError: `target` exists and `overwrite` is False; it is a file, holds files that niwaki
            did not write, or holds the current or the home folder; or the folder that it would lie
            in cannot be written.
    """
    place = Path(target).resolve()
    sweep(place)
    if place.exists():
        if not overwrite:
            raise OutputError(
                f"{target} exists; pass --overwrite to replace it, or name another folder"
            )
        if not place.is_dir():
            raise OutputError(f"{target} is a file, not a folder; name another place")
        for kept in (Path.cwd(), Path.home()):
            if kept.resolve().is_relative_to(place):
                raise OutputError(
                    f"{target} holds {kept}; it is not overwritten, name a folder inside it"
                )
        _refuse_strangers(place, target)
    parent = next(folder for folder in place.parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"{parent} is a file, so {target} cannot be created in it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{parent} cannot be written, so {target} cannot be created; check its permissions"
        )


def _refuse_strangers(place: Path, target: str | Path) -> None:
    """Refuse a folder with files in it that niwaki did not write.

    Raises:
        OutputError: the first of them is named.
    """
    if not any(place.iterdir()):
        return
    if not (place / MARK).is_file():
        raise OutputError(
            f"{target} holds files and was not written by niwaki; name another place, or "
            "empty it yourself"
        )
    text = (place / MARK).read_text(encoding="utf-8", errors="replace")
    own = {*text.splitlines()[1:], MARK} if "\n  " in text else OLDER
    own = {name.strip() for name in own}
    others = [name for name in _files(place) if name not in own and "__pycache__/" not in name]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise OutputError(
            f"{target} holds {others[0]}{more}, which niwaki did not write; move it, or name "
            "another folder"
        )


def _files(folder: Path) -> list[str]:
    """All that lies in a folder, but folders, by its path from there."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def mark(stage: Path) -> None:
    """Note which files niwaki wrote, so that no other is ever deleted."""
    names = [name for name in _files(stage) if name != MARK]
    head = "written by niwaki, which may replace these files with --overwrite:"
    (stage / MARK).write_text(
        "\n".join([head, *(f"  {name}" for name in names)]) + "\n", encoding="utf-8"
    )
