"""What lies in the folders that a report is made of: records, plans, and dependency matrices where
there are some.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from niwaki.core.errors import DataError, NiwakiError
from niwaki.core.plan import Plan
from niwaki.core.records import DEPENDENCIES, DependencyMap, Record, RecordError, read_dependencies

RECORD, PLAN = "record.json", "plan.json"
DEEPEST = 3  # folders within the one that is given


@dataclass(frozen=True)
class Run:
    """One pruned network: all that a page says of it."""

    name: str
    record: Record
    steps: tuple[Plan, ...] = ()
    dependencies: tuple[DependencyMap, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def widths(self) -> list[tuple[str, int, int]]:
        """Group, units at first and units left, over all steps."""
        first: dict[str, int] = {}
        left: dict[str, int] = {}
        for step in self.steps:
            for name, kept in step.items():
                first.setdefault(name, kept.width)
                left[name] = len(kept.units)
        return [(name, first[name], left[name]) for name in first]


def read_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """The runs in some folders, and in those inside them; and what was left out, in words.

    Raises:
        DataError: there is no record that can be read in any of them; the message says what was
            wrong with each.
    """
    runs: list[Run] = []
    left_out: list[str] = []
    for folder in map(Path, folders):
        places = _places(folder)
        if not places:
            left_out.append(
                f"{folder} has no {RECORD}" if folder.is_dir() else f"{folder} is no folder"
            )
        for place in places:
            try:
                runs.append(_read(place, folder))
            except NiwakiError as error:
                left_out.append(str(error))
    if not runs:
        raise DataError(
            f"there is nothing to report: {'; '.join(left_out)}; name folders that niwaki prune "
            "--out wrote"
        )
    return _distinct(runs), left_out


def _places(folder: Path) -> list[Path]:
    places = [folder] if (folder / RECORD).is_file() else []
    if not places and folder.is_dir():
        for depth in range(1, DEEPEST + 1):
            places += [path.parent for path in folder.glob("/".join(["*"] * depth) + f"/{RECORD}")]
    return sorted(
        place
        for place in places
        if not any(part.startswith(".") for part in place.relative_to(folder).parts)
    )


def _read(place: Path, folder: Path) -> Run:
    try:
        record = Record.from_json((place / RECORD).read_text(encoding="utf-8"), str(place / RECORD))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{place / RECORD} cannot be read: {error}") from error
    problems: list[str] = []
    steps: tuple[Plan, ...] = ()
    maps: tuple[DependencyMap, ...] = ()
    try:
        steps = _steps(place / PLAN)
    except (NiwakiError, OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        problems.append(f"{PLAN} cannot be read, so channels are not shown: {error}")
    try:
        read = read_dependencies(place / DEPENDENCIES)
        maps = read.maps if read is not None else ()
    except RecordError as error:
        problems.append(f"{DEPENDENCIES} cannot be read, so dependencies are not shown: {error}")
    name = str(place.relative_to(folder)) if place != folder else place.resolve().name
    return Run(name, record, steps, maps, tuple(problems))


def _steps(path: Path) -> tuple[Plan, ...]:
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Plan.from_json(json.dumps({"schema": 1, "groups": step})) for step in data["steps"]
    )


def _distinct(runs: list[Run]) -> list[Run]:
    """Names that tell the runs apart."""
    seen: dict[str, int] = {}
    result = []
    for run in runs:
        seen[run.name] = seen.get(run.name, 0) + 1
        name = run.name if seen[run.name] == 1 else f"{run.name} ({seen[run.name]})"
        result.append(Run(name, run.record, run.steps, run.dependencies, run.problems))
    return result


def pareto(points: Iterable[tuple[float, float]]) -> list[int]:
    """Which of some (cost, accuracy) pairs no other beats: none is as cheap and better, or cheaper
    and as good; by cost.
    """
    pairs = list(points)
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i][0], -pairs[i][1]))
    front: list[int] = []
    for index in order:
        if not front or pairs[index][1] > pairs[front[-1]][1]:
            front.append(index)
    return front
