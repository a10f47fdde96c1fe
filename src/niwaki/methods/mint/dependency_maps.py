"""What MINT found between layers and what was cut of it, coarse enough to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from niwaki.core.blocks import BlockPlan
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMap, DependencyMaps
from niwaki.core.records.dependency_maps import coarsest
from niwaki.methods.mint._layer_dependencies import Dependency


def dependency_maps(
    dependencies: Sequence[Dependency],
    *,
    blocks: BlockPlan | None = None,
    units: Plan | None = None,
) -> DependencyMaps:
    """The dependencies of all pairs, and the share of every block that is gone; groups are put
    together where they are many.

    Args:
        blocks: those that stayed; None: no block was cut by itself.
        units: those that stayed; None: no unit left.
    """
    size = coarsest(len(dependencies))
    maps = []
    for item in dependencies:
        gone = None
        if blocks is not None or units is not None:
            gone = _cut_blocks(item, blocks or BlockPlan())
            rows = _gone_units(item.pair.child_units, item.child_group, units or Plan())
            columns = _gone_units(item.pair.parent_units, item.parent_group, units or Plan())
            gone = 1 - (1 - gone) * (1 - rows[:, None]) * (1 - columns)
        maps.append(
            DependencyMap(
                item.pair.parent,
                item.pair.child,
                _plain(_coarse(item.values, size)),
                () if gone is None else _plain(_coarse(gone, size)),
            )
        )
    return DependencyMaps(tuple(maps))


def _cut_blocks(item: Dependency, blocks: BlockPlan) -> Tensor:
    """1 where a block was cut, (child groups, parent groups)."""
    gone = torch.zeros_like(item.values)
    if item.pair.weight in blocks:
        gone += 1
        for row, column in blocks[item.pair.weight].kept:
            gone[row, column] = 0
    return gone


def _gone_units(groups: Mapping[str, Tensor], group: Tensor, units: Plan) -> Tensor:
    """The share of each group's watched units that left: (groups,)."""
    gone = torch.zeros(len(group), dtype=torch.float64)
    for name, watched in groups.items():
        if name in units:
            left = torch.ones(units[name].width, dtype=torch.bool)
            left[list(units[name].units)] = False
            inside = left & (watched >= 0)
            gone[watched[inside]] = 1
    counts = torch.bincount(group)
    return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, group, gone) / counts


def _coarse(matrix: Tensor, size: int) -> Tensor:
    """Means over runs of neighbours, at most so many a side."""
    for axis in (0, 1):
        parts = matrix.tensor_split(min(size, matrix.shape[axis]), axis)
        matrix = torch.stack([part.mean(axis) for part in parts], axis)
    return matrix


def _plain(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.clamp(0, 1).tolist())
