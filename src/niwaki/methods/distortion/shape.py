"""E(k): what is lost of what a group's readers read when only its k best units are kept and make up
for the others, for every k.

Let the units stand best first, C their covariance where a consumer reads them and G the Gram matrix
of its weights. With C = L·Lᵀ, the least squares of all units on the first k leaves the covariance
L₂₂·L₂₂ᵀ of the others, L₂₂ the lower right part of L, so that

    E(k) = Σ_{j ≥ k} lⱼᵀ·G·lⱼ / tr(G·C),        lⱼ the columns of L:

one factorisation for the whole curve. Consumers add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from niwaki.methods.base.evidence import Evidence
from niwaki.methods.data_free._derive import Part, stream
from niwaki.methods.data_free.gaussian import precision
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.reconstruction.criterion import Reconstruction

RIDGE = 1e-3  # a share of the mean variance, as the criterion `reconstruct` has it
Orders = Mapping[str, Tensor]  # group → its units, best first


class Shape:
    """The curve of one group, consumer by consumer."""

    def __init__(self, order: Tensor) -> None:
        self._order = order
        self._lost = torch.zeros(len(order), dtype=torch.float64, device="cpu")
        self._signal = 0.0

    def add(self, covariance: Tensor, gram: Tensor, start: int = 0) -> None:
        """Take up a consumer, or its share of consecutive units that are correlated with no others.

        Args:
            covariance, gram: (n, n), of the units from `start` on.
        """
        places = ((self._order >= start) & (self._order < start + len(gram))).nonzero().flatten()
        own = self._order[places] - start
        ordered, seen = covariance[own][:, own].double(), gram[own][:, own].double()
        level = float(ordered.diagonal().mean())
        if not level > 0:
            return
        self._signal += float((seen * ordered).sum())
        ordered.diagonal().add_(RIDGE * level)
        factor, failed = torch.linalg.cholesky_ex(ordered)
        if bool(failed):  # rounding: as if units had nothing to do with each other
            factor = torch.diag(ordered.diagonal().clamp(min=0).sqrt())
        self._lost[places] += ((seen @ factor) * factor).sum(0)

    def add_parts(self, parts: Sequence[Part], gram: Tensor) -> None:
        """Take up a consumer by moments that come in parts."""
        for part in parts:
            here = gram[part.start : part.stop, part.start : part.stop]
            self.add(part.covariance, here, part.start)

    def curve(self) -> Tensor | None:
        """E(k) for k = 0 … width, (width + 1,); None where nothing is read."""
        if not self._signal > 0 or not bool(torch.isfinite(self._lost).all()):
            return None
        return _left(self._lost / self._signal)


def of_scores(scores: Tensor) -> Tensor:
    """The same by squared scores alone, for groups of which nothing else is known: (width + 1,).

    >>> of_scores(torch.tensor([2.0, 1.0])).tolist()
    [1.0, 0.2, 0.0]
    """
    above = scores.double() - scores.double().min().clamp(max=0)
    squares = above.sort(descending=True).values.square()
    total = squares.sum()
    shares = squares / total if total > 0 else torch.full_like(squares, 1 / len(squares))
    return _left(shares)


def of_moments(evidence: Evidence, orders: Orders) -> dict[str, Tensor]:
    """Group → E, by what was counted on the calibration inputs, or derived without any."""
    graph = evidence.graph
    shapes = {name: Shape(order) for name, order in orders.items()}
    if evidence.calibration is not None:
        for name, seen in Reconstruction()._seen(evidence, list(orders)).items():
            if name in shapes:
                for covariance, gram in seen:
                    shapes[name].add(covariance, gram)
    else:

        def take(name: str, weight: str, parts: Sequence[Part]) -> None:
            gram = consumer_gram(graph, name, weight, form=precision(parts[-1].stop))
            shapes[name].add_parts(parts, gram)

        stream(graph, _free(evidence, orders), Prior(), take)
    return curves_of(shapes)


def curves_of(shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """E of all groups of which it is known."""
    curves = {name: shape.curve() for name, shape in shapes.items()}
    return {name: curve for name, curve in curves.items() if curve is not None}


def _free(evidence: Evidence, names: Iterable[str]) -> list[str]:
    """Groups that a mixing can be folded for."""
    return [name for name in names if evidence.graph[name].fold_obstacle is None]


def _left(lost: Tensor) -> Tensor:
    """Sums from every place to the end: (n,) → (n + 1,)."""
    sums = lost.flip(0).cumsum(0).flip(0)
    return torch.cat([sums, sums.new_zeros(1)])
