"""The TOML file of a sweep, as words."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.sweep.grid import AXES, Common

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_sweep(path: Path) -> dict[str, Any]:
    """The words of a TOML file, lists as tuples.

    Raises:
        SettingError: it is not there, is not TOML, or a value is of the wrong kind.
        UnknownNameError: it has a key that no sweep has.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is not TOML: {error}") from error
    return dict(_entries(table, str(path)))


@dataclass(frozen=True)
class _Kind:
    """What a key may hold: one value, or where `several` a list of such, too."""

    words: str
    read: Callable[[Any], Any]  # None where it is something else
    several: bool = False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _share(value: Any) -> str | None:
    """A budget: a text, or the number in it."""
    is_share = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return str(value) if is_share else None


def _yes_or_no(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(least: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return value if is_whole and least <= value < 2**63 else None

    return read


def _ranges(value: Any) -> list[str] | None:
    if not isinstance(value, dict):
        return None
    return [f"{name}={text}" for name, text in value.items()]


TEXT, TEXTS = _Kind("a text", _text), _Kind("a text or a list of texts", _text, several=True)
COUNT = _Kind("a whole number from 1", _whole(1))
SEEDS = _Kind("a list of whole numbers from 0", _whole(0), several=True)
KINDS = {
    **dict.fromkeys(AXES, TEXTS),
    **{field.name: TEXT for field in dataclasses.fields(Common)},
    **dict.fromkeys(("only", "skip", "recovery", "trust"), TEXTS),
    "budgets": _Kind("a list of texts or shares", _share, several=True),
    "seeds": SEEDS,
    "calibration": COUNT,
    "timed": _Kind("true or false", _yes_or_no),
    "front": TEXT,
    "search": _Kind("a table of ranges by name", _ranges),
    "trials": COUNT,
}


def _entries(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if key not in KINDS:
            raise UnknownNameError(f"key of {where}", key, KINDS)
        kind = KINDS[key]
        values = value if kind.several and isinstance(value, list) else [value]
        read = [kind.read(entry) for entry in values]
        if None in read:
            raise SettingError(f"{key} in {where} must be {kind.words}; got {value!r}")
        yield key, tuple(read) if kind.several else read[0]
