"""The folder of a sweep: what is swept (`sweep.json`), one file a cell, and the page of all.

A cell's file appears whole or not at all, so a sweep that was killed goes on with the cells that
have none. Axes may grow between two calls; what all cells share may not change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from niwaki.core.errors import OutputError
from niwaki.core.records import check_output, write_text_atomic
from niwaki.report import Run, as_csv, as_json, report_page
from niwaki.sweep.cell import DONE, Outcome, plan_of, record_of
from niwaki.sweep.grid import Cell, Common

SWEEP, CELLS, PAGE = "sweep.json", "cells", "report.html"
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """Where a sweep is kept; nothing is written before a cell is done."""

    path: Path
    common: Common

    def checked(self) -> SweepFolder:
        """The same, once it is known that the sweep may begin, or go on, there.

        Raises:
            OutputError: it holds something else, or a sweep with other settings.
        """
        kept = self.path / SWEEP
        if kept.is_file():
            self._refuse_other(kept)
        elif not _is_free(self.path):
            raise OutputError(
                f"{self.path} exists and holds no sweep; name a new folder, or that of a sweep"
            )
        else:
            check_output(self.path, overwrite=True)
        return self

    def _refuse_other(self, kept: Path) -> None:
        table = _read(kept)
        if table.get("schema") != SCHEMA:
            raise OutputError(f"{kept} was not written by this niwaki; name another folder")
        theirs = {**_plain(Common()), **table["same_for_all"]}  # older sweeps lack newer settings
        ours = _plain(self.common)
        other = [key for key in ours if ours[key] != theirs[key]]
        if other:
            said = "; ".join(f"{key}: {theirs[key]!r} there, {ours[key]!r} now" for key in other)
            raise OutputError(
                f"{self.path} holds another sweep ({said}); name another folder for this one"
            )

    def finished(self, cell: Cell) -> Outcome | None:
        """What is known of a cell that is done; None where it is to be run (again)."""
        path = self._file(cell)
        outcome = _read(path) if path.is_file() else {}
        same = outcome.get("cell") == dataclasses.asdict(cell)
        return outcome if same and outcome.get("status") == DONE else None

    def write(self, cell: Cell, outcome: Outcome) -> None:
        """Keep what came of a cell."""
        self._make()
        table = {"schema": SCHEMA, "cell": dataclasses.asdict(cell), **outcome}
        write_text_atomic(self._file(cell), json.dumps(table, indent=1, ensure_ascii=False) + "\n")

    def report(self, cells: Sequence[tuple[Cell, Outcome]]) -> Path | None:
        """The page of all cells that are done, with the numbers beside it; None without any."""
        done = [pair for pair in cells if pair[1]["status"] == DONE]
        left_out = [
            f"{cell.label}: {outcome['reason']}"
            for cell, outcome in cells
            if outcome["status"] != DONE
        ]
        if not done:
            return None
        runs = [Run(cell.label, record_of(outcome), (plan_of(outcome),)) for cell, outcome in done]
        page = self.path / PAGE
        write_text_atomic(page, report_page(runs, left_out))
        write_text_atomic(page.with_suffix(".csv"), as_csv(runs))
        write_text_atomic(page.with_suffix(".json"), as_json(runs))
        return page

    def _make(self) -> None:
        if (self.path / SWEEP).is_file():
            return
        try:
            (self.path / CELLS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made: {error.strerror}") from error
        table = {"schema": SCHEMA, "same_for_all": dataclasses.asdict(self.common)}
        write_text_atomic(self.path / SWEEP, json.dumps(table, indent=2) + "\n")

    def _file(self, cell: Cell) -> Path:
        return self.path / CELLS / f"{cell.name}.json"


def _plain(common: Common) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(common)))
    return plain


def _is_free(path: Path) -> bool:
    """Whether there is nothing, an empty folder, or what a kill left of one."""
    if not path.is_dir():
        return not path.exists()
    left = {entry.name for entry in path.iterdir()}
    return not left or (left == {CELLS} and not any((path / CELLS).iterdir()))


def _read(path: Path) -> dict[str, Any]:
    """A file's table; empty where it is damaged, so that the cell is run again."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
