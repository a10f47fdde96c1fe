"""What the steps hand to one another: scores of units, and the cut that surgery applies and the
proof proves.

    evidence → score → Scores → select → Cut (plain) → compensate → Cut (repaired) → shrink, check
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps
from niwaki.graph import Graph
from niwaki.methods.base.evidence import Evidence


@dataclass(frozen=True, eq=False, repr=False)
class Scores(Mapping[str, Tensor]):
    """One score a unit: group name → (width,) float64 on the CPU, high for units that should stay.

    Attributes:
        graph: whose groups these are.
        units: the scores by group.
        evidence: what the criterion looked at, so that the next step need not look again.
        dependencies: between adjacent layers, where the scores came from these (MINT).
        remarks: what a reader should know of them.
        curves: group → what the network's answer loses with k units of it left, k = 0 … width:
            (width + 1,); where that was looked at.
    """

    graph: Graph
    units: Mapping[str, Tensor]
    evidence: Evidence | None = None
    dependencies: DependencyMaps | None = None
    remarks: tuple[str, ...] = ()
    curves: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.units[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        return f"Scores({len(self)} groups, {sum(map(len, self.values()))} units)"


@dataclass(frozen=True, eq=False, repr=False)
class Cut:
    """What goes from a network, and what the rest does for it.

    Attributes:
        graph: of the network before.
        plan: what stays.
        mixings: group name → how its kept units make up for all; plain pruning without one.
        notes: group name → what its compensation did, or why it could do nothing.
        residuals: group name → E|W·(x - x̂)|² as a share of E|W·(x - E x)|², W the consumers'
            weights, x the units where they are read and x̂ what the mixing makes of them; of
            compensations that know it.
        remarks: what is to be said of all groups together.
        evidence: what the steps before looked at.
        settled: operators whose numbers the code computes from counts, and that weights make up
            for, so that they change nothing.
    """

    graph: Graph
    plan: Plan = field(default_factory=Plan)
    mixings: Mapping[str, Mixing] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    residuals: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    evidence: Evidence | None = None
    settled: frozenset[int] = frozenset()

    def with_plan(self, plan: Plan) -> Cut:
        """The same with another plan, as when the sizes that its code states are known."""
        return replace(self, plan=plan)

    def __repr__(self) -> str:
        units = sum(kept.width - len(kept.units) for kept in self.plan.values())
        return f"Cut({units} units of {len(self.plan.kept)} groups, {len(self.mixings)} repaired)"
