"""Layer-wise recovery: each weight fitted anew, so that its layer puts out what the original's
does.

For every layer in turn, X what it sums over in the pruned network as it is by then and Y what the
original's layer puts out,

    W' = W + (C_yx - W·C_xx)·(C_xx + λ·I)⁻¹,   bias' = mean(Y) - W'·mean(X),

ridge least squares around the weight that surgery left. A mixing can only combine units; this also
moves weight between the places of a kernel. Normalisations by stored statistics are counted anew on
the way.

Source: the layer-wise reconstruction of Luo, Wu, Lin, ThiNet, ICCV 2017, section 3.2.3, with all
layers in sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph.inference import Norm
from niwaki.graph.products import Product, products
from niwaki.methods.base.recovery import RECOVERIES, Recovery
from niwaki.methods.base.side_by_side import SideBySide
from niwaki.methods.batchnorm_statistics import normalisations, reestimate
from niwaki.methods.moments.accumulate import Moments


@RECOVERIES.register("refit")
@dataclass(frozen=True)
class Refit(Recovery):
    """One closed-form step a layer.

    Attributes:
        ridge: λ as a share of the mean variance of what a layer sums over.
        places: how many places of a map, evenly spread, are looked at in every input.
        widest: layers that sum over more than this many numbers are left as they are: their
            covariance would not fit.
        norms: whether the statistics of normalisations are counted anew too.
    """

    ridge: float = 1e-2
    places: int = 64
    widest: int = 4608
    norms: bool = True

    name: ClassVar[str] = "refit"

    def __post_init__(self) -> None:
        if not 0 <= self.ridge < float("inf"):
            raise SettingError(f"{self.name}:ridge must be 0 or more; got {self.ridge}")
        if self.places < 1 or self.widest < 1:
            raise SettingError(
                f"{self.name}:places and {self.name}:widest must be at least 1; got {self.places} "
                f"and {self.widest}"
            )

    def apply(self, runs: SideBySide) -> str:
        norms = normalisations(runs) if self.norms else []
        layers = [layer for layer in products(runs.graph) if layer.weight not in runs.order.apart]
        done: Counter[str] = Counter()
        steps: list[tuple[int, Product | list[Norm]]] = [
            (runs.order.place[layer.position], layer) for layer in layers
        ]
        steps += [(runs.order.place[calls[0].position], calls) for calls in norms]
        for _, step in sorted(steps, key=lambda pair: pair[0]):
            if isinstance(step, list):
                reestimate(runs, step)
            elif runs.state[step.weight].numel():
                done.update(self._fit(runs, step))
        counted = f", {len(norms)} normalisations counted anew" if norms else ""
        return (
            f"{done['fitted']} layers fitted to the original's over {runs.inputs} "
            f"inputs{self._more(done)}{counted}"
        )

    def _more(self, done: Counter[str]) -> str:
        """What else there is to say."""
        return ""

    def _fit(self, runs: SideBySide, layer: Product) -> list[str]:
        """Fit one layer; what was done."""
        matrix = layer.matrix(runs.state[layer.weight]).double().cpu()
        out, width = matrix.shape
        if width > self.widest:
            return []
        joint = Moments(width + out)
        for rows, wanted in self._pairs(runs, layer):
            joint.add(torch.cat([rows, wanted], 1), f"what {layer.op.layer or 'the model'} reads")
        self._write(runs, layer, matrix, joint)
        return ["fitted"]

    def _pairs(self, runs: SideBySide, layer: Product) -> Iterator[tuple[Tensor, Tensor]]:
        """What the pruned layer sums over, and what the original's puts out where it still does,
        call by call and batch by batch.
        """
        kept = runs.left(layer.weight, 1 if layer.turned else 0)
        for call in layer.calls:
            op = runs.graph.inference.tape.ops[call]
            stopped = zip(
                runs.original(call), runs.pruned(call), runs.places(self.places), strict=True
            )
            for (theirs, _), (ours, _), places in stopped:
                wanted = layer.results(op.func(*theirs), places)
                yield layer.rows(ours, places), wanted[:, kept.to(wanted.device)]

    def _write(self, runs: SideBySide, layer: Product, matrix: Tensor, joint: Moments) -> None:
        width = matrix.shape[1]
        bias = bias_of(runs, layer)
        followed = layer.is_convolution and bias is None and self._normalised(runs, layer)
        mean, second = joint.mean, joint.covariance
        if bias is None and not followed:  # no constant anywhere
            second, mean = second + torch.outer(mean, mean), torch.zeros_like(mean)
        xx, yx = second[:width, :width], second[width:, :width]
        level = float(xx.diagonal().mean())
        if not level > 0:
            return
        few = runs.inputs * self.places < 10 * width
        damped = xx + max(self.ridge * (10 if few else 1), 1e-9) * level * torch.eye(
            width, dtype=torch.float64, device="cpu"
        )
        new = matrix + torch.linalg.solve(damped, (yx - matrix @ xx).T, left=True).T
        layer.write(runs.state[layer.weight], new)
        if bias is not None:
            bias.copy_(mean[width:] - new @ mean[:width])

    def _normalised(self, runs: SideBySide, layer: Product) -> bool:
        readers = [
            place
            for place, op in enumerate(runs.graph.inference.tape.ops)
            if layer.op.result in op.tensors
        ]
        return (
            self.norms
            and len(readers) == 1
            and any(norm.position == readers[0] for norm in runs.graph.inference.norms)
        )


def bias_of(runs: SideBySide, layer: Product) -> Tensor | None:
    """The pruned layer's bias, where it has one."""
    if layer.bias is not None:
        return runs.state[layer.bias]
    return runs.state.get(
        layer.weight.removesuffix("weight") + "bias"
    )  # one that a mixing's constant needed
