"""The page on the architecture draws the rooms that are there, and counts their arrows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import niwaki

ROOT = Path(niwaki.__file__).parent
PAGE = ROOT.parents[1] / "docs" / "architecture.md"
ROOMS = {path.parent.name for path in ROOT.glob("*/__init__.py")}


def imported(path: Path) -> Iterator[str]:
    """Modules of niwaki that a file imports, the packages' names among `from niwaki import …` too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "niwaki":
            yield from (f"niwaki.{item.name}" for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def arrows() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second."""
    pairs = {
        (path.relative_to(ROOT).parts[0], module.split(".")[1])
        for path in ROOT.glob("*/**/*.py")
        for module in imported(path)
        if module.startswith("niwaki.")
    }
    return {(a, b) for a, b in pairs if a in ROOMS and b in ROOMS and a != b}


def test_every_room_is_drawn() -> None:
    text = PAGE.read_text(encoding="utf-8")
    drawing = text[text.index("## Rooms") : text.index("A method is in one place")]
    first = re.findall(r"^    (\w+(?: \| \w+)*)  ", drawing, re.MULTILINE)
    assert {room for line in first for room in line.split(" | ")} == ROOMS
    assert f"Eighteen rooms, and {len(arrows())} arrows" in text
    assert len(ROOMS) == 18


def test_no_two_rooms_need_each_other() -> None:
    known = arrows()
    assert {(a, b) for a, b in known if (b, a) in known} == set()
