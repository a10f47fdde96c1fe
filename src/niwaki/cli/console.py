"""Two ways out: results on standard output, everything said on the way on standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from niwaki.records import Measurement, Record

results = Console()
messages = Console(stderr=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is words and whose others are numbers."""
    drawn = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def before_after(record: Record, title: str) -> Table:
    """The table of one run."""
    rows = [
        [name, show(record.before), show(record.after), _change(name, record)]
        for name, show in _ROWS.items()
        if show(record.before) != "–" or show(record.after) != "–"
    ]
    return table(title, ["", "before", "after", "change"], rows)


_ROWS: dict[str, Callable[[Measurement], str]] = {
    "accuracy": lambda m: "–" if m.accuracy is None else f"{m.accuracy:.2%}",
    "loss": lambda m: "–" if m.loss is None else f"{m.loss:.4f}",
    "parameters": lambda m: f"{m.params:,}",
    "MACs a sample": lambda m: f"{m.macs:,}",
    "latency": lambda m: f"{m.latency_ms:.2f} ms",
    "throughput": lambda m: "–" if m.throughput is None else f"{m.throughput:,.0f} samples/s",
    "size": lambda m: f"{m.bytes:,} B",
    "peak memory": lambda m: "–" if m.peak_bytes is None else f"{m.peak_bytes:,} B",
}
_SIZES = {"parameters": "params", "MACs a sample": "macs", "latency": "latency_ms", "size": "bytes"}


def _change(name: str, record: Record) -> str:
    before, after = record.before, record.after
    if name == "accuracy" and before.accuracy is not None and after.accuracy is not None:
        return f"{100 * (after.accuracy - before.accuracy):+.2f} points"
    if name in _SIZES:
        return ratio(_size(before, name), _size(after, name))
    return ""


def _size(measurement: Measurement, name: str) -> float:
    return float(getattr(measurement, _SIZES[name]))


def ratio(before: float, after: float) -> str:
    """How many times smaller."""
    return f"{before / after:.2f}× less" if after else ""
