"""A run whose code is told another value than a tensor holds, so that it takes the path that hangs
on it.

Where a model's code asks for a value (`if x.mean() > limit`, `if mask.any()`), the recorder notes
the line and the answer (`Tape.answers`). No input may be at hand that gives the other answer, but
the answer can be changed on its way from torch to the code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch._ops import OpOverload

from niwaki.running.lines import calling_line
from niwaki.running.watching import OperatorMode

Turn = Literal["not", "high", "low"]
FAR = 1e4  # a number that is larger than what activations come to


class _Answering(OperatorMode):
    """A mode that has a say in every value that code asks for; a subclass says which."""

    def answer(self, line: str, value: bool | int | float) -> bool | int | float:
        """What a line of code is given in the place of a tensor's value."""
        raise NotImplementedError

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func.namespace == "prim" or not isinstance(result, (bool, int, float)):
            return result
        return self.answer(calling_line(), result)


class Steered(_Answering):
    """Changes the values that some lines of code are given; whole numbers stay.

    Example: `with Steered({"net.py:12": "not"}): model(x)` answers the `if mask.any()` of line 12
    the other way round.
    """

    def __init__(self, turns: Mapping[str, Turn]) -> None:
        super().__init__()
        self._turns = turns

    def answer(self, line: str, value: bool | int | float) -> bool | int | float:
        turn = self._turns.get(line) if isinstance(value, (bool, float)) else None
        return value if turn is None else turned(value, turn)


class Answered(_Answering):
    """Gives lines of code the answers that they were given before, so that a network of other
    values takes the same path.
    """

    def __init__(self, answers: Mapping[str, Sequence[bool | int | float]]) -> None:
        super().__init__()
        self._left = {line: iter(values) for line, values in answers.items()}

    def answer(self, line: str, value: bool | int | float) -> bool | int | float:
        return next(self._left.get(line, iter(())), value)


def turned(value: bool | float, turn: Turn) -> bool | float:
    """The value that the code is given.

    >>> turned(True, "not"), turned(0.3, "low")
    (False, -10000.0)
    """
    if isinstance(value, bool):
        return not value
    return -FAR if turn == "low" else FAR


def turns_of(
    answers: Mapping[str, Sequence[bool | int | float]],
) -> Iterator[dict[str, Turn]]:
    """Each line that looked at a value, turned every way; lines that ask for whole numbers are
    left: those are sizes and places, and any other would not fit.

    Args:
        answers: line → what it was given, as `Tape.answers` has it.
    """
    for line, values in answers.items():
        if isinstance(values[0], bool):
            yield {line: "not"}
        elif isinstance(values[0], float):
            yield {line: "high"}
            yield {line: "low"}
