"""Unfinished output: how it is named while it is written, and how that of a killed process goes.

A name says who writes: `.pruned.HOST-PID.RANDOM.partial`. What a process of this machine left that
no longer runs is swept by the next one that writes to the same place; what another machine left,
once it is a day old.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

DAY = 24 * 3600.0


def unfinished(path: Path, kind: str) -> Path:
    """A free, hidden name in the same folder. Not `tempfile`: its folders stay closed to others
    (mode 0700).
    """
    name = f".{path.name}.{_host()}-{os.getpid()}.{secrets.token_hex(4)}.{kind}"
    return path.with_name(name)


def sweep(path: Path) -> None:
    """Remove what killed processes left of attempts to write `path`; an old folder that had just
    stepped aside comes back.
    """
    pattern = re.compile(
        rf"\.{re.escape(path.name)}\.(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)\.[0-9a-f]{{8}}"
        r"\.(?P<kind>partial|old)"
    )
    with contextlib.suppress(OSError):
        for left in sorted(path.parent.iterdir()):
            match = pattern.fullmatch(left.name)
            if match and _is_left(left, match["host"], int(match["pid"])):
                _tidy(left, path, match["kind"])


def _tidy(left: Path, path: Path, kind: str) -> None:
    if kind == "old" and not path.exists():
        left.rename(path)
    elif left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _is_left(left: Path, host: str, pid: int) -> bool:
    """Whether nobody writes it any more."""
    if time.time() - left.lstat().st_mtime > DAY:
        return True
    return host == _host() and pid != os.getpid() and not _runs(pid)


def _runs(pid: int) -> bool:
    if os.name == "nt":
        return True  # there, asking by signal would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
