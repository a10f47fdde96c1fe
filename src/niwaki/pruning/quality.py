"""What a pruning does where its user does not choose.

    fast      the same share of every group, by the norm of its weights, without a repair
    default   a budget of channels in equal shares, any other by what the network's answer loses to
              first order; repaired, from calibration inputs or from the weights
    best      shares by what the answer loses as measured group by group, units by what the rest
              cannot make up for; with calibration inputs every layer is fitted to the original's in
              the end

What is stated beside it wins. The proof is the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import nn

from niwaki.core.budget import Budget
from niwaki.core.errors import UnknownNameError
from niwaki.graph.offsets import states_layers
from niwaki.methods.base import (
    COMPENSATIONS,
    RECOVERIES,
    Compensation,
    Criterion,
    Recovery,
    ScoreFunction,
    as_criterion,
)
from niwaki.pruning.selection import Scope, Selection

Quality = Literal["fast", "default", "best"]
Recoveries = Recovery | str | Sequence[Recovery | str]


@dataclass(frozen=True)
class Methods:
    """The methods of a pruning.

    Attributes:
        recovery: one after the other.
        scope: how a budget is divided where nothing is said, and what else is asked allows it.
    """

    criterion: Criterion = field(default_factory=lambda: as_criterion("l2"))
    compensation: Compensation = field(default_factory=lambda: COMPENSATIONS.build("auto"))
    recovery: tuple[Recovery, ...] = ()
    scope: Scope = "quick"

    @classmethod
    def of(cls, quality: str, *, fitted: bool = False) -> Methods:
        """Those of a quality.

        Args:
            fitted: whether layers can be fitted afterwards: there are calibration inputs, and both
                networks have the same layers.

        Raises:
            UnknownNameError: no such quality.
        """
        if quality not in get_args(Quality):
            raise UnknownNameError("quality", quality, get_args(Quality))
        if quality == "fast":
            return cls(compensation=COMPENSATIONS.build("none"), scope="local")
        if quality == "best":
            steps = (RECOVERIES.build("lbfgs"),) if fitted else ()
            return cls(as_criterion("auto"), recovery=steps, scope="auto")
        return cls()

    def but(
        self,
        criterion: Criterion | str | ScoreFunction | None = None,
        compensation: Compensation | str | None = None,
        recovery: Recoveries | None = None,
    ) -> Methods:
        """The same with what a user states in their place."""
        stated: dict[str, Any] = {}
        if criterion is not None:
            stated["criterion"] = as_criterion(criterion)
        if compensation is not None:
            stated["compensation"] = (
                COMPENSATIONS.build(compensation) if isinstance(compensation, str) else compensation
            )
        if recovery is not None:
            steps = [recovery] if isinstance(recovery, (Recovery, str)) else recovery
            stated["recovery"] = tuple(
                RECOVERIES.build(step) if isinstance(step, str) else step for step in steps
            )
        return replace(self, **stated)

    def settled(self, selection: Selection, budget: Budget, model: nn.Module) -> Selection:
        """The selection with a scope, where its user says nothing of one.

        Shares by loss are not the same for all blocks, and read no quantile. Of a library's network
        the same layers of all blocks lose the same, as its config has one entry for them.
        """
        if selection.scope is not None:
            return selection
        bound = selection.uniform or selection.rule != "exact" or "units" not in selection.parts
        if self.scope == "quick":
            by_config = selection.uniform is None and states_layers(model)
            plain = budget.unit == "channels" and not budget.also
            bound = bound or by_config or plain or selection.parts != ("units",)
        return replace(selection, scope="local" if bound else self.scope)
