"""BatchNorm re-estimation: means and variances as they are in the pruned network, each after those
before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph.inference import Norm
from niwaki.methods.base.recovery import RECOVERIES, Recovery
from niwaki.methods.base.side_by_side import SideBySide


@RECOVERIES.register("batchnorm")
@dataclass(frozen=True)
class BatchNorm(Recovery):
    """Stored statistics counted anew over all calibration inputs, layer by layer."""

    def apply(self, runs: SideBySide) -> str:
        norms = runs.graph.inference.norms
        for norm in norms:
            reestimate(runs, norm)
        return f"statistics of {len(norms)} normalisations counted anew over {runs.inputs} inputs"


def reestimate(runs: SideBySide, norm: Norm) -> None:
    """Write the mean and variance of what a normalisation of the pruned network is given."""
    count, total, squares = 0, torch.zeros((), device="cpu"), torch.zeros((), device="cpu")
    centre: Tensor | None = None
    for args, _ in runs.pruned(norm.position):
        rows = args[0].movedim(1, -1).flatten(0, -2).double()
        centre = rows.mean(0) if centre is None else centre
        rows = rows - centre
        count, total, squares = (
            count + len(rows),
            total + rows.sum(0),
            squares + rows.square().sum(0),
        )
    if centre is None or not bool(torch.isfinite(squares).all()):
        raise SettingError(
            "with the calibration inputs a normalisation is given NaN or infinite values; look "
            "for them there"
        )
    off = total / count
    runs.state[norm.mean].copy_(centre + off)
    runs.state[norm.var].copy_((squares / count - off.square()) * count / max(1, count - 1))
