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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from niwaki.core.budget import Budget
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
from niwaki.methods.base.penalty import PENALTIES
from niwaki.methods.given import Given
from niwaki.methods.greg import GReg
from niwaki.pruning._prune import prune
from niwaki.pruning.allocation import Selection, allocate, predicted_cost
from niwaki.pruning.cost import MEASURED
from niwaki.pruning.pressing import Pressing
from niwaki.pruning.result import Result
from niwaki.pruning.schedules import Schedule
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

    def __init__(
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
        self._inputs = _beside(model, example_inputs)
        self._optimizer = optimizer if optimizer is None else unwrapped(optimizer)
        self._ema = getattr(ema, "module", ema)
        self._criterion, self._options = as_criterion(criterion), options
        self._greg = _greg(press, self._optimizer)
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
        with _own_forward(self.model):
            self._prune_plain(aim)

    def _prune_plain(self, aim: Budget) -> None:
        pressed = self._pressing
        result = prune(
            self.model,
            self._inputs,
            self._of_what_is_left(aim),
            criterion=self._criterion if pressed is None else Given(pressed.scores, "pressed"),
            **{"measure": False, **self._options},
        )
        notes = [] if self._optimizer is None else result.hand_over(self._optimizer)
        if self._ema is not None:
            cut_twin(self._ema, result.model, result.cut)
        adopt(self.model, result.model, result.cut)
        record = replace(result.record, notes=(*result.record.notes, *notes))
        self._results.append(replace(result, model=self.model, record=record))

    def _traced(self) -> Graph:
        with _own_forward(self.model):
            return trace(self.model, self._inputs, probes=False)

    def _press(self, aim: Budget) -> None:
        """Choose the units of the next cut, and begin to press them down."""
        assert self._greg is not None
        graph = self._traced()
        seen = self._options.get("calibration")
        calibration = None if seen is None else Calibration.of(seen, self.model, self._inputs)
        scores = scores_of(graph, self._criterion, calibration=calibration)
        budget = self._of_what_is_left(aim)
        chosen = {key: self._options[key] for key in _SELECTION if key in self._options}
        selection = Selection.of(self._options.get("selection"), chosen, budget)
        plan = allocate(graph, scores, budget, selection)
        self._pressing = Pressing(graph, plan, scores, self._greg) if plan.kept else None

    def _of_what_is_left(self, aim: Budget) -> Budget:
        """A budget of the first network, as one of the network as it is."""
        if not self._results:
            return aim
        if aim.unit == "channels":  # a share of those that take part, whatever else there is
            left = math.prod(_share_left(result) for result in self._results)
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

    def __repr__(self) -> str:
        return f"Gradual({self._budget}, {len(self._results)} of {len(self.cuts)} cuts made)"


_SELECTION = (
    "scope", "only", "skip", "min_units", "rounding", "multiple", "rule", "shares", "at_most"
)  # fmt: skip


def schedule(
    model: nn.Module,
    example_inputs: Inputs,
    budget: Budget | Mapping[str, Any] | float | str | Schedule = 0.5,
    *,
    steps: int,
    optimizer: Optimizer | None = None,
    ema: nn.Module | None = None,
    press: GReg | str | None = None,
    shape: str = "cubic",
    times: int = 5,
    begin: float = 0.1,
    end: float = 0.7,
    **options: Any,
) -> Gradual:
    """Make a network smaller while it is trained, in place; call the result's `step()` after every
    step of the optimiser.

    Args:
        model: the network in training, not wrapped (DDP, FSDP) nor compiled yet.
        example_inputs: as for `niwaki.prune`; they are moved to the model's device.
        budget: what is gone in the end, of the network as it is now, in channels, params, macs or
            bytes; or a whole `niwaki.Schedule` in the place of `shape`, `times`, `begin` and `end`.
        steps: of the optimiser, in the whole run.
        optimizer: it goes on with the smaller parameters, its momenta cut with them. Not needed
            where it is made after the last cut.
        ema: a running mean of the weights (`torch.optim.swa_utils.AveragedModel`, or a copy of the
            network), which is cut alike.
        press: `"greg"`, with settings as in `"greg:reg=1e-3,every=10"`: from one cut to the next,
            the units that are to go are pressed down by a weight decay that grows.
        shape: "cubic", "linear" or "one-shot" (all at `begin`).
        times: how many cuts.
        begin, end: of the first and the last cut: steps, or shares of the run.
        options: of `niwaki.prune`: criterion, compensation, calibration, skip, scope, …

    Raises:
        SettingError: the schedule is longer than the run, or the network has one already.
        BudgetError: a budget that is measured, or that cannot be met.
        TraceError: the model is wrapped, compiled, or does not run on the example inputs.
    """
    settings = (
        budget if isinstance(budget, Schedule) else Schedule(budget, shape, times, begin, end)  # type: ignore[arg-type]  # checked there
    )
    return Gradual(
        model, example_inputs, settings, steps, optimizer=optimizer, ema=ema, press=press, **options
    )


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimiser in what accelerate or Lightning put around it."""
    while not isinstance(optimizer, Optimizer) or type(optimizer).__name__.endswith(
        ("AcceleratedOptimizer", "LightningOptimizer")
    ):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None:
            raise SettingError(f"optimizer= takes an optimiser; got a {type(optimizer).__name__}")
        optimizer = inner
    return optimizer


def _greg(press: GReg | str | None, optimizer: Optimizer | None) -> GReg | None:
    if press is None:
        return None
    method = PENALTIES.build(press) if isinstance(press, str) else press
    if not isinstance(method, GReg):
        raise SettingError(f"press= takes 'greg' (niwaki.GReg), with its settings; got {press!r}")
    if optimizer is None:
        raise SettingError("press= needs optimizer=, whose learning rate scales the decay")
    return method


@contextmanager
def _own_forward(model: nn.Module) -> Iterator[None]:
    """Without the forward that accelerate put before the model's own, which a copy would share."""
    names = ("forward", "_original_forward") if "_original_forward" in vars(model) else ()
    put_before = {name: vars(model).pop(name) for name in names if name in vars(model)}
    try:
        yield
    finally:
        vars(model).update(put_before)


def _share_left(result: Result) -> float:
    units = result.plan.values()
    return sum(len(kept.units) for kept in units) / sum(kept.width for kept in units)


def _beside(model: nn.Module, inputs: Inputs) -> Inputs:
    """Inputs on the model's device."""
    first = next(iter(model.parameters()), None)
    if first is None:
        return inputs
    moved: Inputs = tree_map(
        lambda leaf: leaf.to(first.device) if isinstance(leaf, Tensor) else leaf, inputs
    )
    return moved
