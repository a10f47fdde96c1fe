"""Budgets: what share of what is to be removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from niwaki.core.errors import BudgetError, SettingError, UnknownNameError

Unit = Literal["channels", "params", "macs", "bytes", "memory", "latency"]


@dataclass(frozen=True)
class Budget:
    """Remove this share of the channels that take part, or of what the whole model costs.

    Attributes:
        amount: in [0, 1); 0.25 removes a quarter.
        unit: "channels"; "params"; "macs" (multiply-adds of one sample); "bytes" (of parameters and
            buffers); "memory" (the most bytes of activations alive at once); "latency" (measured,
            of one forward, on the model's device).
        batch, threads: of the timed forward: samples, and CPU threads that torch may use; as they
            are found without them.
    """

    amount: float
    unit: Unit = "channels"
    batch: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UnknownNameError("budget", self.unit, get_args(Unit))
        if (
            not isinstance(self.amount, (int, float))
            or math.isnan(self.amount)
            or not 0 <= self.amount < 1
        ):
            raise BudgetError(
                f"the share to remove must be in [0, 1), where 0.5 removes half; got {self.amount}"
            )
        for name, number in (("batch", self.batch), ("threads", self.threads)):
            if number is not None and (type(number) is not int or number < 1):
                raise SettingError(
                    f"{name} of a budget must be a whole number of at least 1; got {number!r}"
                )
            if number is not None and self.unit != "latency":
                raise SettingError(
                    f"{name} says how latency is timed; a budget of {self.unit} has no use for it"
                )

    @classmethod
    def parse(cls, budget: Budget | Mapping[str, Any] | float | str) -> Budget:
        """A budget from itself, a share of channels (`0.5`, `"50%"`), the notation `params=0.5`,
        `latency=50%,batch=8,threads=2`, or the same as a table, `{"params": 0.5}`.

        Raises:
            BudgetError: not a number in [0, 1).
            UnknownNameError: a unit or a setting that does not exist.
            SettingError: batch or threads that are no whole numbers, or where nothing is timed.
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, Mapping):
            return cls.parse(",".join(f"{key}={value}" for key, value in budget.items()))
        if not isinstance(budget, str):
            return cls(budget)
        share, *settings = (part.strip() for part in budget.split(","))
        unit, equals, amount = share.rpartition("=")
        try:
            number = _share(amount)
        except ValueError:
            raise BudgetError(
                f"cannot read the budget {budget!r}; write 0.5, channels=0.5, macs=0.5 or "
                "latency=0.5"
            ) from None
        return cls(number, unit.strip() if equals else "channels", **_timing(settings))  # type: ignore[arg-type]  # checked there

    def __str__(self) -> str:
        timing = [
            f"{name}={number}"
            for name, number in (("batch", self.batch), ("threads", self.threads))
            if number
        ]
        return ",".join([f"{self.unit}={self.amount:g}", *timing])


def _share(text: str) -> float:
    """A share as a number or in percent.

    >>> _share("0.25"), _share("25%")
    (0.25, 0.25)
    """
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _timing(settings: list[str]) -> dict[str, int]:
    numbers = {}
    for text in settings:
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in ("batch", "threads"):
            raise UnknownNameError("setting of a budget", name, ("batch", "threads"))
        if not value.isdigit():
            raise SettingError(
                f"{name} of a budget must be a whole number of at least 1; got {value!r}"
            )
        numbers[name] = int(value)
    return numbers
