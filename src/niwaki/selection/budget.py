"""Budgets: what share of what is to be removed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from niwaki.errors import BudgetError, UnknownNameError

Unit = Literal["channels", "params"]


@dataclass(frozen=True)
class Budget:
    """Remove this share of the channels that take part, or of all the model's parameters.

    Attributes:
        amount: in [0, 1); 0.25 removes a quarter.
    """

    amount: float
    unit: Unit = "channels"

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UnknownNameError("budget", self.unit, get_args(Unit))
        if not isinstance(self.amount, (int, float)) or math.isnan(self.amount) or not 0 <= self.amount < 1:
            raise BudgetError(f"the share to remove must be in [0, 1), where 0.5 removes half; got {self.amount}")

    @classmethod
    def parse(cls, budget: Budget | float | str) -> Budget:
        """A budget from itself, a share of channels, or the notation `params=0.5`.

        Raises:
            BudgetError: not a number in [0, 1).
            UnknownNameError: a unit that does not exist.
        """
        if isinstance(budget, Budget):
            return budget
        if not isinstance(budget, str):
            return cls(budget)
        unit, equals, amount = budget.rpartition("=")
        try:
            share = float(amount)
        except ValueError:
            raise BudgetError(f"cannot read the budget {budget!r}; write 0.5, channels=0.5 or params=0.5") from None
        return cls(share, unit if equals else "channels")  # type: ignore[arg-type]  # checked in __post_init__

    def __str__(self) -> str:
        return f"{self.unit}={self.amount:g}"
