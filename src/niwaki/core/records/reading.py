"""What may be read of a folder that somebody else wrote: regular files that lie in it, of a size
that one can hold.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

TEXT_LIMIT = 2**28  # bytes of a JSON file


def irregular(path: Path) -> str | None:
    """Why a file is not read; None where it may be.

    A pipe or a device may never end, and a link may lead to a file that the writer of the folder
    could not read himself. Links into the cache of a model hub are as they should be.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "is no ordinary file"
        if path.is_symlink() and not _stays(path):
            return f"is a link to a file elsewhere ({os.readlink(path)})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def too_large(path: Path, limit: int = TEXT_LIMIT) -> str | None:
    """Why a text is not read whole; None where it may be."""
    size = path.stat().st_size
    return f"has {size:,} bytes; no plan or record is as large" if size > limit else None


def _stays(link: Path) -> bool:
    """Whether a link leads into its own folder, or from a hub's `snapshots/x` into its `blobs`."""
    target, folder = link.resolve(), link.parent.resolve()
    hub = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    return target.parent in (folder, hub)
