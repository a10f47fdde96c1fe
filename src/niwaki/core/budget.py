"""Budgets: what share of what is to be removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from niwaki.core.errors import BudgetError, SettingError, UnknownNameError

Unit = Literal["channels", "params", "macs", "bytes", "memory", "latency"]
MEASURED = ("memory", "latency")  # on networks; the others are read off the graph
_SETTINGS = ("batch", "threads", "measured")


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
        measured: file of what `bench.py` printed on another device, which latency is then read off.
        also: more budgets, all of which must be met too, each of a unit of its own.
    """

    amount: float
    unit: Unit = "channels"
    batch: int | None = None
    threads: int | None = None
    measured: str | None = None
    also: tuple[Budget, ...] = ()

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
        self._check_file()
        units = [budget.unit for budget in self.every]
        if len(set(units)) < len(units):
            raise SettingError(f"budgets of one network name each unit once; got {self}")
        if set(MEASURED) & set(units[1:]):
            raise SettingError(
                f"of several budgets one can be measured (memory or latency), the first; got {self}"
            )

        if self.also and not all(budget.amount for budget in self.every):
            raise SettingError(f"of several budgets, each must ask for more than 0; got {self}")

    def _check_file(self) -> None:
        if self.measured is None:
            return
        if self.unit != "latency":
            raise SettingError(
                f"measured says where latency is read off; a budget of {self.unit} has no use for "
                "it"
            )
        if self.batch is not None or self.threads is not None:
            raise SettingError(
                f"batch and threads were those of {self.measured}; give them to bench.py there"
            )

    @property
    def runs(self) -> bool:
        """Whether networks are made and run here to know what they cost."""
        return self.unit in MEASURED and self.measured is None

    @property
    def every(self) -> tuple[Budget, ...]:
        """This budget and those that must be met too."""
        return (replace(self, also=()), *self.also) if self.also else (self,)

    @classmethod
    def parse(cls, budget: Budget | Mapping[str, Any] | float | str) -> Budget:
        """A budget from itself, a share of channels (`0.5`, `"50%"`), the notation `params=0.5`,
        `latency=50%,batch=8,threads=2`, `latency=0.5,measured=device.json`, or the same as a table,
        `{"params": 0.5}`; several that must all be met as `macs=0.5,params=0.4`.

        Raises:
            BudgetError: not a number in [0, 1).
            UnknownNameError: a unit or a setting that does not exist.
            SettingError: batch or threads that are no whole numbers, or where nothing is timed; a
                unit that is named twice.
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, Mapping):
            return cls.parse(",".join(f"{key}={value}" for key, value in budget.items()))
        if not isinstance(budget, str):
            return cls(budget)
        settings: list[str] = []
        shares: list[tuple[str, float]] = []
        for part in (part.strip() for part in budget.split(",")):
            unit, equals, amount = (text.strip() for text in part.rpartition("="))
            if shares and unit not in get_args(Unit):
                settings.append(part)
                continue
            shares.append((unit if equals else "channels", _share(amount, budget)))
        shares = [share for share in shares if share[1]] or shares[:1]  # of 0, nothing is asked
        shares.sort(key=lambda share: share[0] not in MEASURED)
        (unit, number), *others = shares
        also = tuple(cls(more, name) for name, more in others)  # type: ignore[arg-type]  # checked
        return cls(number, unit, **_timing(settings), also=also)  # type: ignore[arg-type]  # there

    def __str__(self) -> str:
        timing = [
            f"{name}={number}"
            for name, number in (("batch", self.batch), ("threads", self.threads))
            if number
        ]
        timing += [] if self.measured is None else [f"measured={self.measured}"]
        return ",".join([f"{self.unit}={self.amount:g}", *timing, *map(str, self.also)])


def _share(text: str, budget: str) -> float:
    """A share as a number or in percent.

    >>> _share("0.25", "0.25"), _share("25%", "25%")
    (0.25, 0.25)
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise BudgetError(
            f"cannot read the budget {budget!r}; write 0.5, channels=0.5, macs=0.5 or latency=0.5"
        ) from None


def _timing(settings: list[str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for text in settings:
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in _SETTINGS:
            raise UnknownNameError("setting of a budget", name, _SETTINGS)
        if name == "measured":
            numbers[name] = value
            continue
        if not value.isdigit():
            raise SettingError(
                f"{name} of a budget must be a whole number of at least 1; got {value!r}"
            )
        numbers[name] = int(value)
    return numbers
