"""All that niwaki knows of one operator: the columns of all rooms, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from niwaki.core.errors import UnknownNameError
from niwaki.graph.facts import Facts, full_name
from niwaki.graph.operators import AXES, OWN_SIZES, WEIGHTED
from niwaki.measure.macs import FLOPS
from niwaki.methods._absolute import MEANS
from niwaki.methods.data_free.propagate import MOMENTS
from niwaki.proof.counted import WORDS
from niwaki.surgery.restated import RESTATED

COLUMNS: tuple[Facts[Any], ...] = (
    AXES,
    WEIGHTED,
    OWN_SIZES,
    FLOPS,
    MOMENTS,
    MEANS,
    RESTATED,
    WORDS,
)


@dataclass(frozen=True)
class Operator:
    """What is known of one operator; printed, a line a column.

    Attributes:
        name: with its namespace, "aten.convolution".
        facts: column → fact: a function, a description, or a word.
    """

    name: str
    facts: Mapping[str, Any]

    @property
    def lines(self) -> dict[str, str]:
        """Column → its fact in words: of a function, what its docstring begins with."""
        return {column: _in_words(fact) for column, fact in self.facts.items()}

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        lines = [f"  {column:{width}}  {words}" for column, words in self.lines.items()]
        return "\n".join([self.name, *lines])


def operator(name: str) -> Operator:
    """What niwaki knows of an operator of torch's: how its axes hang together, what it weights,
    counts and repeats, what it makes of moments, how its sizes are restated.

    >>> print(operator("mm"))
    aten.mm
      axes      mm and bmm: (…, n, k) × (…, k, m) → (…, n, m).
      weighted  self · mat2 (in, out)
      moments   Rows · weight (out, in) + bias.

    Args:
        name: as a tape has it, "aten.convolution"; torch's own also without "aten.".

    Raises:
        UnknownNameError: it has no record: whatever it touches keeps its size.
    """
    known = {column.name: column.get(name) for column in COLUMNS}
    facts = {column: fact for column, fact in known.items() if fact is not None}
    if not facts:
        raise UnknownNameError("operator", name, operators())
    return Operator(full_name(name), facts)


def operators() -> list[str]:
    """All operators with a record, by name."""
    return sorted({name for column in COLUMNS for name in column})


def _in_words(fact: Any) -> str:
    if isinstance(fact, partial):
        settings = ", ".join(
            f"{key}={getattr(value, 'value', value)}" for key, value in fact.keywords.items()
        )
        return f"{_in_words(fact.func)} ({settings})"
    if callable(fact):
        return " ".join((fact.__doc__ or fact.__name__).split("\n\n")[0].split())
    return str(fact)
