"""A model's groups of channels as plain data, for people and programs to look at: what each costs,
who reads whom, what is fixed and why.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

SHOWN = 3  # names that a sentence lists


@dataclass(frozen=True)
class GroupOutline:
    """One group.

    Attributes:
        params: parameters that hold something of this group, all of which would go with its last
            unit.
        macs: multiply-adds, of one run on the example inputs, that would go with it.
        producers, carriers, consumers: layers (a bare parameter is a layer of its own).
        reads: groups from which a producer of this one computes it.
    """

    name: str
    width: int
    params: int
    macs: int
    producers: tuple[str, ...]
    carriers: tuple[str, ...]
    consumers: tuple[str, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class FixedAxis:
    """Channels that keep their number, and why."""

    layer: str
    width: int
    reason: str


@dataclass(frozen=True)
class Unread:
    """What of a model's parameters the run did not touch; false where it touched all.

    Attributes:
        names: of the parameters, in the model's order.
        entries, total: their numbers, and those of the whole model.
    """

    names: tuple[str, ...]
    entries: int
    total: int

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        first = ", ".join(self.names[:SHOWN]) + ", …" * (len(self.names) > SHOWN)
        return (
            f"{self.entries} of {self.total} parameters ({self.share:.0%}) are never read on the "
            f"example inputs, and stay whole: {first}"
        )

    @property
    def share(self) -> float:
        """Of all parameters."""
        return self.entries / self.total if self.total else 0.0


@dataclass(frozen=True)
class Outline:
    """A model's groups.

    Attributes:
        params, macs: of the whole model; macs of one run on the example inputs.
        unknown: operators that niwaki does not know → how often they occur; what they touch is
            frozen.
        ways_out: what the user can do about channels that keep their size.
        unread: the parameters that the run never touched.
    """

    model: str
    params: int
    macs: int
    groups: tuple[GroupOutline, ...]
    frozen: tuple[FixedAxis, ...]
    unknown: dict[str, int]
    unread: Unread
    ways_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dicts and lists."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = [
            (
                group.name,
                str(group.width),
                count(group.params),
                count(group.macs),
                *(_first_and_count(layers) for layers in (group.producers, group.consumers)),
            )
            for group in self.groups
        ]
        lines = ["no group of channels can be pruned"]
        if rows:
            lines = _table([("group", "units", "params", "MACs", "written by", "read by"), *rows])
            lines += [
                "",
                (
                    f"the model: {count(self.params)} params, {count(self.macs)} MACs a run on the "
                    "example inputs"
                ),
            ]
        if self.frozen:
            fixed = [
                (item.layer or "the model", str(item.width), item.reason) for item in self.frozen
            ]
            lines += ["", *_table([("keeps its size", "width", "why"), *fixed])]
        if self.unknown:
            listed = ", ".join(f"{name} ({times}×)" for name, times in self.unknown.items())
            lines += ["", f"operators that niwaki does not know: {listed}"]
        for way in self.ways_out:
            lines += ["", way]
        if self.unread:
            lines += ["", str(self.unread)]
        return "\n".join(lines)


def count(number: int) -> str:
    """A count in at most four characters and a unit: 999, 1.23 k, 45.6 M."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:.{2 - int(math.log10(rounded / size))}f} {unit}"
    return str(number)


def _first_and_count(names: tuple[str, ...]) -> str:
    if not names:
        return "–"
    return names[0] if len(names) == 1 else f"{names[0]} + {len(names) - 1} more"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
