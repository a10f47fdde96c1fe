"""The baselines' rows for the overview."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from niwaki.papers.baselines.run import BaselineRun, committed
from niwaki.papers.hours import STEP, training_hours
from niwaki.papers.line import Line, Measured


def lines(tables: Mapping[str, Any]) -> Iterator[Line]:
    """Every row, with what was measured before and after fine-tuning."""
    for experiment, table in tables.items():
        for row in table["rows"]:
            yield Line(
                "Baselines",
                experiment,
                row["name"],
                f"{row['published_gone']:.2%}",
                table["counts"],
                row["published"],
                row.get("published_base"),
                tuple(measured(experiment, row["name"])),
                _hours(table, row),
            )


def _hours(table: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """With the full budget: two trainings where there is no checkpoint, else one with a teacher;
    before it, where factors are learned, that training (OED's is of two copies).
    """
    model, epochs = row.get("model", table.get("model", "")), table["budgets"]["full"]["epochs"]
    if "factors" not in row:
        passes = 2 * STEP if "penalty" in row else STEP + 1
        return training_hours(model, table["data"], epochs, passes)
    passes = {"sss": STEP, "gal": STEP + 1, "oed": 2 * STEP}[row["factors"]]
    learned = training_hours(model, table["data"], row["learned"]["full"]["epochs"], passes)
    if row["factors"] == "gal":
        learned += training_hours(model, table["data"], epochs, STEP + 1)
    return learned


def measured(experiment: str, row: str) -> Iterator[Measured]:
    """What the records have of a row: the median of its seeds, by budget."""
    by_budget: dict[str, list[BaselineRun]] = {}
    for run in committed():
        if (run.experiment, run.row) == (experiment, row):
            by_budget.setdefault(run.budget, []).append(run)
    for budget, runs in by_budget.items():
        untuned, gone, test, base = (
            statistics.median(getattr(run, name) for run in runs)
            for name in ("untuned", "gone", "test", "base")
        )
        detail = f"{untuned:.2f} before fine-tuning, {gone:.2%} gone"
        yield Measured(test, base, budget, len(runs), detail)
