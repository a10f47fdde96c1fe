"""Integers on their way from attributes to operators, watched where torch's functions are called.

Operators get plain integers; only the Python call before them still has those that remember where
they come from (niwaki.running.origins).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from niwaki.running.attributes import holds_integers, keeps_integers
from niwaki.running.origins import Attribute, Axis, TracedInt, integers, plain
from niwaki.running.settings import holders, named
from niwaki.running.tape import Arrival, Ref, Tape


class PassedIntegers(TorchFunctionMode):
    """Hands sizes of tensors out as integers with a source, and notes which call got which."""

    def __init__(self, tape: Tape, source: Callable[[Tensor], Ref | str | None]) -> None:
        super().__init__()
        self._tape, self._source = tape, source
        self._given: dict[int, MutableMapping[str, Any]] = {}
        self._before: list[tuple[MutableMapping[str, Any], str, Any]] = []

    def wanted(self, model: nn.Module) -> bool:
        """Whether any module has integers whose way could matter."""
        return any(keeps_integers(module) for module in model.modules())

    def traced(self, value: Any, module: str, attribute: str) -> Any:
        """The value of a module's attribute, its integers with their source; a list stays the
        same list.
        """
        if type(value) is int:
            return self._number(value, Attribute(module, attribute))
        entries = [
            self._number(item, Attribute(module, attribute, place)) if type(item) is int else item
            for place, item in enumerate(value)
        ]
        if type(value) is tuple:
            return tuple(entries)
        value[:] = entries
        return value

    def settings(self, value: Any, module: str, attribute: str) -> None:
        """Give the integers in a settings object of a module their source, where they stand; what
        several modules hold is known by the first that reads it.
        """
        if id(value) in self._given:
            return
        for path, table in holders(value, attribute):
            if id(table) in self._given:
                continue
            self._given[id(table)] = self._given[id(value)] = table  # kept, so that the id stays
            for key, held in list(table.items()):
                way = f"{path}.{key}"
                if holds_integers(held) and named(way):
                    before = list(held) if type(held) is list else held
                    self._before.append((table, key, before))
                    table[key] = self.traced(held, module, way)

    def undo(self) -> None:
        """Give settings objects the integers back that they had."""
        for table, key, value in reversed(self._before):
            held = table.get(key)
            if type(value) is list and type(held) is list and held == value:
                held[:] = value  # the same list
            elif held == value:
                table[key] = value
        self._before.clear()

    def _number(self, value: int, origin: Attribute | Axis) -> int:
        # an axis of size one never shrinks
        return TracedInt(value, origin, self._equal) if value > 1 else value

    def _equal(self, number: TracedInt, other: int) -> None:
        pair = (number.origin, other.origin if isinstance(other, TracedInt) else int(other))
        if pair not in self._tape.equalities:
            self._tape.equalities.append(pair)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        start = len(self._tape.ops)
        result = func(*plain(args), **plain(kwargs))
        if _is_size(func):
            return self._with_source(result, args[0], *args[1:], *kwargs.values())
        self._note(start, args, kwargs)
        return result

    def _note(self, start: int, args: Any, kwargs: Any) -> None:
        stop = len(self._tape.ops)
        if start == stop:
            return
        numbers = tuple(
            (int(number), number.origin if isinstance(number, TracedInt) else None)
            for number in integers((args, kwargs))
        )
        if any(source is not None for _, source in numbers):
            self._tape.arrivals.append(Arrival(start, stop, numbers))

    def _with_source(self, result: Any, tensor: Tensor, *dim: int) -> Any:
        source = self._source(tensor)
        if source is None:
            return result
        if type(result) is int:
            return self._number(result, Axis(source, plain(dim[0]) % tensor.ndim))
        if all(type(size) is int for size in result):
            return torch.Size(
                self._number(size, Axis(source, axis)) for axis, size in enumerate(result)
            )
        return result


def _is_size(func: Any) -> bool:
    if func is Tensor.size:
        return True
    return getattr(func, "__self__", None) is Tensor.shape and func.__name__ == "__get__"
