"""What a network is for, as a function of the user's own: any number, or several, of any task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.measure.accuracy import Evaluation
from niwaki.running import preserved_mode, preserved_rng

Evaluate = Callable[[nn.Module], Any]
ALONE = "score"  # what one number without a name is called


@dataclass(frozen=True)
class Task:
    """How well a network does what it is for.

    Attributes:
        evaluate: network → a number, or numbers by name (`{"mAP": 0.41, "loss": 1.3}`).
        primary: which of the numbers counts; the first where it is not said.
        more_is_better: whether a higher primary number is a better one.
    """

    evaluate: Evaluate
    primary: str | None = None
    more_is_better: bool = True

    @classmethod
    def of(cls, evaluate: Task | Evaluate | None) -> Task | None:
        """A task from itself, or from a function.

        Raises:
            SettingError: neither.
        """
        if evaluate is None or isinstance(evaluate, Task):
            return evaluate
        if not callable(evaluate):
            raise SettingError(
                "evaluate= is a function of the network that returns a number, or a niwaki.Task; "
                f"got a {type(evaluate).__name__}"
            )
        return cls(evaluate)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The numbers of a network in evaluation mode, the primary one first.

        Raises:
            SettingError: the function returns no numbers, or one that is NaN or infinite.
        """
        with preserved_mode(model, training=False), preserved_rng():
            numbers = as_numbers(self.evaluate(model))
        primary = self.primary or next(iter(numbers))
        if primary not in numbers:
            raise SettingError(
                f"the task's primary number is {primary!r}, but evaluate= returned "
                f"{', '.join(numbers)}"
            )
        return {primary: numbers[primary], **numbers}

    def described(self, primary: str) -> dict[str, Any]:
        """What a record says of it."""
        return {"task": {"primary": primary, "more_is_better": self.more_is_better}}


def as_numbers(value: object) -> dict[str, float]:
    """What a function of the user's returned, as numbers by name.

    >>> as_numbers(0.5), as_numbers({"mAP": 1})
    ({'score': 0.5}, {'mAP': 1.0})

    Raises:
        SettingError: it is none, or NaN.
    """
    if isinstance(value, Evaluation):
        value = {"accuracy": value.accuracy, "loss": value.loss}
    table = value if isinstance(value, Mapping) else {ALONE: value}
    if not table:
        raise SettingError("evaluate= returned an empty dict; it must hold at least one number")
    return {str(name): _number(name, entry) for name, entry in table.items()}


def _number(name: object, value: Any) -> float:
    if value is None:
        raise SettingError(
            "evaluate= returned None; it must return a number, or numbers by name (is a return "
            "missing?)"
        )
    several = isinstance(value, Tensor) and value.numel() != 1
    if several or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise SettingError(
            f"evaluate= returned a {type(value).__name__} for {name!r}; it must be one number"
        )
    number = float(value)
    if not math.isfinite(number):
        raise SettingError(f"evaluate= returned {number} for {name!r}, which cannot be compared")
    return number
