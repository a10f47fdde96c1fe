"""What the units of a group are, on calibration inputs, at every place of the axis where a weight
reads them; and that weight's columns, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from niwaki.graph import Graph, Role
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.moments.units import Reader, readers
from niwaki.running import Op, run


@dataclass(eq=False)
class Seen:
    """Sums over samples and places of a map, of every position on the axis that is read.

    A linear layer behind a flatten reads a unit at several positions, each with a column of its
    own.

    Attributes:
        count: values of a position.
        centre: near the mean, so that little is lost when its square is taken off.
        total, squares: of the values less the centre: (width, positions a unit), float64.
    """

    count: int
    centre: Tensor
    total: Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.float64, device="cpu")
    )
    squares: Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.float64, device="cpu")
    )

    def add(self, values: Tensor) -> None:
        """Take up some values: (n, width, positions)."""
        apart = values - self.centre
        self.count += len(values)
        self.total = self.total + apart.sum(0)
        self.squares = self.squares + apart.square().sum(0)

    @property
    def mean(self) -> Tensor:
        """(width, positions)."""
        return self.centre + self.total / self.count

    @property
    def deviations(self) -> Tensor:
        """Σ (x - mean)²: (width, positions)."""
        return (self.squares - self.total.square() / self.count).clamp(min=0)

    @property
    def energy(self) -> Tensor:
        """Σ x²: (width, positions)."""
        return self.deviations + self.count * self.mean.square()


def statistics(evidence: Evidence, names: list[str], who: str) -> dict[str, dict[str, Seen]]:
    """Group → consumer weight → what it reads, counted on the calibration inputs.

    Raises:
        SettingError: there are no calibration inputs.
        TraceError: the model cannot be run on them.
    """
    graph = evidence.graph
    where = readers(graph, names)
    seen: dict[str, dict[str, Seen]] = {}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for reader in where.get(position, ()):
            values = _values(reader, args[reader.read.slot])
            known = seen.setdefault(reader.group, {})
            if reader.weight not in known:
                known[reader.weight] = Seen(0, values.mean(0))
            if known[reader.weight].centre.shape == values.shape[1:]:
                known[reader.weight].add(values)
        return op.func(*args, **kwargs)

    for inputs, _ in evidence.batches(who):
        run(graph.model, graph.inference.tape, inputs, step)
    return seen


def _values(reader: Reader, operand: Tensor) -> Tensor:
    """(n, width, positions a unit), float64."""
    table = operand.detach().movedim(reader.read.axis, -1).flatten(0, -2).double().cpu()
    return table[:, reader.order].reshape(len(table), reader.width, -1)


def columns(graph: Graph, evidence: Evidence, group: str, weight: str) -> Iterator[Tensor]:
    """A consumer's entries by unit, position on its axis and the rest: (width, positions, n),
    float64.
    """
    for piece in graph[group].of_role(Role.CONSUMER):
        if piece.tensor == weight:
            moved = evidence.state[weight].detach().double().cpu().movedim(piece.axis, 0)
            order = torch.argsort(piece.units, stable=True)
            order = order[piece.units[order] >= 0]
            width = graph[group].width
            yield moved[order].reshape(width, len(order) // width, -1)


def per_column(values: Tensor, column: Tensor) -> Tensor:
    """Values by position (width, m) beside a weight's columns (width, k, n): their mean where the
    two differ in positions, as behind a grouped convolution.
    """
    fits = values.shape[1] == column.shape[1]
    return values if fits else values.mean(1, keepdim=True).expand(-1, column.shape[1])
