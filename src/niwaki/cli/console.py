"""Two ways out: results on standard output, everything said on the way on standard error."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from niwaki.core.records import Record, rows

results = Console()
messages = Console(stderr=True)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False
) -> Table:
    """A table whose first column is words and whose others are numbers.

    Args:
        wrap: cells go on in another line where the terminal is narrow; else they are cut off.
    """
    drawn = Table(
        title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=not wrap)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def before_after(record: Record, title: str) -> Table:
    """The table of one run."""
    return table(title, ["", "before", "after", "change"], rows(record))
