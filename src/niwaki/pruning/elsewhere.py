"""Latency on another device, out of what `bench.py` printed there.

Its files are one network at several sizes, each of which states its multiply-adds. Between them,
time is taken to follow the multiply-adds in straight lines; below the least of them it is taken to
fall no further. A smaller network is never taken to be slower.

Worked example: with a half of the multiply-adds left, a network took 0.7 of the time, with a tenth
0.4. Of one with 0.3 left, 0.4 + (0.7 - 0.4) · (0.3 - 0.1) / (0.5 - 0.1) = 0.55 is expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from niwaki.core.errors import SettingError

HOW = "niwaki export … --bench --ladder writes what is to be run there"


@dataclass(frozen=True)
class Elsewhere:
    """How long networks of one kind take on a device, by their size.

    Attributes:
        points: (share of the multiply-adds left, share of the time), ascending; the last is (1, 1).
        machine: where it was measured.
    """

    points: tuple[tuple[float, float], ...]
    machine: str

    def __call__(self, share: float) -> float:
        """The share of the original's time that a network with this share of its multiply-adds
        takes.
        """
        (low, time), *rest = self.points
        if share <= low:
            return time
        for high, more in rest:
            if share <= high:
                return time + (more - time) * (share - low) / (high - low)
            low, time = high, more
        return time


def read(path: str, macs: int) -> Elsewhere:
    """What was measured, for a network of so many multiply-adds a sample.

    Raises:
        SettingError: it cannot be read, the network is not among those that were measured, or no
            smaller one is.
    """
    try:
        printed = json.loads(Path(path).read_text(encoding="utf-8"))
        stating = [entry for entry in printed["files"].values() if "macs" in entry]
        taken = {  # of files of one size, the first counts
            _whole(entry["macs"]): _number(entry["ratio_to_first"]) for entry in reversed(stating)
        }
        if not taken:
            raise ValueError("no file of it states its multiply-adds")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingError(
            f"measured={path} does not hold what bench.py printed on the other device "
            f"({type(error).__name__}: {error}); {HOW}"
        ) from error
    if macs not in taken:
        sizes = ", ".join(f"{size:,}" for size in sorted(taken, reverse=True))
        raise SettingError(
            f"measured={path} is of networks of {sizes} multiply-adds, and this one has {macs:,}: "
            f"time this network, on inputs of this shape; {HOW}"
        )
    smaller = sorted(size for size in taken if size < macs)
    if not smaller:
        raise SettingError(
            f"measured={path} has no smaller network beside this one, so that nothing is known of "
            f"how time falls; {HOW}"
        )
    times = accumulate((min(taken[size] / taken[macs], 1.0) for size in smaller), max)
    points = [(size / macs, time) for size, time in zip(smaller, times, strict=True)]
    return Elsewhere((*points, (1.0, 1.0)), _machine(printed))


def _whole(value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise ValueError(f"{value!r} is no number of multiply-adds")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is no ratio of times")
    return float(value)


def _machine(printed: dict[str, Any]) -> str:
    named: Iterable[Any] = (printed.get(key) for key in ("machine", "provider"))
    return ", ".join(str(part) for part in named if part) or "another device"
