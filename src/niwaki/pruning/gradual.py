"""Gradual pruning: a network is trained, and made smaller in place at certain steps.

    gradual = niwaki.schedule(model, x, "macs=0.5", steps=len(loader) * epochs, optimizer=optimizer)
    for inputs, targets in …:
        …
        optimizer.step()
        gradual.step()
    niwaki.save(gradual.result, "pruned")

The module stays the same object, so that whatever holds it goes on with it; the optimiser gets the
smaller parameters, with what it remembers of them cut alike, so that schedulers and scalers, which
hold the optimiser, need nothing.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn
from torch.optim import Optimizer

from niwaki.core.budget import MEASURED, Budget
from niwaki.core.errors import BudgetError, SettingError
from niwaki.core.records import Record
from niwaki.graph import Graph, trace
from niwaki.methods.base import (
    CRITERIA,
    Calibration,
    Criterion,
    ScoreFunction,
    as_criterion,
)
from niwaki.methods.base import score as scores_of
from niwaki.methods.given import Given
from niwaki.methods.greg import GReg
from niwaki.pruning._prune import prune
from niwaki.pruning.allocation import allocate
from niwaki.pruning.costs import predicted_cost
from niwaki.pruning.in_place import beside, greg_of, own_forward, share_left, unwrapped
from niwaki.pruning.pressing import Pressing
from niwaki.pruning.result import Result
from niwaki.pruning.schedules import Schedule
from niwaki.pruning.selection import Selection
from niwaki.running import Inputs
from niwaki.surgery import adopt, cut_twin

_AT_WORK: WeakKeyDictionary[nn.Module, ref[Gradual]] = WeakKeyDictionary()


class Gradual:
    """A schedule at work on one network; `niwaki.schedule` makes it.

    Attributes:
        model: the network, which becomes smaller.
        cuts: step → what is to be gone after it.
        steps: of the run.
        done: steps so far; more than none where a run is resumed.
    """

    def __init__(  # noqa: PLR0913  # as of niwaki.schedule
        self,
        model: nn.Module,
        example_inputs: Inputs,
        schedule: Schedule,
        steps: int,
        *,
        optimizer: Optimizer | None = None,
        ema: nn.Module | None = None,
        criterion: Criterion | str | ScoreFunction = "l2",
        press: GReg | str | None = None,
        done: int = 0,
        **options: Any,
    ) -> None:
        self.cuts = schedule.cuts(steps)
        self.model, self.schedule, self.steps, self.done = model, schedule, steps, done
        self._refuse_resumed()
        self._inputs = beside(model, example_inputs)
        self._optimizer = optimizer if optimizer is None else unwrapped(optimizer)
        self._ema = getattr(ema, "module", ema)
        self._criterion, self._options = as_criterion(criterion), options
        self._greg = greg_of(press, self._optimizer)
        self._pressing: Pressing | None = None
        self._results: list[Result] = []
        self._refuse_measured()
        self._cost = predicted_cost(self._traced(), self._budget)({})
        if (other := _AT_WORK.get(model)) is not None and other() is not None:
            raise SettingError(
                f"this {type(model).__name__} has a pruning schedule already; use that one, or end "
                "it with .close()"
            )
        _AT_WORK[model] = ref(self)
        self._prune_due()

    def step(self) -> bool:
        """To be called after every step of the optimiser: prunes the network when it is time.

        Returns:
            whether the network has become smaller.
        """
        self.done += 1
        if self._pressing is not None and self._optimizer is not None:
            self._pressing.step(self.model, self._optimizer)
        return self._prune_due()

    @property
    def left(self) -> tuple[tuple[int, Budget], ...]:
        """The cuts that are still to come."""
        return self.cuts[len(self._results) :]

    @property
    def result(self) -> Result:
        """The network as it is, with the record of the last cut, measured against the first.

        Raises:
            SettingError: cuts are still to come.
        """
        if self.left:
            raise SettingError(
                f"{len(self.left)} of {len(self.cuts)} cuts were not made: the run ended after "
                f"{self.done} steps, and the schedule was made for {self.steps}; give steps= of "
                "the run (batches × epochs)"
            )
        last = self._results[-1]
        return replace(last, model=self.model, record=self._record(last.record))

    def close(self) -> None:
        """Forget the network: no more cuts are made."""
        if (held := _AT_WORK.get(self.model)) is not None and held() is self:
            del _AT_WORK[self.model]

    def _record(self, last: Record) -> Record:
        settings = {
            **last.settings,
            "budget": str(self._budget),
            "criterion": CRITERIA.spell(self._criterion),
            "schedule": {
                "shape": self.schedule.shape,
                "steps": self.steps,
                "cuts": [[step, str(budget)] for step, budget in self.cuts],
            },
            **({"press": str(self._greg)} if self._greg else {}),
        }
        seconds: dict[str, float] = {}
        for result in self._results:
            for stage, spent in result.record.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        before = self._results[0].record.before
        return replace(last, before=before, settings=settings, seconds=seconds)

    def _prune_due(self) -> bool:
        pruned = False
        while self.left and self.left[0][0] <= self.done:
            self._prune(self.left[0][1])
            pruned = True
        if not self.left:
            self._pressing = None
            self.close()
        elif self._greg is not None and (pruned or self._pressing is None):
            self._press(self.left[0][1])
        return pruned

    def _prune(self, aim: Budget) -> None:
        """One cut, in place."""
        with own_forward(self.model):
            self._prune_plain(aim)

    def _prune_plain(self, aim: Budget) -> None:
        pressed, options = self._pressing, dict(self._options)
        if isinstance(selection := options.get("selection"), Selection):
            options["selection"] = selection.or_local()
        else:
            options.setdefault("scope", "local")
        result = prune(
            self.model,
            self._inputs,
            self._of_what_is_left(aim),
            criterion=self._criterion if pressed is None else Given(pressed.scores, "pressed"),
            **options,
        )
        notes = [] if self._optimizer is None else result.hand_over(self._optimizer)
        if self._ema is not None:
            cut_twin(self._ema, result.model, result.cut)
        adopt(self.model, result.model, result.cut)
        record = replace(result.record, notes=(*result.record.notes, *notes))
        self._results.append(replace(result, model=self.model, record=record))

    def _traced(self) -> Graph:
        with own_forward(self.model):
            return trace(self.model, self._inputs, probes=False)

    def _press(self, aim: Budget) -> None:
        """Choose the units of the next cut, and begin to press them down."""
        assert self._greg is not None
        graph = self._traced()
        seen = self._options.get("calibration")
        calibration = None if seen is None else Calibration.of(seen, self.model, self._inputs)
        scores = scores_of(graph, self._criterion, calibration=calibration)
        budget = self._of_what_is_left(aim)
        known = {item.name for item in fields(Selection)}
        chosen = {key: value for key, value in self._options.items() if key in known}
        selection = Selection.of(self._options.get("selection"), chosen, budget)
        plan = allocate(graph, scores, budget, selection)
        self._pressing = Pressing(graph, plan, scores, self._greg) if plan.kept else None

    def _of_what_is_left(self, aim: Budget) -> Budget:
        """A budget of the first network, as one of the network as it is."""
        if not self._results:
            return aim
        if aim.unit == "channels":  # a share of those that take part, whatever else there is
            left = math.prod(share_left(result) for result in self._results)
        else:
            left = predicted_cost(self._traced(), aim)({}) / self._cost
        return replace(aim, amount=max(0.0, 1 - (1 - aim.amount) / left))

    @property
    def _budget(self) -> Budget:
        return Budget.parse(self.schedule.budget)

    def _refuse_resumed(self) -> None:
        if self.done and self.cuts[0][0] < self.done:
            raise SettingError(
                f"the run goes on at step {self.done}, and its first cut was at step "
                f"{self.cuts[0][0]}; a run that prunes can be resumed before its first cut only"
            )

    def _refuse_measured(self) -> None:
        if self._budget.unit in MEASURED:
            raise BudgetError(
                f"a schedule cannot reach {self._budget}: {self._budget.unit} is measured, which "
                "would hold up the training; give the budget in macs, params, bytes or channels"
            )
        if self._budget.also:
            raise BudgetError(f"a schedule reaches one budget; got {self._budget}")
        parts = Selection.parts_of(self._options.get("selection"), self._options)
        if parts != ("units",) or self._options.get("form", "module") != "module":
            raise SettingError(
                "a schedule takes units out of a module in place; for branches, blocks and "
                "form='graph' use niwaki.prune"
            )

    def __repr__(self) -> str:
        return f"Gradual({self._budget}, {len(self._results)} of {len(self.cuts)} cuts made)"
