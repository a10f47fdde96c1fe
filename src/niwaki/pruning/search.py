"""From scores to a proved smaller network: choose, repair, cut and check, again and again until all
of it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from torch import Tensor, fx, nn

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, SurgeryError, UnknownNameError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Freeze, Graph, Reason
from niwaki.measure import Ratio
from niwaki.methods.base.compensation import Compensated, compensate
from niwaki.proof._check import check
from niwaki.proof.blame import Blame
from niwaki.proof.counted import counted_numbers
from niwaki.pruning.allocation import Selection, select
from niwaki.pruning.cost import MEASURED, MeasuredCost
from niwaki.surgery import follow_config, rewrite, shrink, size_guesses

Form = Literal["module", "graph"]
# a measured budget may be undercut by this share of what is left, so that fewer networks must be
# timed
SLACK = 0.04
# a finished network that undercuts it by more is not needed as small: another attempt is made
WASTE = 0.06
ATTEMPTS = 6


@dataclass(frozen=True)
class Cut:
    """A pruned model that passed the check, with what it was made by.

    Attributes:
        difference: from the masked original, as a share of the largest output.
        left_whole: groups that were to be pruned and could not be, and why.
        unstated: what the model's config cannot say of it.
        ratio: of the measured cost, where the budget is one.
    """

    model: nn.Module
    plan: Plan
    compensated: Compensated
    difference: float
    left_whole: dict[str, str]
    unstated: str | None
    ratio: Ratio | None = None

    def summary(self, graph: Graph) -> tuple[str, ...]:
        """What a reader of the record must know."""
        notes = [
            f"checked: outputs equal the masked original's to {self.difference:.1e} of the largest"
        ]
        said = {**self.compensated.notes, **self.left_whole}.items()
        notes += [f"{name}: {why}" for name, why in said if why.startswith(("not", "left"))]
        if self.left_whole and not isinstance(self.model, fx.GraphModule):
            notes.append(
                "form='graph' may prune what was left whole: a graph of operators holds no sizes "
                "in code of its own"
            )
        if self.unstated:
            notes.append(self.unstated)
        notes += self.compensated.remarks
        if self.compensated.residuals:
            worst = sorted(self.compensated.residuals.items(), key=lambda pair: -pair[1])[:3]
            lost = ", ".join(f"{share:.1%} of {name}" for name, share in worst)
            notes.append(f"most is lost, of what consumers read: {lost}")
        if graph.unknown:
            notes.append(
                "operators unknown to niwaki, whose channels are left whole: "
                + ", ".join(graph.unknown)
            )
        if graph.unread:
            notes.append(str(graph.unread))
        notes += _of_counts(graph, self.plan, self.model)
        notes += _of_positions(graph)
        return tuple(notes)


def _of_counts(graph: Graph, plan: Plan, model: nn.Module) -> list[str]:
    """That the code computes numbers from counts of channels, so that the cut is no plain mask."""
    numbers = () if graph.inference.tape.by_value else counted_numbers(graph, plan, model)
    if not numbers:
        return []
    listed = "; ".join(str(number) for number in numbers[:3]) + "; …" * (len(numbers) > 3)
    return [
        "the model's code computes numbers from its counts of channels, so that this cut changes "
        f"more than a mask would: {listed}"
    ]


def _of_positions(graph: Graph) -> list[str]:
    """That positions computed from a width keep that width wherever they are added."""
    layers: dict[tuple[int, Reason], list[str]] = {}
    for item in graph.frozen:
        if item.reason.kind is Freeze.POSITIONS:
            layers.setdefault((item.width, item.reason), []).append(item.layer)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} keep {width} "
        f"channels, {reason}"
        for (width, reason), names in layers.items()
    ]


def _because(graph: Graph, error: SurgeryError) -> str:
    """That positions keep an axis of the layer that failed."""
    reasons = [
        f"; it keeps {item.width} channels, {item.reason}"
        for item in graph.frozen
        if item.reason.kind is Freeze.POSITIONS and item.layer == error.layer
    ]
    return "".join(reasons[:1])


@dataclass
class Clock:
    """Wall time by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass
class Cutting:
    """Makes smaller networks of one graph.

    Attributes:
        repair: the compensation, for a plan.
        form: "module" for the model's own class, "graph" for a graph of its operators.
        refine: the same counts with better units; None for the plan as it is chosen.
    """

    graph: Graph
    repair: Callable[[Plan], Compensated]
    form: Form
    clock: Clock
    refine: Callable[[Plan], Plan] | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise UnknownNameError("form", self.form, get_args(Form))

    def within_budget(
        self, scores: Mapping[str, Tensor], budget: Budget, selection: Selection
    ) -> Cut:
        """A cut that meets its budget; where that is measured, the finished network is, and more
        goes until it does.
        """
        graph = self.graph
        if budget.unit not in MEASURED:
            return self.cut(partial(select, graph, scores, budget, selection))
        if self.form == "graph":
            raise SettingError(
                f"a budget of {budget.unit} is measured on modules; for form='graph' give it in "
                "params or macs"
            )
        # which groups cannot be cut is found out first, with plain numbers: no network of theirs
        # could be timed
        plain = dataclasses.replace(
            self, repair=partial(compensate, graph, compensation="none"), refine=None
        )
        left_whole = plain.cut(
            partial(select, graph, scores, Budget(budget.amount), selection)
        ).left_whole
        cost, aim, left = MeasuredCost(graph, budget), budget.amount, 1 - budget.amount
        met: list[Cut] = []
        for _ in range(ATTEMPTS):
            wanted = dataclasses.replace(budget, amount=aim)
            choose = partial(
                select, graph, scores, wanted, selection, cost=cost, tolerance=SLACK * left
            )
            cut = self.cut(choose, dict(left_whole))
            with self.clock.stage("measure"):
                ratio = cost.of(cut.model, seconds=2.0)
            cost.learn(cut.plan, ratio)
            if ratio.median <= left:
                met.append(dataclasses.replace(cut, ratio=ratio))
                if ratio.median >= (1 - WASTE) * left or len(met) > 2:
                    break
            elif met:
                break
            aim = min(max(aim + (ratio.median - left) + 0.005, 0.0), 1 - 1e-6)
        if met:
            return max(met, key=lambda found: found.ratio.median if found.ratio else 0.0)
        raise BudgetError(
            f"after {ATTEMPTS} attempts the pruned model's {budget.unit} is still "
            f"{ratio.median:.3f} of the original's "
            f"(between {ratio.low:.3f} and {ratio.high:.3f}), not {left:g}; ask for less, or stop "
            "other work on this machine"
        )

    def cut(self, choose: Callable[..., Plan], left_whole: dict[str, str] | None = None) -> Cut:
        """Choose, repair, shrink and check; a group whose cut cannot be proved is left whole, and
        the others go on.

        Args:
            choose: the plan without the groups named by the keyword `without`.
        """
        left_whole = left_whole or {}
        blame = Blame(self.graph)
        while True:
            with self.clock.stage("select"):
                try:
                    plan = choose(without=left_whole)
                    plan = plan if self.refine is None else self.refine(plan)
                except BudgetError as error:
                    reasons = "".join(
                        f"; {name} is {reason}" for name, reason in left_whole.items()
                    )
                    raise BudgetError(f"{error}{reasons}") from error
            with self.clock.stage("compensate"):
                compensated = self.repair(plan)
            try:
                smaller, plan, difference = self._proved(plan, compensated.mixings)
            except SurgeryError as error:
                suspects = blame(plan, error)
                if not set(plan) - set(suspects) or not suspects:
                    raise
                left_whole.update(
                    dict.fromkeys(suspects, f"left whole: {error}{_because(self.graph, error)}")
                )
            else:
                unstated = None
                if self.form == "module":
                    with self.clock.stage("check"):
                        plan, unstated = follow_config(smaller, self.graph, plan)
                return Cut(smaller, plan, compensated, difference, left_whole, unstated)

    def _proved(self, plan: Plan, mixings: Mapping[str, Mixing]) -> tuple[nn.Module, Plan, float]:
        """The smaller model, its plan with the sizes that its code keeps, and how far it is from
        its reference.
        """
        failures = []
        for sized, make in self._makers(plan, mixings):
            try:
                with self.clock.stage("shrink"):
                    smaller = make()
                with self.clock.stage("check"):
                    return smaller, sized, check(self.graph, plan, mixings, smaller)
            except SurgeryError as error:
                failures.append(error)
        # where the guesses fail differently, the one that got further is nearer to the cause
        raise max(failures, key=lambda error: -1 if error.position is None else error.position)

    def _makers(
        self, plan: Plan, mixings: Mapping[str, Mixing]
    ) -> Iterator[tuple[Plan, Callable[[], nn.Module]]]:
        if self.form == "graph":
            yield plan, partial(rewrite, self.graph, plan, mixings)
            return
        for sizes in size_guesses(self.graph, plan):
            sized = dataclasses.replace(plan, sizes=sizes)
            yield sized, partial(shrink, self.graph, sized, mixings)
