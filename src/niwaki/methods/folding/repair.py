"""Folding: units that are computed alike are taken for one, and what read them all reads that one
with their summed weights.

Each unit that goes is put into the cluster of the kept unit that it is most like
(niwaki.methods.folding.likeness), whatever layers write it and whatever non-linearity follows:
f(x₁) ≈ f(x₂) where x₁ ≈ x₂. Where multiples of a unit stay multiples until they are read (ReLU), a
multiple of the kept unit may stand in, the one nearest by weights. A unit that is nearer to nothing
at all than to any kept unit is dropped plainly.

Source: Wang, Šikić, Thiele, Saukh, Forget the Data and Fine-Tuning! Just Fold the Network to
Compress, ICLR 2025 (arXiv 2502.10216). As there: clusters of the writers' weights with their
normalisation, one unit a cluster, the consumers' columns summed. Not as there: the cluster is one
kept unit as it is, not the mean of the cluster's weights, because the writers are not changed here;
multiples; what is nearer to nothing; no repair of variances (the recovery `batchnorm` does that
from inputs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.graph import Group
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.one_for_one import OneForOne
from niwaki.methods.folding.likeness import likeness


@COMPENSATIONS.register("fold")
@dataclass(frozen=True)
class Fold(OneForOne):
    """Each unit that goes is folded into the kept one that it is most like."""

    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        if group.fold_obstacle is not None:
            return None, f"not folded: {group.fold_obstacle}"
        kept = torch.as_tensor(units, device="cpu")
        dropped = (
            torch.ones(group.width, dtype=torch.bool, device="cpu")
            .index_fill(0, kept, False)
            .nonzero()
            .squeeze(1)
        )
        gram = likeness(group, state)
        sizes, between = gram.diagonal(), gram[dropped][:, kept]
        scale = (
            (between / sizes[kept]).nan_to_num(0, posinf=0).clamp(min=0)
            if group.multiplies
            else torch.ones_like(between)
        )
        gained = scale * (2 * between - scale * sizes[kept])  # how much nearer than nothing
        most, match = gained.max(1)
        good = most > 0
        mixing = Mixing.selecting(group.width, units)
        mixing.matrix[dropped[good], match[good]] = scale.gather(1, match[:, None]).squeeze(1)[good]
        return mixing, f"folded {int(good.sum())} of {len(dropped)} dropped units"
