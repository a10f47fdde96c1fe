"""BatchNorm re-estimation: means and variances as they are in the pruned network, each after those
before it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        norms = normalisations(runs)
        for calls in norms:
            reestimate(runs, calls)
        return f"statistics of {len(norms)} normalisations counted anew over {runs.inputs} inputs"


def normalisations(runs: SideBySide) -> list[list[Norm]]:
    """All normalisations by stored statistics, each with all its calls, in the order in which they
    are met; without those of which one call needs the result of another.
    """
    calls_of: dict[str, list[Norm]] = {}
    for norm in runs.graph.inference.norms:
        calls_of.setdefault(norm.mean, []).append(norm)
    met = [calls for mean, calls in calls_of.items() if mean not in runs.order.apart]
    return sorted(met, key=lambda calls: runs.order.place[calls[0].position])


def reestimate(runs: SideBySide, calls: Sequence[Norm]) -> None:
    """Write the mean and variance of what a normalisation of the pruned network is given, over all
    its calls.
    """
    count, total, squares = 0, torch.zeros((), device="cpu"), torch.zeros((), device="cpu")
    centre: Tensor | None = None
    norm = calls[0]
    for args, _ in (given for call in calls for given in runs.pruned(call.position)):
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
