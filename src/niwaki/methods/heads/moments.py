"""Second moments of queries and keys: counted where inputs are at hand, else of weights for white
inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from niwaki.graph.heads import Head, HeadProduct
from niwaki.methods.base.evidence import Evidence
from niwaki.running import Op, batch_size, run

Rows = tuple[str, tuple[int, ...]]  # weight and its rows


class Counted:
    """Sums over the rows of one projection's results.

    Attributes:
        square: Σ y·yᵀ of all rows: (out, out).
        around: the same around the mean over the rows of one input.
        rows: how many there were.
    """

    def __init__(self, width: int) -> None:
        self.square = torch.zeros(width, width, dtype=torch.float64, device="cpu")
        self.around = torch.zeros_like(self.square)
        self.rows = 0

    def add(self, values: Tensor, samples: int) -> None:
        """Count what a projection puts out: (…, out), inputs first."""
        flat = values.detach().double().flatten(0, -2)
        self.square += (flat.T @ flat).cpu()
        apart = samples if len(flat) % samples == 0 else 1
        by_input = flat.view(apart, -1, flat.shape[-1])
        centred = (by_input - by_input.mean(1, keepdim=True)).flatten(0, 1)
        self.around += (centred.T @ centred).cpu()
        self.rows += len(flat)


def counted(evidence: Evidence, products: Iterable[HeadProduct], who: str) -> Mapping[str, Counted]:
    """Projection's weight → moments of what it puts out, over all calibration inputs.

    Raises:
        SettingError: there are no calibration inputs.
        TraceError: the model cannot be run on them.
    """
    names = {place: weight for product in products for weight, place in product.makers}
    known: dict[str, Counted] = {}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = op.func(*args, **kwargs)
        if position in names:
            moments = known.setdefault(names[position], Counted(result.shape[-1]))
            moments.add(result, size)
        return result

    graph = evidence.graph
    for inputs, _ in evidence.batches(who):
        size = batch_size(inputs)
        run(graph.model, graph.inference.tape, inputs, step)
    return known


def second_moments(
    head: Head,
    axis: int,
    state: Mapping[str, Tensor],
    known: Counted | None,
    *,
    around: bool,
) -> Tensor:
    """E[y·yᵀ] of a head's queries or keys, float64 (d, d).

    Counted ones are joined by those of the weights as if these had been seen on d rows, so that
    what the inputs do not reach is ordered too.

    Args:
        axis: of the weight, which the head's rows are on.
        around: without what all keys of an input share.
    """
    index = torch.tensor(head.rows, device="cpu")
    weight = state[head.weight].detach()
    rows = weight.index_select(axis, index.to(weight.device)).movedim(axis, 0).double().cpu()
    assumed = rows @ rows.T
    if head.bias is not None and not around:
        bias = state[head.bias].detach()[index.to(weight.device)].double().cpu()
        assumed = assumed + torch.outer(bias, bias)
    if known is None:
        return assumed
    seen = (known.around if around else known.square)[index][:, index]
    if not bool(seen.isfinite().all()):
        raise RuntimeError(f"what {head.layer} puts out is not finite")
    size = assumed.trace()
    prior = assumed * (seen.trace() / known.rows / size) if float(size) > 0 else assumed
    width = len(index)
    return (seen + width * prior) / (known.rows + width)
