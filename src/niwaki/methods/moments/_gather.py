"""The moments of the original network's units, counted in one pass over the calibration inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from niwaki.graph.places import Places
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import readers
from niwaki.running import Op, batch_size, run


def gather(
    evidence: Evidence, groups: Iterable[str], who: str, places: int | None = None
) -> dict[str, dict[str, Moments]]:
    """Group → consumer weight → moments of the units where that weight reads them, each place of a
    map a row.

    Args:
        who: the method that asks, for messages.
        places: at most so many places of each input's map, evenly spread; neighbours tell nearly
            the same.

    Raises:
        SettingError: there are no calibration inputs, or they hold NaN.
        TraceError: the model cannot be run on them.
    """
    graph = evidence.graph
    where = readers(graph, groups)
    known: dict[str, dict[str, Moments]] = {}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for reader in where.get(position, ()):
            moments = known.setdefault(reader.group, {}).setdefault(
                reader.weight, Moments(reader.width)
            )
            rows = reader.rows(args[reader.read.slot], None, chosen)
            moments.add(rows, f"what {op.layer or 'the model'} reads", size)
        return op.func(*args, **kwargs)

    for inputs, _ in evidence.batches(who):
        size, chosen = batch_size(inputs), Places.of(inputs, places)
        run(graph.model, graph.inference.tape, inputs, step)
    return known
