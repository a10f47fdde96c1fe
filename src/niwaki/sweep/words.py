"""The TOML file of a sweep, as words."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
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


def _entries(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    fields = {field.name: str(field.type) for field in dataclasses.fields(Common)}
    for key, value in table.items():
        if key not in (*AXES, *fields, "search", "trials", "front"):
            raise UnknownNameError(f"key of {where}", key, (*AXES, *fields, "search", "trials"))
        several = key in AXES or fields.get(key, "").startswith("tuple")
        yield key, _value(value, key, several, where)


def _value(value: Any, key: str, several: bool, where: str) -> Any:
    if key == "search":
        return [f"{name}={text}" for name, text in dict(value).items()]
    if not several:
        return value
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    kinds = (int,) if key == "seeds" else (str, int, float)
    if any(isinstance(entry, bool) or not isinstance(entry, kinds) for entry in values):
        wanted = "whole numbers" if key == "seeds" else "texts"
        raise SettingError(f"{key} in {where} must be a list of {wanted}; got {value!r}")
    return tuple(values) if key == "seeds" else tuple(map(str, values))
