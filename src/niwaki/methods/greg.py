"""GReg: the units that are to go are pressed down by a weight decay that grows.

The units of the least absolute weights of every group are chosen at the start. The loss gains
½·λ·Σ ‖w_u‖² over them alone, and λ grows by δ every so many steps up to a ceiling: the network has
time to move what they know to others, so that little is left in them when they are cut. Source:
Wang, Qin, Zhang, Fu, Neural Pruning via Growing Regularization, ICLR 2021, arXiv 2012.09243,
section 3 (GReg-1).

Example: the rows (3, 4) and (1, -1), a share of a half, δ = 0.1: the second row is chosen, and the
penalty is ½·0.1·2 = 0.1; after two growths it is ½·0.3·2 = 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group, Role
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.penalty import PENALTIES, Penalty, PenaltyOver, Term
from niwaki.methods.norms import L1


@PENALTIES.register("greg")
@dataclass(frozen=True)
class GReg(Penalty):
    """½ · λ · Σ ‖w‖² over the units that are to go, λ = reg at the start.

    `over(graph)` gives the penalty, which grows as it is called with gradients: once a step.

    Attributes:
        reg: δ: what λ begins at, and grows by.
        share: of the units of every group, that are to go.
        every: λ grows after so many steps.
        ceiling: of λ.
    """

    reg: float = 1e-4
    share: float = 0.5
    every: int = 10
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise SettingError(f"greg:share must lie in (0, 1); got {self.share}")
        if self.every < 1:
            raise SettingError(f"greg:every must be 1 or more; got {self.every}")
        if not self.reg <= self.ceiling < math.inf:
            raise SettingError(f"greg:ceiling must be at least reg; got {self.ceiling}")

    def terms(self, group: Group) -> list[Term]:
        """The tensors that write a group's units; `over` says which units are pressed down."""
        written = [piece for writer in group.writers for piece in writer.weights]
        return [Term(piece, _squares) for piece in written or group.of_role(Role.PRODUCER)]

    def over(
        self, graph: Graph, only: str | Sequence[str] = (), skip: str | Sequence[str] = ()
    ) -> GrowingOver:
        """The penalty over the groups of a graph, with the units chosen by its weights as they are.

        Raises:
            SettingError: a pattern matches no group, or no group is written by weights.
        """
        asked = {term.piece.tensor for term in super().over(graph, only, skip).terms}
        kept: dict[str, Kept] = {}
        for group in graph.groups:
            written = any(term.piece.tensor in asked for term in self.terms(group))
            going = min(round(self.share * group.width), group.width - 1)
            if written and going:
                order = L1().score(group, Evidence(graph)).argsort(stable=True)
                kept[group.name] = Kept(group.width, tuple(sorted(order[going:].tolist())))
        return self.upon(graph, Plan(kept), asked)

    def upon(self, graph: Graph, plan: Plan, tensors: Collection[str] | None = None) -> GrowingOver:
        """The penalty over the units that a plan takes away.

        Args:
            tensors: names of those that it may press; all that write these units, without it.

        Raises:
            SettingError: nothing of the plan is written by weights.
        """
        terms = []
        for name, units in plan.kept.items():
            stays = set(units)
            going = torch.tensor([u for u in range(plan[name].width) if u not in stays])
            terms += [
                replace(term, measure=_Of(going))
                for term in self.terms(graph[name])
                if tensors is None or term.piece.tensor in tensors
            ]
        if not terms:
            raise SettingError(self.refusal(graph.groups))
        return GrowingOver(self, tuple(terms), plan)

    def refusal(self, groups: Sequence[Group]) -> str:
        """Why there is nothing to work on."""
        return (
            "there is no group of channels, written by weights, of which 'greg' could take a part"
        )


@dataclass(frozen=True)
class _Of:
    """Squares of the rows of some units."""

    units: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return rows[self.units.to(rows.device)].square()


@dataclass(frozen=True)
class GrowingOver(PenaltyOver):
    """The penalty at work.

    Attributes:
        plan: the units that stay, for the cut at the end.
        done: how often it was called with gradients; a run that is resumed begins anew.
    """

    plan: Plan = field(default_factory=lambda: Plan({}))
    done: list[int] = field(default_factory=lambda: [0])

    @property
    def level(self) -> float:
        """λ as it is now."""
        greg = self.penalty
        assert isinstance(greg, GReg)
        return min(greg.ceiling, greg.reg * (1 + self.done[0] // greg.every))

    def __call__(self, model: nn.Module) -> Tensor:
        """½ · λ · Σ ‖w‖²; a step is counted where gradients are on."""
        value = self.level / 2 * torch.stack([term(model) for term in self.terms]).sum()
        self.done[0] += torch.is_grad_enabled()
        return value


def _squares(rows: Tensor) -> Tensor:
    return rows.square()
