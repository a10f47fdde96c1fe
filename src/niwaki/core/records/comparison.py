"""What a record says of before and after, in words: as text, as Markdown, and as HTML for
notebooks.
"""

from __future__ import annotations

from collections.abc import Callable

from niwaki.core.records.record import Measurement, Record

ROWS: dict[str, tuple[str, Callable[[Measurement], float | None], str]] = {
    "accuracy": ("accuracy", lambda m: m.accuracy, "{:.2%}"),
    "params": ("parameters", lambda m: m.params, "{:,.0f}"),
    "macs": ("MACs a sample", lambda m: m.macs, "{:,.0f}"),
    "latency": ("latency, ms", lambda m: m.latency_ms, "{:,.2f}"),
    "throughput": ("samples a second", lambda m: m.throughput, "{:,.0f}"),
    "bytes": ("bytes", lambda m: m.bytes, "{:,.0f}"),
    "peak": ("peak memory, bytes", lambda m: m.peak_bytes, "{:,.0f}"),
}

_SHOWN = {
    "accuracy": ROWS["accuracy"],
    "loss": ("loss", lambda m: m.loss, "{:.4f}"),
    **ROWS,
}  # losses have no figure
TIMED = ("latency", "peak")  # 0 where they were not measured


def taken(key: str, measurement: Measurement) -> float | None:
    """A number of a measurement; None where it was not measured."""
    number = ROWS[key][1](measurement)
    return None if key in TIMED and not number else number


def rows(record: Record) -> list[tuple[str, str, str, str]]:
    """Name, before, after and change, of everything that was measured on both sides."""
    lines = []
    for key, (name, value, form) in _SHOWN.items():
        before, after = value(record.before), value(record.after)
        if before is not None and after is not None and (key not in TIMED or before or after):
            lines.append(
                (name, form.format(before), form.format(after), change(key, before, after))
            )
        if key == "loss":
            lines += _scores(record)
    return lines


def _scores(record: Record) -> list[tuple[str, str, str, str]]:
    """Those of the user's own task, or of the agreement with the original."""
    before, after = record.before, record.after
    return [
        (name, f"{old:.4g}", f"{after.scores[name]:.4g}", f"{after.scores[name] - old:+.4g}")
        for name, old in before.scores.items()
        if name in after.scores and not (name in ("accuracy", "loss") and before.accuracy)
    ]


def change(key: str, before: float, after: float) -> str:
    """How a number changed, in words that fit it."""
    if key == "accuracy":
        return f"{100 * (after - before):+.2f} points"
    if key == "loss" or not before or not after:
        return ""
    if abs(after / before - 1) < 0.005:
        return "the same"
    return f"{after / before:.2f}× more" if after > before else f"{before / after:.2f}× less"


def as_text(record: Record) -> str:
    """Before and after, in columns."""
    lines = [("", "before", "after", ""), *rows(record)]
    return "\n".join(
        f"{name:<20}{before:>14}{after:>14}  {words}".rstrip()
        for name, before, after, words in lines
    )


def as_markdown(record: Record) -> str:
    """Before and after, as a table of a page."""
    lines = ["| | before | after | |", "|---|---:|---:|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows(record))])


def as_table(record: Record) -> str:
    """Before and after, as HTML that takes its colours from the page around it."""
    body = "".join(
        f"<tr><th style='text-align:left;font-weight:normal'>{name}</th>"
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows(record)
    )
    head = "<tr><th></th><th>before</th><th>after</th><th></th></tr>"
    return (
        "<table style='text-align:right;font-variant-numeric:tabular-nums'>"
        f"<thead>{head}</thead><tbody>{body}</tbody></table>"
    )
