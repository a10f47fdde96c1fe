"""Output that is either complete or absent: written beside its place under another name, then
renamed onto it.

A rename within one folder is atomic, so neither an error, nor an interrupt, nor a full disk leaves
half a result where a whole one is expected.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from niwaki.core.errors import OutputError
from niwaki.core.records.leftovers import sweep, unfinished
from niwaki.core.records.overwriting import check_output, mark

LIMITS = {  # number of the error → what the system says, and what helps
    errno.ENOSPC: ("No space left on device", "free some space, or name a place on another disk"),
    errno.EDQUOT: ("Disk quota exceeded", "your share of the disk is used up: delete something"),
    errno.EFBIG: ("File too large", "the file system or the shell (ulimit -f) limits files"),
}


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
    sweep(target)
    partial = unfinished(target, "partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(
                file.fileno()
            )  # else a crash just after the rename could leave an empty file under the final name
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


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
    stage = unfinished(place, "partial")
    try:
        try:
            stage.mkdir(parents=True)
        except OSError as error:  # what fails may be one of the folders around it
            raise OutputError(
                f"{target} cannot be created: {reason(error)}; name another place"
            ) from error
        yield stage
        mark(stage)
        check_output(target, overwrite)  # someone else may have made it meanwhile
        _swap_in(stage, place)
    except BaseException as error:
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in new_parents:  # innermost first; one that is in use by now stays
                folder.rmdir()
        if _is_about_disk(error, stage):
            raise OutputError(f"cannot write {target}: {reason(error)}") from error
        raise


def _swap_in(stage: Path, place: Path) -> None:
    """Rename `stage` to `place`; an old folder there steps aside first, and comes back if that
    fails.
    """
    if not place.exists():
        stage.rename(place)
        return
    old = unfinished(place, "old")
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


def reason(error: BaseException) -> str:
    """Why a file cannot be written, and what helps, in one sentence."""
    number = error.errno if isinstance(error, OSError) else None
    for code, (words, help_) in LIMITS.items():
        if number == code or words in str(error):
            return f"{words}; {help_}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_about_disk(error: BaseException, stage: Path) -> bool:
    """Whether the output is at fault (and not, say, a data file that the block reads)."""
    if isinstance(error, OutputError):
        return False
    # safetensors and torch raise errors of their own for it
    if any(words in str(error) for words, _ in LIMITS.values()):
        return isinstance(error, Exception)
    return isinstance(error, OSError) and str(stage) in str(error.filename or "")
