"""MINT's rows for the overview, and those of the methods that its tables compare with."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from niwaki.papers.baselines import lines as baselines
from niwaki.papers.hours import training_hours
from niwaki.papers.line import Line, Measured, budget_of
from niwaki.papers.mint.rendering import committed

COUNTS = "weights of the layers that are cut"


def lines(tables: Mapping[str, Any]) -> Iterator[Line]:
    """Every row, then what its table compares with, from their own papers."""
    for experiment, table in tables.items():
        for row in table["rows"]:
            gone = row.get("published_gone", row["params"])
            yield Line(
                "MINT",
                experiment,
                row["name"],
                f"{gone:.2%}",
                COUNTS,
                row["published"],
                table.get("baseline"),
                tuple(_measured(experiment, row["name"])),
                training_hours(table["model"], table["data"], _epochs(table, row)),
            )
        for other in table.get("compared", ()):
            yield Line(
                "Methods that MINT compares with",
                experiment.removesuffix("-authors"),
                other["name"],
                f"{other['gone']:.2%}",
                other["counts"],
                other["published"],
                other.get("base"),
                tuple(_elsewhere(other.get("measured_as"))),
            )


def _epochs(table: Mapping[str, Any], row: Mapping[str, Any]) -> int:
    """Of what is left, once, with the full budget; the unpruned network comes before that."""
    return int(row.get("tuning", table.get("tuning", {}))["epochs"])


def _elsewhere(place: str | None) -> Iterator[Measured]:
    """What the baselines' records have of a row of theirs, "experiment/row"."""
    if place is not None:
        experiment, _, row = place.partition("/")
        yield from baselines.measured(experiment, row)


def _measured(experiment: str, row: str) -> Iterator[Measured]:
    by_budget: dict[str, list[dict[str, Any]]] = {}
    for record in committed():
        budget = budget_of(record)
        those = [r for r in record["runs"] if (r["experiment"], r["row"]) == (experiment, row)]
        by_budget.setdefault(budget, []).extend(those)
    for budget, runs in by_budget.items():
        if runs:
            gone, accuracy, base = (
                statistics.median(run[key] for run in runs)
                for key in ("gone", "accuracy", "original")
            )
            yield Measured(accuracy, base, budget, len(runs), f"{gone:.2%} gone")
