"""Networks are timed with few runs where a test is about something else."""

from __future__ import annotations

import sys
from functools import partial

import pytest


def take_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in the place of a second of them, and no run for peak memory."""
    places = [sys.modules["niwaki.measure._snapshot"], sys.modules["niwaki.pruning.bench"]]
    quick = partial(places[0].measure_latency, repeats=2, warmup=1, seconds=0)
    for place in places:
        monkeypatch.setattr(place, "measure_latency", quick)
        monkeypatch.setattr(place, "peak_memory", lambda model, inputs: 0)
