"""The numbers of a report, for other programs: one row a run, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from niwaki.report.runs import Run

MEASURED = (
    "accuracy",
    "loss",
    "params",
    "macs",
    "latency_ms",
    "latency_spread_ms",
    "throughput",
    "bytes",
    "peak_bytes",
    "batch",
    "samples",
)
SETTINGS = ("model", "criterion", "budget", "compensation", "scope")


def as_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every run as a flat table: what it was, and all that was measured before and after."""
    rows = []
    for run in runs:
        record = run.record
        row: dict[str, Any] = {
            "run": run.name,
            **{key: record.settings.get(key) for key in SETTINGS},
            "seed": record.seed,
        }
        for key in MEASURED:
            row[f"{key}_before"], row[f"{key}_after"] = (
                getattr(record.before, key),
                getattr(record.after, key),
            )
        rows.append({**row, "steps": len(run.steps), "created": record.created})
    return rows


def as_csv(runs: Sequence[Run]) -> str:
    """The rows as comma-separated values with a head; empty where nothing was measured."""
    rows = as_rows(runs)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # a spreadsheet takes what begins so for a formula
        writer.writerow(
            {
                k: f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@") else v
                for k, v in row.items()
            }
        )
    return text.getvalue()


def as_json(runs: Sequence[Run]) -> str:
    """The rows, and what a run has beside them: units a group, residuals, the histogram of scores,
    settings, versions.
    """
    entries = []
    for row, run in zip(as_rows(runs), runs, strict=True):
        groups = [{"group": name, "units": first, "kept": left} for name, first, left in run.widths]
        record = run.record
        more = {
            "residuals": record.residuals,
            "importances": record.importances,
            "notes": list(record.notes),
        }
        where = {
            "settings": record.settings,
            "versions": record.versions,
            "hardware": record.hardware,
        }
        entries.append({**row, "groups": groups, **more, **where})
    return json.dumps({"schema": 1, "runs": entries}, indent=2, ensure_ascii=False) + "\n"
