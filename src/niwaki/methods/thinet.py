"""ThiNet: what the next layer computes says which channels go, and a number a channel mends it.

From what a layer puts out at sampled places and outputs, y_n = Σ_c x_nc with x_nc the channel's
part of the sum (its weights times its values; the bias is left out). Channels go one by one, always
that which leaves the least Σ_n (Σ_{c gone} x_nc)² behind (eq. 6 and algorithm 1). Then one factor a
kept channel, w = argmin Σ_n (y_n - Σ_c w_c·x_nc)² (eq. 7), goes into the weights that read the
channel. Source: Luo, Wu, Lin, ThiNet: A Filter Level Pruning Method for Deep Neural Network
Compression, ICCV 2017, arXiv 1707.06342, sections 3.2.1 to 3.2.3.

Example: rows (3, 1, -3) and (2, 1, -2). Alone, channel 1 leaves 1² + 1² = 2, the others 13: it
goes first. Channel 0 would then leave (3 + 1)² + (2 + 1)² = 25, channel 2 (1 - 3)² + (1 - 2)² = 5:
it goes next. With channel 0 alone left, y = (1, 1) and w = (3·1 + 2·1)/(3² + 2²) = 5/13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Group, Role
from niwaki.graph.places import Places
from niwaki.graph.products import Product, products
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.norms import L2
from niwaki.running import Op, run


@CRITERIA.register("thinet")
@dataclass(frozen=True)
class ThiNet(Criterion):
    """The turn in which a unit goes: 1 for the first, and so on up to the group's width.

    Groups that no linear layer or ungrouped convolution reads are put in the order of the norms of
    their weights.

    Attributes:
        places: of a map, that are sampled in every input, each with one output drawn at random.
        samples: rows at most that a group is judged by.
    """

    places: int = 10
    samples: int = 10_000

    def __post_init__(self) -> None:
        if self.places < 1 or self.samples < 1:
            raise SettingError("thinet:places and thinet:samples must be at least 1")

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self._of(evidence, [group])[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""
        return self._of(evidence, list(evidence.graph.groups))

    def _of(self, evidence: Evidence, groups: list[Group]) -> dict[str, Tensor]:
        parts = summands(evidence, groups, self.places, self.samples)
        scores = {}
        for group in groups:
            if group.name in parts:
                order = removal_order(parts[group.name])
            else:
                order = L2().score(group, evidence).argsort(stable=True)
            scores[group.name] = torch.empty(group.width, dtype=torch.float64, device="cpu")
            scores[group.name][order] = torch.arange(
                1.0, group.width + 1, dtype=torch.float64, device="cpu"
            )
        return scores


def removal_order(rows: Tensor) -> Tensor:
    """Channels in the order in which they go, by rows (n, channels) of their parts of the sum."""
    gram = rows.T @ rows
    left = gram.diagonal().clone()  # what is left behind if this one goes next, less a constant
    order: list[int] = []
    for _ in range(len(gram)):
        channel = int(left.argmin())
        order.append(channel)
        left += 2 * gram[channel]
        left[channel] = float("inf")
    return torch.tensor(order, device="cpu")


@COMPENSATIONS.register("thinet")
@dataclass(frozen=True)
class ChannelScale(Compensation):
    """One factor a kept unit, by ordinary least squares, put into the weights that read it.

    Attributes:
        places, samples: as of the criterion.
    """

    places: int = 10
    samples: int = 10_000

    def __post_init__(self) -> None:
        ThiNet(self.places, self.samples)

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        """The mixings: every kept unit times its factor."""
        graph, mixings, notes = evidence.graph, {}, {}
        groups = [graph[name] for name in plan.kept]
        free = [group for group in groups if group.fold_obstacle is None]
        parts = summands(evidence, free, self.places, self.samples)
        for group in groups:
            if group.name not in parts:
                why = group.fold_obstacle or "no linear layer or ungrouped convolution reads it"
                notes[group.name] = f"pruned plainly: {why}"
                continue
            units = plan.kept[group.name]
            factors = channel_factors(parts[group.name], units)
            plain = Mixing.selecting(group.width, units)
            mixings[group.name] = Mixing(plain.matrix * factors)
            notes[group.name] = f"kept units times {factors.min():.3g} to {factors.max():.3g}"
        return Cut(evidence.graph, plan, mixings, notes, evidence=evidence)


def channel_factors(rows: Tensor, units: Sequence[int]) -> Tensor:
    """argmin Σ (y - Σ_c w_c·x_c)² over the kept channels, the smallest of several."""
    kept = rows[:, list(units)]
    solution: Tensor = torch.linalg.lstsq(kept, rows.sum(1, keepdim=True), driver="gelsd").solution
    return solution[:, 0]


def summands(
    evidence: Evidence, groups: list[Group], places: int, samples: int
) -> dict[str, Tensor]:
    """Group → rows (n, width) of its units' parts of what its readers compute, at random places and
    outputs; several readers one after the other.

    Raises:
        SettingError: there are no calibration inputs.
    """
    graph = evidence.graph
    readers = {product.position: product for product in products(graph)}
    where: dict[int, list[tuple[Group, Tensor]]] = {}
    for position, reader in readers.items():
        pairs = [(group, _units(group, reader)) for group in groups]
        where[position] = [(group, units) for group, units in pairs if units is not None]
    seen: dict[str, dict[int, list[Tensor]]] = {}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for group, units in where.get(position, ()):
            rows = seen.setdefault(group.name, {}).setdefault(position, [])
            if sum(map(len, rows)) < samples:
                drawn = readers[position].rows(args, chosen).double().cpu()
                weight = evidence.state[readers[position].weight]
                matrix = readers[position].matrix(weight.detach()).double().cpu()
                outputs = torch.randint(
                    len(matrix), (len(drawn),), generator=evidence.generator, device="cpu"
                )
                rows.append(by_unit(drawn * matrix[outputs], units, group.width))
        return op.func(*args, **kwargs)

    for inputs, _ in evidence.batches("thinet"):
        chosen = Places.of(inputs, places)
        run(graph.model, graph.inference.tape, inputs, step)
    return {
        name: torch.cat([row for rows in parts.values() for row in rows])
        for name, parts in seen.items()
    }


def _units(group: Group, reader: Product) -> Tensor | None:
    """The unit of every index that a product sums over (-1: of another group); None where it reads
    none of the group.
    """
    pieces = [piece for piece in group.of_role(Role.CONSUMER) if piece.tensor == reader.weight]
    return pieces[0].units if pieces else None


def by_unit(entries: Tensor, units: Tensor, width: int) -> Tensor:
    """Columns (n, indices · kernel places) summed by unit: (n, width)."""
    at = units.repeat_interleave(entries.shape[1] // len(units))
    total = entries.new_zeros(len(entries), width + 1)
    return total.index_add_(1, torch.where(at >= 0, at, width), entries)[:, :width]
