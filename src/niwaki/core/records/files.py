"""Output that is either complete or absent: written beside its place under another name, then
renamed onto it.

A rename within one folder is atomic, so neither an error, nor an interrupt, nor a full disk leaves
half a result where a whole one is expected.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from niwaki.core.errors import OutputError

MARK = ".niwaki"  # lies in every folder that was written here, so that no other is ever replaced


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, replacing what was there; readers see the old file or the new
    one, never a part.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the disk is full.
    """
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what was there; see `write_text_atomic`."""
    target = Path(path).resolve()
    partial = _sibling(target, "partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(
                file.fileno()
            )  # else a crash just after the rename could leave an empty file under the final name
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def check_output(target: str | Path, overwrite: bool) -> None:
    """Refuse an output folder before any work is done for it.

    Raises:
        OutputError: `target` exists and `overwrite` is False; it is a file, holds files and was not
            written by niwaki, or holds the current or the home folder; or the folder that it would
            lie in cannot be written.
    """
    place = Path(target).resolve()
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
        if not (place / MARK).exists() and any(place.iterdir()):
            raise OutputError(
                f"{target} holds files and was not written by niwaki; name another place, or "
                "empty it yourself"
            )
    parent = next(folder for folder in place.parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"{parent} is a file, so {target} cannot be created in it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{parent} cannot be written, so {target} cannot be created; check its permissions"
        )


@contextmanager
def staged_folder(target: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target` when the block ends well, and vanishes
    when it does not.

    An old `target` is replaced only with `overwrite`, and only once the new folder is complete.

    Raises:
        OutputError: see `check_output`; or the disk is full, or a file in the folder cannot be
            written.
    """
    check_output(target, overwrite)
    place = Path(
        target
    ).resolve()  # through a link: what is swapped is the folder, not the link to it
    new_parents = [folder for folder in place.parents if not folder.exists()]
    stage = _sibling(place, "partial")
    try:
        try:
            stage.mkdir(parents=True)
        except OSError as error:  # what fails may be one of the folders around it
            raise OutputError(
                f"{target} cannot be created: {error.strerror or error}; name another place"
            ) from error
        yield stage
        (stage / MARK).write_text(
            "written by niwaki, which may replace this folder with --overwrite\n", encoding="utf-8"
        )
        check_output(target, overwrite)  # someone else may have made it meanwhile
        _swap_in(stage, place)
    except BaseException as error:
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in new_parents:  # innermost first; one that is in use by now stays
                folder.rmdir()
        if _is_about_disk(error, stage):
            raise OutputError(f"cannot write {target}: {error}") from error
        raise


def _swap_in(stage: Path, place: Path) -> None:
    """Rename `stage` to `place`; an old folder there steps aside first, and comes back if that
    fails.
    """
    if not place.exists():
        stage.rename(place)
        return
    old = _sibling(place, "old")
    try:
        place.rename(old)
        stage.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    shutil.rmtree(
        old, ignore_errors=True
    )  # the new folder stands: failing to tidy up is no reason to undo it


def _sibling(path: Path, kind: str) -> Path:
    """A free, hidden name in the same folder. Not `tempfile`: its folders stay closed to others
    (mode 0700).
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


def _is_about_disk(error: BaseException, stage: Path) -> bool:
    """Whether the output is at fault (and not, say, a data file that the block reads)."""
    if isinstance(error, OutputError):
        return False
    if "No space left on device" in str(
        error
    ):  # safetensors and torch raise errors of their own for it
        return isinstance(error, Exception)
    return isinstance(error, OSError) and str(stage) in str(error.filename or "")
