"""What is seen of a sweep: a table that grows while it runs, and the whole one in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from niwaki.cli.console import Numbers, messages, results, table
from niwaki.cli.pace import duration
from niwaki.cli.voice import voice
from niwaki.core.errors import DataError
from niwaki.core.records import Record
from niwaki.core.records.comparison import ROWS
from niwaki.sweep import Board, SweepFolder, front_of
from niwaki.sweep.cell import record_of
from niwaki.sweep.front import measures_of
from niwaki.sweep.run import Pairs, Watch, is_done

LAST = 12  # rows of the live table
SHOWN = ("accuracy", "params", "macs", "latency")


@contextmanager
def live(front: tuple[str, str]) -> Iterator[Watch]:
    """Something to tell of cells as they end: a table on a terminal, else a line each."""
    if not messages.is_terminal or voice.quiet:
        yield _say
        return
    with Live(console=messages, refresh_per_second=4, transient=True) as drawing:
        yield lambda board: drawing.update(_drawn(board, front), refresh=True)


def _say(board: Board) -> None:
    if len(board.ended) == board.read:
        if board.read:
            messages.print(f"{board.read} of {board.total} cells were done before", markup=False)
        return
    cell, outcome = board.ended[-1]
    what = "done" if is_done(outcome) else f"FAILED: {outcome['reason']}"
    messages.print(f"{_head(board)}: {cell.label}: {what}", markup=False)


def _head(board: Board) -> str:
    words = [f"{len(board.ended)} of {board.total}"]
    words += [f"{board.failed} failed"] if board.failed else []
    left = board.seconds_left
    words += [f"about {duration(left)} left"] if left else []
    return ", ".join(words)


def _drawn(board: Board, front: tuple[str, str]) -> Numbers | Table:
    return _table(board.ended, front, _head(board), last=LAST)


def show(pairs: Pairs, front: tuple[str, str], folder: SweepFolder) -> None:
    """The whole table, with why cells failed, and where the page is.

    Raises:
        DataError: none is done.
    """
    reasons = dict.fromkeys(outcome["reason"] for _, outcome in pairs if not is_done(outcome))
    if not any(is_done(outcome) for _, outcome in pairs):
        raise DataError(f"no cell could be run: {'; '.join(reasons)}")
    results.print(
        _table(pairs, front, f"{len(pairs)} cells; * on the front of {' and '.join(front)}")
    )
    for cell, outcome in pairs:
        if not is_done(outcome):
            messages.print(
                f"{cell.label} failed: {outcome['reason']}", style="yellow", markup=False
            )
    known = {
        name for _, outcome in pairs if is_done(outcome) for name in measures_of(record_of(outcome))
    }
    if not known.issuperset(front):
        missing = next(name for name in front if name not in known)
        messages.print(f"no front: {missing} was not measured; see --data and --evaluate")
    page = folder.report(pairs)
    if page is not None:
        messages.print(f"all of it in {page}", markup=False)


def _table(
    pairs: Pairs, front: tuple[str, str], title: str, last: int | None = None
) -> Numbers | Table:
    done = [
        (number, record_of(outcome))
        for number, (_, outcome) in enumerate(pairs)
        if is_done(outcome)
    ]
    records = dict(done)
    names = _columns(list(records.values()), front)
    best = {done[i][0] for i in front_of([record for _, record in done], front)}
    rows = []
    for number, (cell, _) in enumerate(pairs):
        values = _cells(records.get(number), names)
        rows.append((cell.label, "*" if number in best else "", *values))
    titles = ["cell", "front", *(ROWS[name][0] if name in ROWS else name for name in names)]
    return table(title, titles, rows[-last:] if last else rows)


def _columns(records: Sequence[Record], front: tuple[str, str]) -> list[str]:
    known = dict.fromkeys(name for record in records for name in measures_of(record))
    own = [name for record in records[:1] for name in record.after.scores]
    return [name for name in dict.fromkeys([*own, *SHOWN, *front]) if name in known]


def _cells(record: Record | None, names: Sequence[str]) -> list[str]:
    if record is None:
        return ["failed", *[""] * (len(names) - 1)] if names else []
    values = measures_of(record)
    forms = {name: ROWS[name][2] if name in ROWS else "{:.4g}" for name in names}
    return [forms[name].format(values[name]) if name in values else "" for name in names]
