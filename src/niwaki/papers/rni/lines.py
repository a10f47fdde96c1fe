"""RNI's rows for the overview, with its own baselines L1 and UCS."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from niwaki.papers.hours import training_hours
from niwaki.papers.line import Line, Measured
from niwaki.papers.rni.runs import CellRun, committed

COUNTS = "filters that can be pruned (VGG-16: all; ResNet-56: first convolutions of the blocks)"


def lines(tables: Mapping[str, Any]) -> Iterator[Line]:
    """Every cell of the tables, pruned ones with the unpruned network of their method beside."""
    for experiment, table in tables.items():
        for method, given in table["methods"].items():
            published = given.get("published", [None] * len(table["removed"]))
            for share, number in zip(table["removed"], published, strict=True):
                done = "pruned, fine-tuned" if share else "as trained"
                yield Line(
                    "RNI",
                    experiment,
                    f"{method}, {done}",
                    f"{share:.0%}",
                    COUNTS,
                    number,
                    published[0],
                    tuple(_measured(experiment, method, share)),
                    training_hours(table["arch"], table["data"], _epochs(table, share)),
                )


def _epochs(table: Mapping[str, Any], share: float) -> int:
    """Of one cell with the full budget."""
    return int(table["budgets"]["full"]["tuning" if share else "epochs"])


def _measured(experiment: str, method: str, share: float) -> Iterator[Measured]:
    runs = [run for run in committed() if (run.experiment, run.method) == (experiment, method)]
    for budget in dict.fromkeys(run.budget for run in runs):
        here = [run for run in runs if (run.budget, run.removed) == (budget, share)]
        first = [run for run in runs if (run.budget, run.removed) == (budget, 0.0)]
        if here:
            yield Measured(_mean(here), _mean(first) if first else None, budget, len(here))


def _mean(runs: list[CellRun]) -> float:
    return statistics.fmean(run.test for run in runs)
