"""What workers do in the tests of work; a module of its own, as they import it by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from niwaki.core.errors import SettingError, UnknownNameError


def doubled(number: int) -> int:
    return 2 * number


def deadly(number: int, folder: str, deadliest: int) -> int:
    """Dies over the number 2, so many times."""
    deaths = Path(folder)
    if number == 2 and len(list(deaths.iterdir())) < deadliest:
        (deaths / str(len(list(deaths.iterdir())))).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def refusing(number: int) -> int:
    """Raises errors over 1 and 2, the second one made of several words."""
    if number == 1:
        raise SettingError("no ones")
    if number == 2:
        raise UnknownNameError("number", "2", ["0", "3"])
    return 2 * number


class Unsendable(Exception):
    """An error that cannot be made again from its words."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def unsendable() -> int:
    raise Unsendable("no ", "luck")
