"""One run in full: what is left, channels group by group, residuals, scores, dependencies, settings
and versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from niwaki.core.records import DependencyMap
from niwaki.core.records.comparison import ROWS
from niwaki.report.runs import Run

LEFT_OF = ("params", "macs", "latency", "bytes", "peak")
CELL = 8  # units of a heat map's drawing


def run_section(run: Run, number: int, opened: bool, later: bool = False) -> str:
    """A part of the page that folds.

    Args:
        later: what is inside is drawn when it is first unfolded.
    """
    record = run.record
    said = [
        str(record.settings[key])
        for key in ("criterion", "budget", "compensation")
        if record.settings.get(key)
    ]
    parts = [
        _left(run),
        _groups(run),
        _residuals(run),
        _scores(run),
        _maps(run.dependencies),
        _notes([*run.problems, *record.notes]),
        _facts(run),
    ]
    inside = "".join(part for part in parts if part)
    if later and not opened:
        inside = f"<template><div class=inside>{inside}</div></template>"
    else:
        inside = f"<div class=inside>{inside}</div>"
    return (
        f"<details class=card id=run-{number}{' open' if opened else ''}><summary>"
        f"<span class=badge>{number}</span>{escape(run.name)}<span "
        f"class=note>{escape(' · '.join(said))}</span></summary>"
        f"{inside}</details>"
    )


def _left(run: Run) -> str:
    rows = []
    for key in LEFT_OF:
        name, value, _ = ROWS[key]
        before, after = value(run.record.before), value(run.record.after)
        if before and after is not None:
            share = after / before
            rows.append(_bar(name.partition(",")[0], share, f"{share:.1%}"))
    return f"<section><h3>What is left of the original</h3><div class=bars>{''.join(rows)}</div></section>"


def _bar(name: str, share: float, value: str, kind: str = "") -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f"<span>{escape(name)}</span><div class='bar {kind}'><i "
        f"style='width:{width:.1f}%'></i></div>"
        f"<span class=value>{value}</span>"
    )


def _groups(run: Run) -> str:
    """Bars as long as the group was wide, filled as far as units are left."""
    widths = run.widths
    if not widths:
        return ""
    widest = max(first for _, first, _ in widths)
    rows = "".join(
        f"<div class='bars groups'><span>{escape(name)}</span><div class='bar sized'>"
        f"<div style='width:{100 * first / widest:.1f}%'><i "
        f"style='width:{100 * left / first:.1f}%'></i></div></div>"
        f"<span class=value>{left} of {first}</span></div>"
        for name, first, left in widths
    )
    again = f", after {len(run.steps)} prunings" if len(run.steps) > 1 else ""
    return (
        f"<section><h3>Channels kept, by group{again}</h3><div class=columns>{rows}</div></section>"
    )


def _residuals(run: Run) -> str:
    residuals = run.record.residuals
    if not residuals:
        return ""
    most = max(*residuals.values(), 1e-12)
    rows = "".join(
        f"<div class='bars groups'>{_bar(name, value / most, f'{value:.2%}', 'loss')}</div>"
        for name, value in residuals.items()
    )
    return (
        "<section><h3>What the repair could not restore</h3><p class=note>The share of what a "
        "group's readers see that is "
        "lost, on the calibration inputs or under the moments that stand for them.</p>"
        f"<div class=columns>{rows}</div></section>"
    )


def _scores(run: Run) -> str:
    """The histogram of importances: what stayed on what went."""
    table = run.record.importances
    edges, kept, removed = (table.get(key, []) for key in ("edges", "kept", "dropped"))
    if not kept or len(kept) != len(removed) or len(edges) != len(kept) + 1:
        return ""
    most = max(*(a + b for a, b in zip(kept, removed, strict=True)), 1)
    columns = []
    for index, (stays, goes) in enumerate(zip(kept, removed, strict=True)):
        label = (
            f"{edges[index]:.3g} to {edges[index + 1]:.3g}: {stays:.0f} kept, {goes:.0f} removed"
        )
        bars = "".join(
            f"<i class={kind} style='height:{100 * count / most:.2f}%'></i>"
            for kind, count in (("gone", goes), ("kept", stays))
        )
        columns.append(f"<div title='{label}'>{bars}</div>")
    total = f"{sum(kept):,.0f} units kept, {sum(removed):,.0f} removed, by their score"
    criterion = escape(str(run.record.settings.get("criterion", "criterion")))
    return (
        f"<section><h3>Importances</h3><p class=note>{total} ({criterion}).</p>"
        f"<div class=histogram role=img aria-label='{total}'>{''.join(columns)}</div>"
        f"<div class=ends><span>{edges[0]:.3g}</span><span>{edges[-1]:.3g}</span></div>"
        "<div class=legend><span><i class=best></i>kept</span><span><i "
        "class=original></i>removed</span></div></section>"
    )


def _maps(maps: Iterable[DependencyMap]) -> str:
    drawings = "".join(_map(item) for item in maps)
    if not drawings:
        return ""
    return (
        "<section><h3>Dependencies</h3><p class=note>How much each group of a layer depends on "
        "each group of the layer "
        "before: the stronger the colour, the more; a cross is a block that was removed, a stroke "
        "one that was in part.</p>"
        f"<div class=maps>{drawings}</div></section>"
    )


def _map(dependencies: DependencyMap) -> str:
    rows, columns = len(dependencies.values), len(dependencies.values[0])
    most = max(*(value for row in dependencies.values for value in row), 1e-12)
    cells, crosses = [], []
    for i, row in enumerate(dependencies.values):
        for j, value in enumerate(row):
            x, y = j * CELL, i * CELL
            strength = min(max(value / most, 0.0), 1.0)
            cells.append(
                f"<rect x='{x}' y='{y}' width='{CELL}' height='{CELL}' "
                f"fill-opacity='{strength:.2f}'/>"
            )
            share = dependencies.gone[i][j] if dependencies.gone else 0
            if share > 0:
                crosses.append(f"M{x + CELL - 2} {y + 2}l-{CELL - 4} {CELL - 4}")
            if share == 1:
                crosses.append(f"M{x + 2} {y + 2}l{CELL - 4} {CELL - 4}")
    name = f"{dependencies.child} on {dependencies.parent}"
    return (
        f"<figure class=map><svg viewBox='0 0 {columns * CELL} {rows * CELL}' role=img "
        f"aria-label='{escape(name)}'>"
        f"{''.join(cells)}<path d='{''.join(crosses)}'/></svg><p class=note>{escape(name)}, at "
        f"most {most:.3g}</p></figure>"
    )


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h3>Notes</h3><ul>{items}</ul></section>" if items else ""


def _facts(run: Run) -> str:
    record = run.record
    tables = {
        "Settings": {**record.settings, "seed": record.seed},
        "Where and when": {
            **record.versions,
            **{key: value for key, value in record.hardware.items() if value is not None},
            "created": record.created,
            **{f"seconds: {key}": round(value, 2) for key, value in record.seconds.items()},
        },
    }
    parts = [
        f"<div><h3>{name}</h3><dl>{_terms(table)}</dl></div>" for name, table in tables.items()
    ]
    return f"<section class=two>{''.join(parts)}</section>"


def _terms(table: dict[str, Any]) -> str:
    return "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(_said(value))}</dd>"
        for key, value in table.items()
    )


def _said(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "–"
    if isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) < 400 else f"{text[:400]} …"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9999
        else str(value)
    )
