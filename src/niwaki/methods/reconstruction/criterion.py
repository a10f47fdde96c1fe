"""Column subset selection: units go one by one, always the one that the others can best make up
for; then exchanges.

A unit matters only for what the kept ones cannot foretell of it, as its consumers see it: with R
the covariance that the least squares of all units on the kept ones leaves, and G = Wᵀ·W the Gram
matrix of a consumer's weights, tr(G·R). With calibration inputs, G = Wᵀ·D·W, with D the Fisher
information of what the consumer puts out (niwaki.methods.moments.fisher): an error counts for as
much as it changes the network's answer. Scores are those of backward elimination
(niwaki.methods.reconstruction.subsets). Once it is known how many units of a group stay, kept units
are exchanged for others as long as less is left unexplained. The compensations `reconstruct` and
`moments` put in what it counts on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group
from niwaki.graph.groups import layer_of
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.fisher import output_fisher
from niwaki.methods.moments.units import Reader, consumer_gram, readers
from niwaki.methods.reconstruction.subsets import Seen, eliminated, exchanged

FLOOR = 0.02  # of the mean information an output


@CRITERIA.register("reconstruct")
@dataclass(frozen=True)
class Reconstruction(Criterion):
    """The share of what its consumers read that is lost when a unit goes, after all that went
    before it.

    With calibration inputs the covariances are counted on them, without from the weights and stored
    statistics. Groups that are not read by weights alone are scored by their share of the squared
    weights.

    Attributes:
        ridge: as of the compensation, a share of the mean variance.
        places: how many places of a map are looked at in every input.
        fisher: whether errors count by what they change of the network's answer, where there are
            calibration inputs.
        swaps: exchanges of a kept unit for another, at most, in every group.
    """

    ridge: float = 1e-3
    places: int = 32
    fisher: bool = True
    swaps: int = 256

    comparable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.ridge < float("inf"):
            raise SettingError(f"reconstruct:ridge must be above 0; got {self.ridge}")
        if self.places < 1:
            raise SettingError(f"reconstruct:places must be at least 1; got {self.places}")
        if self.swaps < 0:
            raise SettingError(f"reconstruct:swaps must be 0 or more; got {self.swaps}")

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        return self._of(evidence, (group,))[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        return self._of(evidence, evidence.graph.groups)

    def refine(self, plan: Plan, evidence: Evidence) -> Plan:
        """The plan after exchanges: as many units of every group, and what its consumers read no
        worse explained.
        """
        if not self.swaps:
            return plan
        seen = self._seen(evidence, tuple(plan.kept))
        better = {
            name: exchanged(seen[name], units, self.ridge, self.swaps)
            for name, units in plan.kept.items()
            if seen[name]
        }
        groups = {
            name: Kept(kept.width, tuple(better.get(name, kept.units)))
            for name, kept in plan.items()
        }
        return replace(plan, units=groups)

    def _of(self, evidence: Evidence, groups: Sequence[Group]) -> dict[str, Tensor]:
        seen = self._seen(evidence, [group.name for group in groups])
        return {
            group.name: eliminated(seen[group.name], self.ridge)
            if seen[group.name]
            else _energy(evidence.graph, group)
            for group in groups
        }

    def _seen(self, evidence: Evidence, names: Sequence[str]) -> dict[str, list[Seen]]:
        """What each consumer of some groups sees; none of a group that is not read by weights
        alone.
        """
        known: dict[str, list[Seen]] = evidence.known.setdefault(replace(self, swaps=0), {})
        missing = [name for name in names if name not in known]
        graph, free = (
            evidence.graph,
            [name for name in missing if evidence.graph[name].fold_obstacle is None],
        )
        told: dict[str, Tensor] = {}
        if not free:
            moments = {}
        elif evidence.calibration is None:
            moments = derive(graph, free, Prior())
        else:
            moments = gather(evidence, free, "reconstruct", self.places)
            layers = {
                _layer(graph, reader) for here in readers(graph, free).values() for reader in here
            }
            told = output_fisher(evidence, layers, "reconstruct") if self.fisher else {}
        for name in missing:
            known[name] = [
                (
                    counted.covariance,
                    consumer_gram(graph, name, weight, _sure(told.get(layer_of(weight)))),
                )
                for weight, counted in moments.get(name, {}).items()
            ]
        return known


def _layer(graph: Graph, reader: Reader) -> str:
    return graph.inference.tape.ops[reader.position].layer


def _sure(fisher: Tensor | None) -> Tensor | None:
    """With a little of every direction: that an output did not matter for these inputs does not
    mean that it never will.
    """
    return (
        None
        if fisher is None
        else fisher + FLOOR * torch.eye(len(fisher), dtype=torch.float64, device="cpu")
    )


def _energy(graph: Graph, group: Group) -> Tensor:
    squares = group.rows(graph.state).double().square().sum(1).cpu()
    return squares / squares.sum().clamp(min=1e-300)
