"""Which blocks of weights go: one cut-off for the whole network, and a limit to what a layer may
lose.

A block is what a group of a child's rows has with a group of its parent's columns in the child's
weight. Blocks are lined up by their dependency, weakest first; among equal ones the smaller weights
come first. Everything up to the cut-off goes, but a layer stops where the next block would take it
over its limit (MINT, arXiv 2003.08472, section III).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.errors import BudgetError, SettingError
from niwaki.methods.mint._layer_dependencies import Dependency
from niwaki.methods.mint.by_layer import of_layer, refuse_unmatched


@dataclass(frozen=True)
class CutOff:
    """How far the line of blocks is cut; one of the two.

    Attributes:
        share: a place among the sorted different dependencies of all layers, in [0, 1]: 0.3 cuts
            all blocks whose dependency is at most the one that 30 % of the different values lie
            below.
        params: at least this share of the weights of all these layers goes.
        upper_limit: no layer loses more than this share of its weights.
        fed: every group of a child keeps its strongest block, so that something still gets through
            every layer; not in the paper, where a cut that goes far can sever a network.
        limits: pattern on a layer's name → its own upper limit; the last one of several counts.
    """

    share: float | None = None
    params: float | None = None
    upper_limit: float = 0.75
    fed: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.share is None) == (self.params is None):
            raise SettingError(
                "a cut-off is a share of the sorted dependencies or a share of the weights; give "
                "one of them"
            )
        for name, value in (
            ("cut-off", self.share),
            ("params", self.params),
            ("upper limit", self.upper_limit),
            *((f"upper limit of {pattern!r}", limit) for pattern, limit in self.limits.items()),
        ):
            if value is not None and not 0 <= value <= 1:
                raise SettingError(f"the {name} is a share in [0, 1]; got {value}")

    def limit_of(self, layer: str) -> float:
        """The share of its weights that a layer loses at most."""
        own = of_layer(self.limits, layer)
        return self.upper_limit if own is None else own


def grid(text: str) -> tuple[float, ...]:
    """`"0.1:0.9:0.1"` (from, to, step; both ends belong to it) or one number, as shares.

    Raises:
        SettingError: neither.
    """
    try:
        start, stop, step = (
            (float(part) for part in text.split(":"))
            if ":" in text
            else (float(text), float(text), 1.0)
        )
    except ValueError:
        raise SettingError(
            "a cut-off grid is written from:to:step, as 0.1:0.9:0.1, or as one number; got "
            f"{text!r}"
        ) from None
    if not (0 <= start <= stop <= 1 and step > 0):
        raise SettingError(
            f"a cut-off grid goes from a share up to a share in steps above 0; got {text!r}"
        )
    return tuple(
        round(start + step * place, 12)
        for place in range(math.floor((stop - start) / step + 1e-9) + 1)
    )


@dataclass(frozen=True, eq=False)
class _Line:
    """The blocks of one layer: dependency, order among equals, and how many weights, each (row
    groups, column groups).
    """

    draft: LayerBlocks
    values: Tensor
    strength: Tensor
    sizes: Tensor
    total: int

    @classmethod
    def of(cls, dependency: Dependency, weight: Tensor) -> _Line:
        pair = dependency.pair
        assert pair.columns is not None
        rows, columns = (
            _groups(pair.rows, dependency.child_group),
            _groups(pair.columns, dependency.parent_group),
        )
        table = (
            weight.detach().double().cpu().movedim((pair.out_axis, pair.in_axis), (0, 1)).square()
        )
        table = table.reshape(*table.shape[:2], -1)
        squares = _summed(table.sum(2), rows, columns, dependency.values.shape)
        sizes = _summed(
            torch.full_like(table[..., 0], table.shape[2]), rows, columns, dependency.values.shape
        )
        draft = LayerBlocks(
            tuple(rows.tolist()), tuple(columns.tolist()), (), pair.out_axis, pair.in_axis
        )
        return cls(
            draft, dependency.values, squares / sizes.clamp(min=1), sizes.long(), weight.numel()
        )


def _groups(units: Tensor, group: Tensor) -> Tensor:
    return torch.where(units >= 0, group[units.clamp(min=0)], -1)


def _summed(table: Tensor, rows: Tensor, columns: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums over blocks."""
    inside = table[rows >= 0][:, columns >= 0]
    by_row = torch.zeros(shape[0], inside.shape[1], dtype=table.dtype).index_add_(
        0, rows[rows >= 0], inside
    )
    return torch.zeros(shape[0], shape[1], dtype=table.dtype).index_add_(
        1, columns[columns >= 0], by_row
    )


def cut_blocks(
    dependencies: Sequence[Dependency], weights: Mapping[str, Tensor], cut_off: CutOff
) -> BlockPlan:
    """Choose the blocks that stay.

    Args:
        dependencies: of the layers in scope; those whose weight has no column for every
            unit are left whole.
        weights: parameters by name.

    Raises:
        BudgetError: the share of the weights cannot be removed within the layers' limits; the
            message says how much can.
        SettingError: no layer has blocks.
    """
    lines = {
        item.pair.weight: _Line.of(item, weights[item.pair.weight])
        for item in dependencies
        if item.pair.columns is not None
    }
    if not lines:
        raise SettingError(
            "none of these layers has blocks to cut: each must read its parent through a weight "
            "of its own"
        )
    limits = {item.pair.weight: cut_off.limit_of(item.pair.child) for item in dependencies}
    refuse_unmatched(cut_off.limits, (item.pair.child for item in dependencies), "limits")
    gone = {name: torch.zeros(line.values.shape, dtype=torch.bool) for name, line in lines.items()}
    lost, full = dict.fromkeys(lines, 0), set()
    total = sum(line.total for line in lines.values())
    wanted = math.ceil(total * cut_off.params - 1e-9) if cut_off.params is not None else None
    highest = math.inf if cut_off.share is None else _at(lines, cut_off.share)
    for value, _, name, row, column in _in_order(lines):
        if value > highest or (wanted is not None and sum(lost.values()) >= wanted):
            break
        size = int(lines[name].sizes[row, column])
        if cut_off.fed and int(gone[name][row].sum()) == gone[name].shape[1] - 1:
            continue
        if name in full or lost[name] + size > limits[name] * lines[name].total + 1e-9:
            full.add(name)
            continue
        gone[name][row, column] = True
        lost[name] += size
    if wanted is not None and sum(lost.values()) < wanted:
        also = " and a block left to every group" if cut_off.fed else ""
        own = ", or its own limit," if cut_off.limits else ""
        raise BudgetError(
            f"cannot remove {cut_off.params:.2%} of the weights: with at most "
            f"{cut_off.upper_limit:.0%} of each layer{own}{also} "
            f"{sum(lost.values()) / total:.2%} can go; raise the upper limit"
        )
    return BlockPlan({name: _with(line.draft, ~gone[name]) for name, line in lines.items()})


def _with(draft: LayerBlocks, kept: Tensor) -> LayerBlocks:
    pairs = tuple((row, column) for row, column in kept.nonzero().tolist())
    return LayerBlocks(draft.rows, draft.columns, pairs, draft.out_axis, draft.in_axis)


def _at(lines: Mapping[str, _Line], share: float) -> float:
    """The dependency at a place among all different ones."""
    values = torch.unique(torch.cat([line.values.flatten() for line in lines.values()]))
    return float(values[round(share * (len(values) - 1))])


def _in_order(lines: Mapping[str, _Line]) -> list[tuple[float, float, str, int, int]]:
    """All blocks, weakest first."""
    blocks = [
        (float(line.values[row, column]), float(line.strength[row, column]), name, row, column)
        for name, line in lines.items()
        for row in range(line.values.shape[0])
        for column in range(line.values.shape[1])
    ]
    return sorted(blocks)
