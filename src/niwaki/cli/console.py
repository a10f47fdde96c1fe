"""Two ways out: results on standard output, everything said on the way on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement as Extent
from rich.table import Table
from rich.text import Text

from niwaki.cli.voice import voice
from niwaki.core.records import Record, rows

WIDE = 200  # characters a line where nobody looks at a screen


class Messages(Console):
    """What is said on the way; nothing of it with --quiet."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print, unless asked to be quiet."""
        if not voice.quiet:
            super().print(*objects, **how)


results = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
messages = Messages(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Numbers:
    """A table whose first column is words and whose others are numbers; where the terminal is too
    narrow for it, a paragraph a row, so that no number is cut off.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = self._drawn()
        wanted = Extent.get(console, options.update(max_width=10_000), drawn).maximum
        if wanted <= options.max_width:
            yield drawn
            return
        yield Text(self.title, overflow="fold")
        for name, *cells in self.rows:
            yield Text(name, style="bold", overflow="fold")
            for column, cell in zip(self.columns[1:], cells, strict=True):
                if cell:
                    yield Text(f"  {column}: {cell}" if column else f"  {cell}", overflow="fold")

    def _drawn(self) -> Table:
        drawn = Table(
            title=Text(self.title, overflow="fold"),
            title_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for index, column in enumerate(self.columns):
            drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
        for row in self.rows:
            drawn.add_row(*map(Text, row))
        return drawn


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False
) -> Numbers | Table:
    """A table whose first column is words and whose others are numbers.

    Args:
        wrap: all cells are words that go on in another line where the terminal is narrow.
    """
    if not wrap:
        return Numbers(title, columns, rows)
    drawn = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column)
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def before_after(record: Record, title: str) -> Numbers | Table:
    """The table of one run."""
    return table(title, ["", "before", "after", "change"], rows(record))


def now(record: Record, title: str) -> Numbers | Table:
    """The table of one network."""
    return table(title, ["", "measured"], [(name, value) for name, _, value, _ in rows(record)])
