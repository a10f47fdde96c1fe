"""dependencies.json: how much each group of a layer depends on each group of the layer before, and
what was cut of it.

Made to be looked at, not to be computed with: matrices are at most 64 groups a side and values have
four digits, so that the file of any network is a few megabytes at most.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niwaki.core.records.reading import irregular
from niwaki.core.records.record import RecordError, from_table

DEPENDENCIES = "dependencies.json"
SCHEMA = 1
LARGEST = 64  # rows and columns of one map
MOST = 2**18  # values in a file
LIMIT = 2**24  # bytes of a file

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class DependencyMap:
    """One pair of layers.

    Attributes:
        values: a row a child group, a column a parent group, in [0, 1].
        gone: the share of each block's weights that was removed, of the same shape; empty where
            nothing was pruned.
    """

    parent: str
    child: str
    values: Matrix
    gone: Matrix = ()

    def __post_init__(self) -> None:
        where = f"the map of {self.child} on {self.parent}"
        width = len(self.values[0]) if self.values else 0
        if not 0 < len(self.values) <= LARGEST or not 0 < width <= LARGEST:
            raise RecordError(f"{where} must have 1 to {LARGEST} rows and columns")
        for name, matrix in (("values", self.values), ("gone", self.gone)):
            if any(len(row) != width for row in matrix) or len(matrix) not in (len(self.values), 0):
                raise RecordError(
                    f"{where} is ragged: {name!r} must have {len(self.values)} rows of {width}"
                )
            if not all(0 <= value <= 1 for row in matrix for value in row):  # NaN is not
                raise RecordError(f"{where} has {name!r} outside [0, 1]")


@dataclass(frozen=True)
class DependencyMaps:
    """All pairs of a network, in the order of its layers."""

    maps: tuple[DependencyMap, ...]

    def __post_init__(self) -> None:
        count = sum(len(item.values) * len(item.values[0]) for item in self.maps)
        if count > MOST:
            raise RecordError(
                f"{len(self.maps)} maps hold {count:,} values; at most {MOST:,} are written: use "
                "coarser groups"
            )

    def to_json(self) -> str:
        """As text, one map a line."""
        lines = ",\n".join(
            f"    {json.dumps(_shortened(item), ensure_ascii=False)}" for item in self.maps
        )
        return f'{{\n  "schema": {SCHEMA},\n  "maps": [\n{lines}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str, source: str = DEPENDENCIES) -> DependencyMaps:
        """Read what `to_json` wrote; `source` names the file in errors.

        Raises:
            RecordError: not JSON, another schema, a key missing, unknown or of the wrong type, or
                no such matrices.
        """
        try:
            data: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(
                f"{source} is not JSON: {str(error) or type(error).__name__}"
            ) from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if type(schema) is not int or schema != SCHEMA:
            raise RecordError(
                f"{source} has schema {str(schema)[:80]!r}; this niwaki reads schema {SCHEMA}"
            )
        try:
            maps: DependencyMaps = from_table(
                cls, {key: value for key, value in data.items() if key != "schema"}, source
            )
        except RecursionError as error:
            raise RecordError(f"{source} is nested too deeply") from error
        return maps


def read_dependencies(path: Path) -> DependencyMaps | None:
    """The maps of a file; None where there is none.

    Raises:
        RecordError: it cannot be read, or is not what niwaki writes.
    """
    if not os.path.lexists(path):
        return None
    if wrong := irregular(path):
        raise RecordError(f"{path} {wrong}")
    try:
        if path.stat().st_size > LIMIT:
            raise RecordError(f"{path} has {path.stat().st_size:,} bytes; no map is as large")
        return DependencyMaps.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def coarsest(pairs: int) -> int:
    """Groups a side that so many maps may have for one file."""
    return max(1, min(LARGEST, math.isqrt(MOST // max(1, pairs))))


def _shortened(item: DependencyMap) -> dict[str, Any]:
    """Values with four digits; shares of nothing and all as 0 and 1."""

    def short(matrix: Matrix) -> list[list[float]]:
        return [
            [int(value) if value in (0, 1) else round(value, 4) for value in row] for row in matrix
        ]

    return {
        "parent": item.parent,
        "child": item.child,
        "values": short(item.values),
        "gone": short(item.gone),
    }
