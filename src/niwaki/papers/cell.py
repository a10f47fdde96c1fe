"""One number of a paper's table, published and measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.records import hardware, versions

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


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave: its cells, or what was missing to run it."""

    setting: str
    cells: tuple[Cell, ...] = ()
    missing: str | None = None


def as_record(paper: str, cells: Sequence[Cell], limit: int | None) -> str:
    """All cells of one run as JSON, with what they were measured on: one line a cell."""
    head = {"paper": paper, "test_images": limit or "all", "versions": versions(), "hardware": hardware()}
    lines = ",\n".join(f"    {json.dumps(dataclasses.asdict(cell), ensure_ascii=False)}" for cell in cells)
    return json.dumps(head, indent=2)[:-2] + f',\n  "cells": [\n{lines}\n  ]\n}}\n'


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
