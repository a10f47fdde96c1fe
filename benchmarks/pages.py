"""Tables in the documentation that are written anew from a record, between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def as_table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> str:
    """A table in Markdown, its last columns, of so many numbers, set to the right."""
    marks = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    cells = ([f" {cell}" if cell != "" else "" for cell in row] for row in (heads, *rows))
    head, *rest = (f"|{' |'.join(row)} |" for row in cells)
    return "\n".join([head, f"|{'|'.join(marks)}|", *rest])


def write_between(page: Path, start: str, end: str, table: str) -> None:
    """Put a table between the two marks of a page.

    Raises:
        ValueError: the page lacks one of them.
    """
    text = page.read_text(encoding="utf-8")
    before, after = text.index(start) + len(start), text.index(end, text.index(start))
    page.write_text(f"{text[:before]}\n{table}\n{text[after:]}", encoding="utf-8")
