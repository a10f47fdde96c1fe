"""Tables in the documentation that are written anew from a record, between two marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, start: str, end: str, table: str) -> None:
    """Put a table between the two marks of a page.

    Raises:
        ValueError: the page lacks one of them.
    """
    text = page.read_text(encoding="utf-8")
    before, after = text.index(start) + len(start), text.index(end, text.index(start))
    page.write_text(f"{text[:before]}\n{table}\n{text[after:]}", encoding="utf-8")
