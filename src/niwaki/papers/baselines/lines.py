"""The baselines' rows for the overview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from niwaki.papers.baselines.run import BaselineRun, committed
from niwaki.papers.line import Line, Measured


def lines(tables: Mapping[str, Any]) -> Iterator[Line]:
    """Every row, with what was measured before and after fine-tuning."""
    for experiment, table in tables.items():
        for row in table["rows"]:
            runs = (
                run for run in committed() if (run.experiment, run.row) == (experiment, row["name"])
            )
            yield Line(
                "Baselines",
                experiment,
                row["name"],
                f"{row['published_gone']:.2%}",
                table["counts"],
                row["published"],
                row.get("published_base"),
                tuple(_measured(run) for run in runs),
            )


def _measured(run: BaselineRun) -> Measured:
    detail = f"{run.untuned:.2f} before fine-tuning, {run.gone:.2%} gone"
    return Measured(run.test, run.base, run.budget, detail=detail)
