"""Column subset selection: units go one by one, always the one that the others can best make up for.

A unit matters only for what the kept ones cannot foretell of it, as its consumers see it. With C the covariance of the units
where they are read, P its inverse over the units that are still there, M = C·P the least squares of all units on these, and
G = Wᵀ·W the Gram matrix of the consumers' weights, taking unit j away leaves

    (Mᵀ·G·M)_jj / P_jj

more of what the consumers read unexplained. With calibration inputs, G = Wᵀ·D·W, with D the Fisher information of what the
consumer puts out (niwaki.moments.fisher): an error counts for as much as it changes the network's answer. Both matrices
follow each step by a rank-two change. This is backward elimination by pivoting; the compensations `reconstruct` and
`moments` put in what it counts on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.criteria.base import CRITERIA, Criterion
from niwaki.errors import SettingError
from niwaki.evidence import Evidence
from niwaki.graph import Graph, Group
from niwaki.graph.gaussian import Prior
from niwaki.graph.groups import layer_of
from niwaki.moments import Reader, consumer_gram, derive, gather, output_fisher, readers

FLOOR = 0.02  # of the mean information an output

Seen = tuple[Tensor, Tensor]  # covariance of the units and Gram matrix of one consumer


@CRITERIA.register("reconstruct")
@dataclass(frozen=True)
class Reconstruction(Criterion):
    """The share of what its consumers read that is lost when a unit goes, after all that went before it.

    With calibration inputs the covariances are counted on them, without from the weights and stored statistics. Groups that
    are not read by weights alone are scored by their share of the squared weights.

    Attributes:
        ridge: as of the compensation, a share of the mean variance.
        places: how many places of a map are looked at in every input.
        fisher: whether errors count by what they change of the network's answer, where there are calibration inputs.
    """

    ridge: float = 1e-3
    places: int = 64
    fisher: bool = True

    comparable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.ridge < float("inf"):
            raise SettingError(f"reconstruct:ridge must be above 0; got {self.ridge}")
        if self.places < 1:
            raise SettingError(f"reconstruct:places must be at least 1; got {self.places}")

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return self._of(evidence, (group,))[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        return self._of(evidence, evidence.graph.groups)

    def _of(self, evidence: Evidence, groups: Sequence[Group]) -> dict[str, Tensor]:
        graph = evidence.graph
        free = [group.name for group in groups if group.fold_obstacle is None]
        layers = {layer for here in readers(graph, free).values() for layer in (_layer(graph, reader) for reader in here)}
        told: dict[str, Tensor] = {}
        if evidence.calibration is None:
            moments = derive(graph, free, Prior())
        else:
            moments = gather(evidence, free, "reconstruct", self.places)
            told = output_fisher(evidence, layers, "reconstruct") if self.fisher else {}
        found = {}
        for group in groups:
            seen = [
                (counted.covariance, consumer_gram(graph, group.name, weight, _sure(told.get(layer_of(weight)))))
                for weight, counted in moments.get(group.name, {}).items()
            ]
            found[group.name] = eliminated(seen, self.ridge) if seen else _energy(graph, group)
        return found


def _layer(graph: Graph, reader: Reader) -> str:
    return graph.inference.tape.ops[reader.position].layer


def _sure(fisher: Tensor | None) -> Tensor | None:
    """With a little of every direction: that an output did not matter for these inputs does not mean that it never will."""
    return None if fisher is None else fisher + FLOOR * torch.eye(len(fisher), dtype=torch.float64, device="cpu")


def eliminated(seen: Sequence[Seen], ridge: float) -> Tensor:
    """What is lost of the signal by each unit's going, in the order of going, and never falling: (width,)."""
    width = len(seen[0][0])
    signal = sum(float((gram * covariance).sum()) for covariance, gram in seen)
    if not signal > 0:
        return torch.zeros(width, dtype=torch.float64, device="cpu")
    eye = torch.eye(width, dtype=torch.float64, device="cpu")
    precisions, reaches = [], []
    for covariance, gram in seen:
        level = float(covariance.diagonal().mean())
        precisions.append(torch.linalg.inv(covariance + ridge * (level if level > 0 else 1.0) * eye))
        reaches.append(gram.clone())
    there = torch.ones(width, dtype=torch.bool, device="cpu")
    lost, most = torch.zeros(width, dtype=torch.float64, device="cpu"), 0.0
    for step in range(width):
        pairs = zip(precisions, reaches, strict=True)
        losses = torch.stack([n.diagonal() / p.diagonal().clamp(min=1e-300) for p, n in pairs]).sum(0)
        unit = int(losses.masked_fill(~there, torch.inf).argmin())
        most = max(most, float(losses[unit]) / signal)
        lost[unit] = most * (1 + 1e-9 * step) + 1e-15 * step  # of equal ones, the later stays longer
        there[unit] = False
        for precision, reach in zip(precisions, reaches, strict=True):
            _without(unit, precision, reach)
    return lost


def _without(unit: int, precision: Tensor, reach: Tensor) -> None:
    """Take one unit out of P and of Mᵀ·G·M, in place."""
    row, own = precision[unit] / precision[unit, unit], reach[unit].clone()
    reach -= torch.outer(own, row) + torch.outer(row, own) - own[unit] * torch.outer(row, row)
    precision -= torch.outer(precision[unit].clone(), row)


def _energy(graph: Graph, group: Group) -> Tensor:
    squares = group.rows(graph.state).double().square().sum(1).cpu()
    return squares / squares.sum().clamp(min=1e-300)
