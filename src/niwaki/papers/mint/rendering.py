"""The committed records as Markdown: published and measured side by side, in docs/mint.md and the
recipe's README.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from niwaki.papers.line import budget_of, table_row

HEAD = (
    "| {title} | published: gone, accuracy | measured: gone, accuracy "
    "| short or on a subset: gone, accuracy |\n|---|---|---|---|"
)


def committed() -> list[dict[str, Any]]:
    """The records that come with niwaki, by name."""
    folder = resources.files("niwaki.papers.mint").joinpath("records")
    files = sorted(
        (path for path in folder.iterdir() if path.name.endswith(".json")),
        key=lambda path: path.name,
    )
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def markdown(
    records: Iterable[Mapping[str, Any]], experiment: str, table: Mapping[str, Any]
) -> str:
    """One experiment: a line a row of the paper's table, medians over the seeds; cells without a
    record stay empty. Of a row's short and quick runs the short ones are shown.

    Args:
        table: the experiment's entry in tables.toml.
    """
    by_budget: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        for run in record["runs"]:
            if run["experiment"] == experiment:
                by_budget.setdefault((run["row"], budget_of(record)), []).append(run)

    def sides(row: str) -> list[list[dict[str, Any]]]:
        full, short, quick = (by_budget.get((row, name), []) for name in ("full", "short", "quick"))
        return [full, short or quick]

    lines = [HEAD.format(title=experiment)]
    if "baseline" in table:
        originals = (_medians(own, ("original",)) for own in sides(table["rows"][0]["name"]))
        lines.append(table_row("original", f"{table['baseline']:.2f}", *originals))
    for row in table["rows"]:
        here = sides(row["name"])
        published = f"{100 * row.get('published_gone', row['params']):.2f}, {row['published']:.2f}"
        lines.append(
            table_row(
                row["name"], published, *(_medians(own, ("gone", "accuracy")) for own in here)
            )
        )
        if "published_kb" in row:
            stored = (_medians(own, ("stored_kb",)) for own in here)
            lines.append(table_row(f"{row['name']}: kB", f"{row['published_kb']:g}", *stored))
    return "\n".join(lines)


def _medians(runs: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Medians of some numbers; with the accuracies of all seeds where there are several."""
    if not runs:
        return ""
    forms = {
        "gone": (100, ".2f"),
        "accuracy": (1, ".2f"),
        "original": (1, ".2f"),
        "stored_kb": (1, ".1f"),
    }
    parts = [
        format(forms[key][0] * statistics.median(run[key] for run in runs), forms[key][1])
        for key in keys
    ]
    seeds = (
        f" ({' '.join(format(run['accuracy'], '.2f') for run in runs)})"
        if len(runs) > 1 and "accuracy" in keys
        else ""
    )
    return ", ".join(parts) + seeds
