"""One number of a paper's table, published and measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from niwaki.core.provenance import hardware, versions

COLUMNS = ("criterion", "removed", "repair", "published", "measured", "difference")


@dataclass(frozen=True)
class Cell:
    """Accuracy in percent, by experiment, criterion, share removed and compensation; `published`
    where the paper has it.
    """

    experiment: str
    criterion: str
    ratio: float
    compensation: str
    published: float | None
    measured: float


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave: its cells, or what was missing to run it.

    Attributes:
        runs: what the cells were made of, as JSON holds it, where a cell is of several runs.
    """

    setting: str
    cells: tuple[Cell, ...] = ()
    missing: str | None = None
    runs: tuple[dict[str, Any], ...] = ()


def as_record(paper: str, outcomes: Mapping[str, Outcome], limit: int | None) -> str:
    """Experiments by name as JSON, with what they were measured on: one line a cell, and one a
    run.
    """
    done = {name: outcome for name, outcome in outcomes.items() if outcome.missing is None}
    head = {
        "paper": paper,
        "settings": {name: outcome.setting for name, outcome in done.items()},
        "test_images": limit or "all",
        "versions": versions(),
        "hardware": hardware(),
    }
    tables: dict[str, list[Any]] = {
        "cells": [dataclasses.asdict(cell) for outcome in done.values() for cell in outcome.cells]
    }
    if runs := [run for outcome in done.values() for run in outcome.runs]:
        tables["runs"] = runs
    parts = [json.dumps(head, indent=2, ensure_ascii=False)[:-2]]
    for name, entries in tables.items():
        lines = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in entries)
        parts.append(f'  "{name}": [\n{lines}\n  ]')
    return ",\n".join(parts) + "\n}\n"


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
