"""Where the units of a group are read by a weight, and their values there as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Graph, Role
from niwaki.graph.inference import Read
from niwaki.graph.offsets import reads_of, weight_of
from niwaki.graph.places import Places
from niwaki.graph.terms import positions


@dataclass(frozen=True, eq=False)
class Reader:
    """One place where one consumer weight reads the units of a group.

    Attributes:
        order: int64 (width · m,): the m positions of unit 0 on the axis that is read, then those of
            unit 1, and so on.
    """

    group: str
    weight: str
    read: Read
    order: Tensor
    width: int

    @property
    def position(self) -> int:
        """The reading operator on the tape."""
        return self.read.position

    def rows(
        self, operand: Tensor, units: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """The units' values in an operand, one row a place: (places · m, width).

        Args:
            units: only these, in this order.
            places: of an operand with more than two axes, only these of every first index; all
                without it.
        """
        table = self.order.view(self.width, -1)
        table = table if units is None else table[units]
        whole = len(table) == operand.shape[self.read.axis] and bool(
            (table.flatten() == torch.arange(len(table), device="cpu")).all()
        )
        if operand.ndim > 2 and self.read.axis > 0:
            maps = operand.movedim(self.read.axis, 1).flatten(2)
            operand = (maps if places is None else places(maps)).movedim(1, 2)
        else:
            operand = operand.movedim(self.read.axis, -1)
        picked = operand if whole else operand.index_select(-1, table.flatten().to(operand.device))
        by_unit = torch.unflatten(picked, -1, list(table.shape))
        return by_unit.transpose(-1, -2).reshape(-1, len(table))


def readers(graph: Graph, groups: Iterable[str]) -> dict[int, list[Reader]]:
    """Operator → its readers of these groups, in the order of the tape; only readers by a weight of
    their own.
    """
    readers_at: dict[int, list[Reader]] = defaultdict(list)
    for name in groups:
        var = graph.variables[name]
        consumers = {piece.tensor for piece in graph[name].of_role(Role.CONSUMER)}
        for read in reads_of(graph, name):
            weight = weight_of(graph, read)
            if weight is not None and weight in consumers:
                units = positions(read.whole, var)
                order = units.argsort(stable=True)[int((units < 0).sum()) :]
                readers_at[read.position].append(Reader(name, weight, read, order, var.size))
    return dict(sorted(readers_at.items()))


def consumer_gram(
    graph: Graph,
    name: str,
    weight: str,
    outputs: Tensor | None = None,
    form: torch.dtype = torch.float64,
) -> Tensor:
    """Wᵀ·D·W over the units that a consumer reads, summed over the places of its kernel: (width,
    width).

    Args:
        outputs: D (out, out), for a weight with its outputs on the first axis; the identity without
            it.
    """
    tensor = graph.state[weight].detach().cpu().to(form)
    if outputs is not None and outputs.shape == (len(tensor),) * 2:
        values, vectors = torch.linalg.eigh(outputs)
        root = (vectors * values.clamp(min=0).sqrt()).to(form)
        tensor = torch.tensordot(root, tensor, dims=([0], [0]))
    rows = [
        piece.rows({weight: tensor})
        for piece in graph[name].of_role(Role.CONSUMER)
        if piece.tensor == weight
    ]
    return sum((symmetric(table, table) for table in rows), torch.zeros((), device="cpu"))


STRIP = 128  # rows


def symmetric(left: Tensor, right: Tensor) -> Tensor:
    """left · rightᵀ (n, n), of which it is known that it is symmetric: little more than half of it
    is computed, strip by strip from the diagonal on.
    """
    size = len(left)
    if size <= 2 * STRIP:
        return left @ right.T
    product = left.new_empty(size, size)
    for start in range(0, size, STRIP):
        strip = left[start : start + STRIP] @ right[start:].T
        product[start : start + STRIP, start:] = strip
        product[start:, start : start + STRIP] = strip.T
    return product
