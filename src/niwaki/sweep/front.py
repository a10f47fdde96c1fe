"""What a cell was measured to be, by name, and which cells nothing beats in two such measures."""

from __future__ import annotations

from collections.abc import Sequence

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.records import Record
from niwaki.core.records.comparison import ROWS, taken
from niwaki.report import pareto

MORE_IS_BETTER = {"accuracy": True, "throughput": True}
LESS_IS_BETTER = ("loss", "params", "macs", "latency", "bytes", "peak")
TIMES = frozenset(("latency", "throughput", "peak"))  # measured where they are asked for
ALWAYS = (*ROWS, "loss", "agreement", "cosine")  # what may be measured without a task of one's own


def measures_of(record: Record) -> dict[str, float]:
    """All that was measured of the pruned network, scores of the user's own task among it."""
    rows = {name: taken(name, record.after) for name in ROWS}
    known = {**rows, "loss": record.after.loss, **record.after.scores}
    return {name: float(value) for name, value in known.items() if value is not None}


def is_better_higher(name: str, record: Record) -> bool:
    """Whether more of a measure is better; of the user's own scores the record says it."""
    if name in LESS_IS_BETTER:
        return False
    task = record.settings.get("task", {})
    if task.get("primary") == name:
        return bool(task["more_is_better"])
    return MORE_IS_BETTER.get(name, True)


def two_measures(text: str, *, own: bool = False) -> tuple[str, str]:
    """The names in "accuracy,macs".

    Args:
        own: there is a task of the user's, whose names show only when it is run.

    Raises:
        SettingError: they are not two.
        UnknownNameError: one of them is never measured.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise SettingError(f"a front lies between two measures, as accuracy,macs; got {text!r}")
    for name in names:
        if not own and name not in ALWAYS:
            raise UnknownNameError("measure", name, ALWAYS)
    return names[0], names[1]


def front_of(records: Sequence[Record], names: tuple[str, str]) -> list[int]:
    """Which records no other beats: none is as good in one of the measures and better in the
    other.

    Example: (accuracy, MACs) of (0.9, 5), (0.8, 2) and (0.7, 3): the third is beaten by the second.

    Records without one of the measures are on no front.
    """
    known = [measures_of(record) for record in records]
    shown = [i for i, measures in enumerate(known) if all(name in measures for name in names)]
    good, cost = ([_signed(name, records[i], known[i][name]) for i in shown] for name in names)
    return sorted(shown[i] for i in pareto(zip((-value for value in cost), good, strict=True)))


def _signed(name: str, record: Record, value: float) -> float:
    """More is better."""
    return value if is_better_higher(name, record) else -value
