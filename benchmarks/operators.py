"""All operators that niwaki has a record of, as a page: docs/operators.md.

python benchmarks/operators.py --page
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pages import as_table, write_between

from niwaki.pruning._operator import COLUMNS, operator, operators

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
START, END = "<!-- operators -->", "<!-- end of operators -->"


def as_markdown() -> str:
    """The columns, and a table of operators that are alike in all of them."""
    meanings = [f"* **{column.name}**: {column.meaning}." for column in COLUMNS]
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name in operators():
        alike.setdefault(tuple(operator(name).lines.items()), []).append(name)
    rows = sorted((_names(names), _cells(lines)) for lines, names in alike.items())
    return "\n".join([*meanings, "", as_table(["operators", "what is known of them"], rows)])


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name.removeprefix('aten.')}`" for name in names)


def _cells(lines: tuple[tuple[str, str], ...]) -> str:
    plain = ((column, words.replace("|", "\\|").replace("*", "\\*")) for column, words in lines)
    return "<br>".join(f"**{column}**: {words}" for column, words in plain)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write docs/operators.md anew")
    if parser.parse_args().page:
        write_between(PAGE, START, END, as_markdown())
    else:
        print(as_markdown())
