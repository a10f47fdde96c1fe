"""One number of a paper's table, published and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = ("criterion", "removed", "repair", "published", "measured", "difference")


@dataclass(frozen=True)
class Cell:
    """Accuracy in percent, by experiment, criterion, share removed and compensation; `published` where the paper has it."""

    experiment: str
    criterion: str
    ratio: float
    compensation: str
    published: float | None
    measured: float

    def as_dict(self) -> dict[str, Any]:
        """The cell as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave: its cells, or what was missing to run it."""

    setting: str
    cells: tuple[Cell, ...] = ()
    missing: str | None = None


def cells_as_rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Cells as the lines of a table with the `COLUMNS`."""
    return [
        (
            cell.criterion,
            f"{cell.ratio:.0%}",
            cell.compensation,
            "–" if cell.published is None else f"{cell.published:.2f}",
            f"{cell.measured:.2f}",
            "–" if cell.published is None else f"{cell.measured - cell.published:+.2f}",
        )
        for cell in cells
    ]
