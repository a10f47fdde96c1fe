"""The plan: what stays of a network. Plain data, printable, JSON, and all that a pruned network is
made from.

    units     group → the units that stay
    blocks    weight → the blocks of it that stay
    branches  residual branch that goes → what stands in the place of which layers
    sizes     module → the sizes that its code states
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from niwaki.core.blocks import BlockPlan
from niwaki.core.errors import SettingError

SCHEMA = 2
READ = (1, 2)  # 1 knew units and sizes alone

Size = int | tuple[int, ...]
StandIn = Literal["identity", "nothing"]  # passes its input on, or gives zeros


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
        pairs = zip(self.units, self.units[1:], strict=False)
        if not self.units or any(a >= b for a, b in pairs):
            raise SettingError(
                "kept units must be ascending, without repeats, and at least one unit must stay"
            )


@dataclass(frozen=True)
class Plan(Mapping[str, Kept]):
    """What stays of a network; as a mapping, group name → its kept units.

    Attributes:
        units: that mapping.
        blocks: weight's name → its blocks, of the weight's full size.
        branches: residual branch that goes (`niwaki.branches`) → layer → what stands in its place;
            a table without layers where the network is written as a graph of operators.
        sizes: module → attribute → the size that the user's code keeps there in the smaller model
            (`num_heads`; an attribute of an object that the module holds is written
            `config.num_heads`). None: not looked for yet.
    """

    units: Mapping[str, Kept] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, Size]] | None = None
    blocks: BlockPlan = field(default_factory=BlockPlan)
    branches: Mapping[str, Mapping[str, StandIn]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Kept:
        return self.units[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Group name → kept units, only of groups that lose some."""
        return {
            name: kept.units for name, kept in self.units.items() if len(kept.units) < kept.width
        }

    @property
    def empty(self) -> bool:
        """Whether nothing goes."""
        return not (self.kept or self.blocks or self.branches)

    def then(self, later: Plan) -> Plan:
        """The units that stay of this plan's network once `later` was carried out on what is left.

        >>> first, later = Kept(5, (0, 2, 4)), Kept(3, (0, 2))
        >>> Plan({"a": first}).then(Plan({"a": later}))["a"].units
        (0, 4)
        """
        both = dict(self.units)
        for name, kept in later.units.items():
            first = self.units.get(name)
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
            for name, kept in self.units.items()
        )
        parts = [f'"schema": {SCHEMA}', f'"groups": {{\n{lines}\n  }}']
        if self.sizes is not None:
            parts.append(f'"sizes": {json.dumps(self.sizes)}')
        if self.blocks:
            parts.append(f'"blocks": {json.dumps(self.blocks.as_data())}')
        if self.branches:
            parts.append(f'"branches": {json.dumps(self.branches)}')
        return "{\n  " + ",\n  ".join(parts) + "\n}\n"

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
        if not isinstance(data, dict) or data.get("schema") not in READ:
            schema = data.get("schema") if isinstance(data, dict) else None
            raise SettingError(f"the plan has schema {schema!r}; this niwaki reads schema {SCHEMA}")
        groups = data.get("groups")
        if not isinstance(groups, dict):
            raise SettingError("the plan has no table 'groups'")
        return cls(
            {name: _read_kept(name, entry) for name, entry in groups.items()},
            _read_sizes(data.get("sizes")),
            BlockPlan.from_data(data.get("blocks", {})),
            _read_branches(data.get("branches", {})),
        )

    def __str__(self) -> str:
        name_width = max((len(name) for name in self.units), default=0)
        lines = [
            f"{name.ljust(name_width)}  {len(kept.units):>5} of {kept.width:<5}"
            for name, kept in self.units.items()
        ]
        lines += [f"{name}  {len(held.kept)} blocks" for name, held in self.blocks.items()]
        lines += [f"{name}  the branch goes" for name in self.branches]
        return "\n".join(lines)

    def __repr__(self) -> str:
        parts = [f"{len(self.units)} groups", f"{len(self.kept)} cut"]
        parts += [f"{len(self.blocks)} weights in blocks"] if self.blocks else []
        parts += [f"{len(self.branches)} branches gone"] if self.branches else []
        return f"Plan({', '.join(parts)})"


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


def _read_branches(data: Any) -> dict[str, dict[str, StandIn]]:
    if not isinstance(data, dict) or not all(
        isinstance(table, dict) and all(kind in get_args(StandIn) for kind in table.values())
        for table in data.values()
    ):
        raise SettingError(
            "'branches' of the plan is a table: branch → layer → 'identity' or 'nothing'"
        )
    return data


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
