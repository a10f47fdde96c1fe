"""When a training run loses how much: a budget that is reached step by step.

Source of "cubic": Zhu, Gupta, To prune, or not to prune, 2017, arXiv 1710.01878: much goes early,
while the network has much to spare, and little at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError, UnknownNameError

Shape = Literal["cubic", "linear", "one-shot"]
Place = int | float  # a step, or a share of the run

GROWTH: dict[Shape, Callable[[float], float]] = {
    "cubic": lambda done: 1 - (1 - done) ** 3,
    "linear": lambda done: done,
    "one-shot": lambda done: 1.0,
}


@dataclass(frozen=True)
class Schedule:
    """A budget, and how a run gets there.

    Attributes:
        budget: what is gone in the end, of the network as it was at the start.
        shape: "cubic" (1 - (1 - t)³ of it at t of the way), "linear", or "one-shot": all of it at
            `begin`.
        times: how many cuts, evenly spaced from `begin` to `end`.
        begin, end: steps of the optimiser as whole numbers, or shares of the run (0.1).

    Example:
        >>> [(step, str(budget)) for step, budget in Schedule("macs=0.5", times=3).cuts(100)]
        [(10, 'macs=0.351852'), (40, 'macs=0.481481'), (70, 'macs=0.5')]
    """

    budget: Budget | Mapping[str, Any] | float | str = 0.5
    shape: Shape = "cubic"
    times: int = 5
    begin: Place = 0.1
    end: Place = 0.7

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", Budget.parse(self.budget))
        if self.shape not in GROWTH:
            raise UnknownNameError("shape of a schedule", self.shape, get_args(Shape))
        if type(self.times) is not int or self.times < 1:
            raise SettingError(
                f"times= of a schedule is how many cuts are made, at least 1; got {self.times!r}"
            )
        for name, place in (("begin", self.begin), ("end", self.end)):
            _check(name, place)

    def cuts(self, steps: int) -> tuple[tuple[int, Budget], ...]:
        """Step → what is to be gone after it, of the network as it was at the start.

        Args:
            steps: of the whole run; a cut after step 0 is made before any training.

        Raises:
            SettingError: the schedule is longer than the run, or its cuts do not fit between its
                begin and its end.
        """
        if type(steps) is not int or steps < 1:
            raise SettingError(f"steps= is the length of the run in steps; got {steps!r}")
        begin, end = _step(self.begin, steps), _step(self.end, steps)
        if self.shape == "one-shot":
            end = begin
        if max(begin, end) > steps:
            raise SettingError(
                f"the schedule is longer than the run: it goes on to step {max(begin, end)}, and "
                f"the run has {steps}; give begin= and end= as shares of the run (0.1, 0.7), or "
                "train longer"
            )
        times = 1 if self.shape == "one-shot" else self.times
        if end - begin < times - 1:
            raise SettingError(
                f"{times} cuts do not fit between step {begin} and step {end} of a run of {steps}; "
                "give fewer times=, or move begin= and end= apart"
            )
        return tuple(
            (self._place(number, begin, end, times), self._after(number / times))
            for number in range(1, times + 1)
        )

    def _place(self, number: int, begin: int, end: int, times: int) -> int:
        if times == 1:
            return begin if self.shape == "one-shot" else end
        return begin + round((end - begin) * (number - 1) / (times - 1))

    def _after(self, done: float) -> Budget:
        assert isinstance(self.budget, Budget)
        amount = self.budget.amount * GROWTH[self.shape](done)
        return replace(self.budget, amount=amount)


def _check(name: str, place: Place) -> None:
    whole = type(place) is int and place >= 0
    share = isinstance(place, float) and 0 <= place <= 1
    if not (whole or share):
        raise SettingError(
            f"{name}= of a schedule is a step (a whole number), or a share of the run between 0.0 "
            f"and 1.0; got {place!r}"
        )


def _step(place: Place, steps: int) -> int:
    return place if isinstance(place, int) else round(place * steps)
