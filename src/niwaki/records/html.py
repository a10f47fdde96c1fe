"""A record as a small HTML table, for notebooks; it takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Callable

from niwaki.records.record import Measurement, Record

ROWS: dict[str, tuple[str, Callable[[Measurement], float | None], str]] = {
    "accuracy": ("accuracy", lambda m: m.accuracy, "{:.2%}"),
    "params": ("parameters", lambda m: m.params, "{:,.0f}"),
    "macs": ("MACs a sample", lambda m: m.macs, "{:,.0f}"),
    "latency": ("latency, ms", lambda m: m.latency_ms, "{:,.2f}"),
    "throughput": ("samples a second", lambda m: m.throughput, "{:,.0f}"),
    "bytes": ("bytes", lambda m: m.bytes, "{:,.0f}"),
    "peak": ("peak memory, bytes", lambda m: m.peak_bytes, "{:,.0f}"),
}


def rows(record: Record) -> list[tuple[str, str, str, str]]:
    """Name, before, after and change, of everything that was measured on both sides."""
    found = []
    for key, (name, value, form) in ROWS.items():
        before, after = value(record.before), value(record.after)
        if before is not None and after is not None:
            found.append((name, form.format(before), form.format(after), change(key, before, after)))
    return found


def change(key: str, before: float, after: float) -> str:
    """How a number changed, in words that fit it."""
    if key == "accuracy":
        return f"{100 * (after - before):+.2f} points"
    if not before or not after:
        return ""
    if abs(after / before - 1) < 0.005:
        return "the same"
    return f"{after / before:.2f}× more" if after > before else f"{before / after:.2f}× less"


def as_table(record: Record) -> str:
    """Before and after."""
    body = "".join(
        f"<tr><th style='text-align:left;font-weight:normal'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows(record)
    )
    head = "<tr><th></th><th>before</th><th>after</th><th></th></tr>"
    return (
        f"<table style='text-align:right;font-variant-numeric:tabular-nums'><thead>{head}</thead><tbody>{body}</tbody></table>"
    )
