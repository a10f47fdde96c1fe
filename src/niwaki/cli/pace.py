"""How long a queue of cells still takes, by those that were run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

AT_ONCE = 1.0  # seconds: a cell that took less was read and not run


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Pace:
    """Says of every cell that ends which of how many it was, and how long the others may take.

    Attributes:
        total: cells of the queue.
        say: where to.
        clock: seconds now.
    """

    total: int
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    took: list[float] = field(default_factory=list)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.clock()

    def __call__(self, text: str) -> None:
        """A cell ended, as the text says."""
        now = self.clock()
        if now - self.last >= AT_ONCE:
            self.took.append(now - self.last)
        self.last, self.done = now, self.done + 1
        self.say(f"{text} ({self.where()})")

    def skip(self, cells: int) -> None:
        """So many cells will not be run."""
        self.total -= cells

    def where(self) -> str:
        """Which of how many, and the time left where there is any."""
        left = self.total - self.done
        if not self.took or left <= 0:
            return f"{self.done} of {self.total}"
        mean = sum(self.took) / len(self.took)
        return f"{self.done} of {self.total}, about {duration(mean * left)} left"
