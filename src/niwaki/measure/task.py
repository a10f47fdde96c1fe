"""What a network is for, as a function of the user's own: any number, or several, of any task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.core.records import Evaluation
from niwaki.measure.accuracy import Batch
from niwaki.running import preserved_mode, preserved_rng

Evaluate = Callable[[nn.Module], Any]
Batches = Iterable[Batch] | Callable[[], Iterable[Batch]]
EVALUATE = "give the batches as evaluate="  # said where they are given as data=
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


@dataclass(frozen=True)
class Judge:
    """What `evaluate=` says.

    Attributes:
        batches: gives (inputs, class numbers) afresh, for accuracy and loss; or
        task: another measure. Neither where nothing is said.
    """

    batches: Callable[[], Iterable[Batch]] | None = None
    task: Task | None = None

    @classmethod
    def of(cls, evaluate: Task | Evaluate | Batches | None) -> Judge:
        """From labelled batches, a function that gives them, a function of the network, or a task.

        >>> Judge.of(lambda: []).task, Judge.of(lambda network: 0.5).batches
        (None, None)

        Raises:
            SettingError: none of these, or a generator, which can be gone through only once.
        """
        if evaluate is None or isinstance(evaluate, Task):
            return cls(task=evaluate)
        if callable(evaluate):
            if _takes_nothing(evaluate):
                return cls(cast(Callable[[], Iterable[Batch]], evaluate))
            return cls(task=Task(cast(Evaluate, evaluate)))
        if isinstance(evaluate, (str, Tensor, Mapping)) or not isinstance(evaluate, Iterable):
            raise SettingError(
                "evaluate= is a function of the network that returns a number, a niwaki.Task, or "
                f"batches of (inputs, class numbers); got a {type(evaluate).__name__}"
            )
        if iter(evaluate) is evaluate:
            raise SettingError(
                "the batches of evaluate= can be gone through only once (a generator); pass a "
                "list, a DataLoader, or a function that gives them"
            )
        return cls(lambda: evaluate)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function cannot be called with a network."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some built-in functions Python knows none
        return False
    try:
        signature.bind(None)
    except TypeError:
        return True
    return False


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
