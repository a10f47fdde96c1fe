"""What is known of operators, one column a kind of fact: how axes hang together, what is weighted
by what, how moments pass, how sizes are restated.

A column is filled beside the code that stands on it, in the room whose fact it is;
`niwaki.operator` lays all columns side by side for one operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from niwaki.running import Op

T = TypeVar("T")


class Facts(Generic[T]):
    """One kind of fact, by operator; an operator that writes in place (`relu_`) has those of the
    plain one, unless it has its own.

    >>> counts = Facts("operands", "how many there are", {"add": 2})
    >>> counts.get("aten.add_"), counts.get("relu")
    (2, None)

    Attributes:
        name: of the column.
        meaning: what the facts say, and who asks.
    """

    def __init__(self, name: str, meaning: str, table: Mapping[str, T]) -> None:
        """
        Args:
            table: operator → fact; operators of torch's own without "aten.".
        """
        self.name, self.meaning = name, meaning
        self._table = {full_name(operator): fact for operator, fact in table.items()}

    def get(self, operator: Op | str) -> T | None:
        """The fact of an operator, None where there is none."""
        name = operator.name if isinstance(operator, Op) else full_name(operator)
        known = self._table.get(name)
        return self._table.get(name.rstrip("_")) if known is None else known

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)


def full_name(operator: str) -> str:
    """With its namespace, which is torch's own where none is stated: "aten.relu"."""
    return operator if "." in operator else f"aten.{operator}"
