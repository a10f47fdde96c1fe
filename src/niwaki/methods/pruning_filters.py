"""Pruning Filters: the sums of absolute weights, and how much of every layer a sensitivity curve
lets go.

The score of a filter is s_j = Σ |W[j,:,:,:]|, without its bias (`l1` counts that too). Shares are
set by layer: one layer at a time is pruned by growing shares, and what it can lose without much of
a drop is its share; sensitive layers are left whole. Source: Li, Kadav, Durdanovic, Samet, Graf,
Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv 1608.08710, sections 3.1 and 3.2.

Example: a layer that drops by 0, 0.1 and 2 points at the shares 0.3, 0.5 and 0.7 may lose 0.5 of
its filters where 1 point is allowed; with curves (0.2, 3, 1) it may lose 0.3, as all smaller shares
must be allowed too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph import Group, Role
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence


@CRITERIA.register("pruning-filters")
@dataclass(frozen=True)
class PruningFilters(Criterion):
    """Σ |W| over the weights that write a unit; biases and normalisations are not in it."""

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of a group."""
        written = [piece for writer in group.writers for piece in writer.weights]
        pieces = written or group.of_role(Role.PRODUCER)
        sums = [piece.rows(evidence.state).double().abs().sum(1).cpu() for piece in pieces]
        return torch.stack(sums).sum(0)


def shares_by_sensitivity(
    shares: Sequence[float], curves: Mapping[str, Sequence[float]], allowed: float
) -> dict[str, float]:
    """Layer → the share of its units that may go, as a selection takes shares by layer.

    Args:
        shares: that each layer was pruned by, ascending; `niwaki.sensitivity` takes them as ratios.
        curves: layer → what was lost at each of them (a drop of accuracy, or a residual).
        allowed: the most that a layer may lose.

    Returns:
        The largest share up to which nothing exceeds it; a layer without one is left out, to be
        left whole.

    Raises:
        SettingError: shares that do not ascend, or a curve of another length.
    """
    if list(shares) != sorted(set(shares)):
        raise SettingError(f"shares must ascend; got {', '.join(map(str, shares))}")
    chosen: dict[str, float] = {}
    for layer, lost in curves.items():
        if len(lost) != len(shares):
            raise SettingError(f"the curve of {layer!r} has {len(lost)} values, not {len(shares)}")
        for share, value in zip(shares, lost, strict=True):
            if value > allowed:
                break
            chosen[layer] = share
    return {layer: share for layer, share in chosen.items() if share > 0}


def filters_kept(width: int, share: float) -> int:
    """int(n·(1 - share)), as the authors count: 64 filters less 30 % are 44. The product is rounded
    in its last digits first, as 10·(1 - 0.9) is a little below 1.
    """
    return int(round(width * (1 - share), 9))
