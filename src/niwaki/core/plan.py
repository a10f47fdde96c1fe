"""The plan: which units of which group stay. Plain data, printable, JSON, and all that a pruned
model is made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from niwaki.core.errors import SettingError

SCHEMA = 1


@dataclass(frozen=True)
class Kept:
    """The units of one group that stay.

    Attributes:
        width: how many units the group had.
        units: the units that stay, ascending.
    """

    width: int
    units: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(type(unit) is int and 0 <= unit < self.width for unit in self.units):
            raise SettingError(f"kept units must be integers from 0 to {self.width - 1}")
        if not self.units or any(a >= b for a, b in zip(self.units, self.units[1:], strict=False)):
            raise SettingError("kept units must be ascending, without repeats, and at least one")


Size = int | tuple[int, ...]


@dataclass(frozen=True)
class Plan(Mapping[str, Kept]):
    """Group name → kept units, for every group that takes part.

    Attributes:
        sizes: module → attribute → the size that the user's code keeps there in the smaller model
            (`num_heads`; an attribute of an object that the module holds is written
            `config.num_heads`). None: not looked for yet.
    """

    groups: Mapping[str, Kept] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, Size]] | None = None

    def __getitem__(self, name: str) -> Kept:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Group name → kept units, only of groups that lose some."""
        return {
            name: kept.units for name, kept in self.groups.items() if len(kept.units) < kept.width
        }

    def then(self, later: Plan) -> Plan:
        """What stays of this plan's network once `later` was carried out on what this one leaves of
        it.
        """
        both = dict(self.groups)
        for name, kept in later.groups.items():
            first = self.groups.get(name)
            both[name] = (
                kept
                if first is None
                else Kept(first.width, tuple(first.units[unit] for unit in kept.units))
            )
        return Plan(both, later.sizes if later.sizes is not None else self.sizes)

    def to_json(self) -> str:
        """The plan as text, one group a line."""
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps({'width': kept.width, 'kept': list(kept.units)})}"
            for name, kept in self.groups.items()
        )
        sizes = "" if self.sizes is None else f',\n  "sizes": {json.dumps(self.sizes)}'
        return f'{{\n  "schema": {SCHEMA},\n  "groups": {{\n{lines}\n  }}{sizes}\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan back.

        Raises:
            SettingError: the text is not JSON, is of another schema, or names units that cannot be.
        """
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise SettingError(f"the plan is not JSON: {error}") from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else None
            raise SettingError(f"the plan has schema {found!r}; this niwaki reads schema {SCHEMA}")
        groups = data.get("groups")
        if not isinstance(groups, dict):
            raise SettingError("the plan has no table 'groups'")
        return cls(
            {name: _read_kept(name, entry) for name, entry in groups.items()},
            _read_sizes(data.get("sizes")),
        )

    def __str__(self) -> str:
        name_width = max((len(name) for name in self.groups), default=0)
        return "\n".join(
            f"{name.ljust(name_width)}  {len(kept.units):>5} of {kept.width:<5}"
            for name, kept in self.groups.items()
        )


def _read_kept(name: str, entry: Any) -> Kept:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("width"), int)
        or not isinstance(entry.get("kept"), list)
    ):
        raise SettingError(
            f"group {name!r} of the plan needs a whole number 'width' and a list 'kept'"
        )
    try:
        return Kept(entry["width"], tuple(entry["kept"]))
    except SettingError as error:
        raise SettingError(f"group {name!r} of the plan: {error}") from error


def _read_sizes(data: Any) -> dict[str, dict[str, Size]] | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not all(isinstance(table, dict) for table in data.values()):
        raise SettingError("'sizes' of the plan is a table: module → attribute → size")
    return {
        module: {name: _read_size(f"{module}.{name}", value) for name, value in table.items()}
        for module, table in data.items()
    }


def _read_size(name: str, value: Any) -> Size:
    if type(value) is int:
        return value
    if isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    raise SettingError(
        f"the size {name!r} of the plan is a whole number or a list of them; got {value!r}"
    )
