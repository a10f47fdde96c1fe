"""One row of the overview of all papers: what was published, what was measured here, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

NOT_RUN = "not run"
COLUMNS = ("row", "removed", "published", "its base", "measured here", "base here")


@dataclass(frozen=True)
class Measured:
    """A number from a record.

    Attributes:
        accuracy, base: percent, of what was pruned and of the unpruned network here.
        budget: "full", or "quick" where it is of a part of the images or epochs.
        runs: seeds that it is the median or mean of.
        detail: what else must be said.
    """

    accuracy: float
    base: float | None
    budget: str = "full"
    runs: int = 1
    detail: str = ""

    def __str__(self) -> str:
        words = [self.budget] * (self.budget != "full")
        words += [f"{self.runs} seeds"] * (self.runs > 1) + [self.detail] * bool(self.detail)
        return f"{self.accuracy:.2f}" + (f" ({', '.join(words)})" if words else "")


@dataclass(frozen=True)
class Line:
    """A row of a paper's table.

    Attributes:
        removed: the published share that goes, in words.
        counts: what that share is of.
        published, base: accuracy in percent, pruned and unpruned, as printed; None: not stated.
        measured: from records; none where it was not run.
        hours: that one core would take, computed (`niwaki.papers.hours`); None: not known.
    """

    paper: str
    experiment: str
    row: str
    removed: str
    counts: str
    published: float | None
    base: float | None
    measured: tuple[Measured, ...] = ()
    hours: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The line under the `COLUMNS`."""
        here = "; ".join(map(str, self.measured)) or self._not_run()
        bases = dict.fromkeys(_number(run.base) for run in self.measured)
        return (
            self.row,
            self.removed,
            _number(self.published),
            _number(self.base),
            here,
            "; ".join(bases),
        )

    def _not_run(self) -> str:
        return NOT_RUN if self.hours is None else f"{NOT_RUN}: {_hours(self.hours)}"


def _hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 0.95 else f"{60 * value:.0f} min"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def grouped(lines: Iterable[Line]) -> list[tuple[str, str, list[Line]]]:
    """Lines by paper and experiment, in their order, with what the ratio of each counts."""
    groups = groupby(lines, key=lambda line: (line.paper, line.experiment, line.counts))
    return [
        (f"{paper}: {experiment}", counts, list(part))
        for (paper, experiment, counts), part in groups
    ]


def table_row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def budget_of(record: Mapping[str, Any]) -> str:
    """The budget that a recipe's record was made with, as "mint:budget=short,seed=1" has it."""
    spec: str = record["paper"]
    return spec.partition("budget=")[2].partition(",")[0] or "full"


def markdown(lines: Sequence[Line]) -> str:
    """All lines as Markdown tables, one an experiment."""
    parts = []
    for title, counts, part in grouped(lines):
        rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells() for line in part)]
        table = "\n".join(table_row(*row) for row in rows)
        parts.append(f"### {title}\n\nThe share is of: {counts}.\n\n{table}")
    return "\n\n".join(parts) + "\n"
