"""Integers that remember where they come from: an attribute of a module, the size of an axis, or
sums and products of such.

A module's code reads `self.heads * self.width` and hands the result to an operator. Python passes
on a number and forgets its source; a `TracedInt` behaves as the same number and keeps it:

    >>> heads = TracedInt(4, Attribute("attention", "heads"))
    >>> evaluate((heads * 16).origin, {Attribute("attention", "heads"): 3}.get)
    48

What makes another kind of number of it (a division that gives a float, `int`, `math`) forgets it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from niwaki.running.tape import Ref

DEPTH = 12  # steps of arithmetic that are remembered; a loop would else grow them without an end


@dataclass(frozen=True)
class Attribute:
    """An integer of a module, or one entry of a tuple or list of integers."""

    module: str
    name: str
    index: int | None = None

    def __str__(self) -> str:
        entry = "" if self.index is None else f"[{self.index}]"
        return f"{self.module}.{self.name}{entry}" if self.module else f"{self.name}{entry}"


@dataclass(frozen=True)
class Axis:
    """The size of one axis of a value of the run, or of a parameter by its name."""

    value: Ref | str
    axis: int


@dataclass(frozen=True)
class Arithmetic:
    """A function of integers, of which at least one has a source."""

    function: Callable[..., int] = field(compare=False)
    operands: tuple[Source | int, ...]
    depth: int = field(compare=False)


Source: TypeAlias = Attribute | Axis | Arithmetic


class TracedInt(int):
    """An integer with its source; equal to, and as good as, the same integer without."""

    origin: Source
    compared: Callable[[TracedInt, int], None] | None

    def __new__(
        cls,
        value: int,
        origin: Source,
        compared: Callable[[TracedInt, int], None] | None = None,
    ) -> TracedInt:
        """Make one.

        Args:
            compared: told of every other integer that it is compared with and equals.
        """
        number = super().__new__(cls, value)
        number.origin = origin
        number.compared = compared
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)  # a copy that outlives the run is a plain number

    def __eq__(self, other: object) -> bool:
        equal = int.__eq__(self, other)  # NotImplemented for what is no integer
        if equal is True and self.compared is not None:
            self.compared(self, other)  # type: ignore[arg-type]  # it equals an integer
        return equal

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = int.__hash__


def _arithmetic(name: str, function: Callable[..., int]) -> Callable[..., Any]:
    plain = getattr(int, name)

    def method(self: TracedInt, *others: Any) -> Any:
        result = plain(self, *others)
        if type(result) is not int or not all(isinstance(other, int) for other in others):
            return result
        operands = tuple(_source(number) for number in (self, *others))
        depth = 1 + max(getattr(operand, "depth", 0) for operand in operands)
        if depth > DEPTH:
            return result
        return TracedInt(result, Arithmetic(function, operands, depth), self.compared)

    return method


def _source(number: int) -> Source | int:
    return number.origin if isinstance(number, TracedInt) else number


def _swapped(function: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: function(b, a)


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _function = getattr(operator, _name)
    setattr(TracedInt, f"__{_name}__", _arithmetic(f"__{_name}__", _function))
    setattr(TracedInt, f"__r{_name}__", _arithmetic(f"__r{_name}__", _swapped(_function)))
TracedInt.__neg__ = _arithmetic("__neg__", operator.neg)  # type: ignore[method-assign]  # as above


def evaluate(source: Source | int, size: Callable[[Any], int | None]) -> int | None:
    """What a source amounts to when attributes and axes are as `size` says; None where it does not
    know one, or a division has no result.
    """
    if isinstance(source, int):
        return source
    if not isinstance(source, Arithmetic):
        return size(source)
    values = [evaluate(operand, size) for operand in source.operands]
    if any(value is None for value in values):
        return None
    try:
        return source.function(*values)
    except ZeroDivisionError:
        return None


def attributes_in(source: Source | int) -> Iterator[Attribute]:
    """The attributes that a source was made of, once each."""
    if isinstance(source, Attribute):
        yield source
    elif isinstance(source, Arithmetic):
        yield from dict.fromkeys(
            attribute for operand in source.operands for attribute in attributes_in(operand)
        )


def plain(tree: Any) -> Any:
    """The same arguments in ordinary integers; what holds no traced one is not copied."""
    if isinstance(tree, TracedInt):
        return int(tree)
    if isinstance(tree, slice):
        parts = (tree.start, tree.stop, tree.step)
        return slice(*map(plain, parts)) if any(traced(parts)) else tree
    if type(tree).__name__ == "Size" or type(tree) in (tuple, list):
        return type(tree)(map(plain, tree)) if any(traced(tree)) else tree
    if type(tree) is dict:
        return {key: plain(value) for key, value in tree.items()} if any(traced(tree)) else tree
    return tree


def traced(tree: Any) -> Iterator[bool]:
    """Of every integer among arguments: whether it is a traced one."""
    return (isinstance(number, TracedInt) for number in integers(tree))


def integers(tree: Any) -> Iterator[int]:
    """The integers among arguments, in order."""
    if isinstance(tree, bool):
        return
    if isinstance(tree, int):
        yield tree
    elif isinstance(tree, slice):
        yield from integers((tree.start, tree.stop, tree.step))
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from integers(item)
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from integers(item)
