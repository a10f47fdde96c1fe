"""What it takes to time two networks later: most prunings of a search or a loop are never looked at
again, and timing a small network takes longer than pruning it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from niwaki.core.records import Record
from niwaki.measure import cpu_threads, measure_latency, peak_memory
from niwaki.running import Inputs, copied, preserved_state


@dataclass(frozen=True, eq=False)
class Bench:
    """What a pruned network is timed against, and on what.

    Attributes:
        original: the network that was pruned.
        inputs: the example batch, of the size that the budget asks for.
        threads: of the CPU; None for as many as are set.
    """

    original: nn.Module
    inputs: Inputs
    threads: int | None = None

    def timed(self, model: nn.Module, record: Record) -> Record:
        """The record with latency and peak memory of both, timed in turns."""
        inputs, models = copied(self.inputs), [self.original, model]
        with preserved_state(self.original), preserved_state(model), cpu_threads(self.threads):
            latencies = measure_latency(models, inputs)
            peaks = [peak_memory(one, inputs) for one in models]
        before, after = (
            replace(
                measurement,
                latency_ms=latency.median_ms,
                latency_spread_ms=latency.spread_ms,
                peak_bytes=peak,
            )
            for measurement, latency, peak in zip(
                (record.before, record.after), latencies, peaks, strict=True
            )
        )
        return replace(record, before=before, after=after)
