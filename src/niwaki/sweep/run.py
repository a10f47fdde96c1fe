"""The sweep itself: cells that are done are read, all others run, and each is kept as it ends."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from niwaki.core.work import Workers
from niwaki.sweep.cell import DONE, FAILED, Outcome, outcome_of
from niwaki.sweep.folder import SweepFolder
from niwaki.sweep.grid import Cell

Pairs = list[tuple[Cell, Outcome]]
RunCell = Callable[[dict[str, Any], dict[str, Any]], Outcome]


@dataclass
class Board:
    """How far a sweep is: what a live table is drawn from.

    Attributes:
        read: cells that an earlier call had finished.
        ended: cells and what came of them, in the order in which they ended.
    """

    total: int
    read: int = 0
    ended: Pairs = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(outcome["status"] == FAILED for _, outcome in self.ended)

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the cells that were run; None before the first."""
        ran = len(self.ended) - self.read
        passed = time.monotonic() - self.started
        return passed / ran * (self.total - len(self.ended)) if ran else None


class Watch(Protocol):
    """What is told whenever a cell ends."""

    def __call__(self, board: Board) -> None: ...


def run_cells(
    cells: Sequence[Cell],
    folder: SweepFolder,
    work: RunCell,
    *,
    workers: Workers,
    watch: Watch = lambda board: None,
) -> Pairs:
    """All cells with what came of them, in the order of `cells`.

    Args:
        work: runs one cell, of (what all share, the cell's words) as plain tables; a function of a
            module, that returns why where it fails.
    """
    board, outcomes = Board(len(cells)), dict[str, Outcome]()
    by_name = {cell.name: cell for cell in cells}
    for cell in cells:
        outcome = folder.finished(cell)
        if outcome is not None:
            outcomes[cell.name] = outcome
            board.ended.append((cell, outcome))
    board.read = len(board.ended)
    watch(board)
    shared = dataclasses.asdict(folder.common)
    left = {
        name: (shared, dataclasses.asdict(cell))
        for name, cell in by_name.items()
        if name not in outcomes
    }
    for name, result in workers.try_each(work, left):
        outcomes[name] = outcome_of(result)
        if is_done(outcomes[name]):
            folder.write(by_name[name], outcomes[name])
        board.ended.append((by_name[name], outcomes[name]))
        watch(board)
    pairs = [(cell, outcomes[cell.name]) for cell in cells]
    _keep_failed(pairs, folder)
    return pairs


def _keep_failed(pairs: Pairs, folder: SweepFolder) -> None:
    """Write why cells failed beside those that are done; without any there is no sweep to keep."""
    if any(is_done(outcome) for _, outcome in pairs):
        for cell, outcome in pairs:
            if not is_done(outcome):
                folder.write(cell, outcome)


def is_done(outcome: Outcome) -> bool:
    """Whether there is a network's record in it."""
    return bool(outcome["status"] == DONE)
