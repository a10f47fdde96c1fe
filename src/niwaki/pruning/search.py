"""From scores to a proved smaller network: choose, repair, cut and check, again and again until all
of it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from torch import Tensor, fx, nn

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, SurgeryError, UnknownNameError
from niwaki.core.plan import Plan
from niwaki.graph import Freeze, Graph, Reason, ways_out
from niwaki.measure import Ratio
from niwaki.methods.base.cut import Cut
from niwaki.proof._check import Proof, check
from niwaki.proof.blame import Blame, cause
from niwaki.pruning.allocation import allocate
from niwaki.pruning.cost import MeasuredCost
from niwaki.pruning.scale import keeping_scale
from niwaki.pruning.selection import Selection
from niwaki.running.computed import described
from niwaki.surgery import Sizes, follow_config, least_sizes, rewrite, shrink, size_guesses

Form = Literal["module", "graph"]
# a measured budget may be undercut by this share of what is left, so that fewer networks must be
# timed
SLACK = 0.04
# a finished network that undercuts it by more is not needed as small: another attempt is made
WASTE = 0.06
ATTEMPTS = 6


@dataclass(frozen=True)
class Attempt:
    """A smaller network that passed the proof, with what it was made by.

    Attributes:
        left_whole: groups that were to be pruned and could not be, and why.
        unstated: what the model's config cannot say of it.
        ratio: of the measured cost, where the budget is one.
    """

    model: nn.Module
    cut: Cut
    proof: Proof
    left_whole: Mapping[str, str]
    unstated: str | None = None
    ratio: Ratio | None = None

    @property
    def notes(self) -> dict[str, str]:
        """Group → what was done for it, or why it was left whole."""
        whole = {name: f"left whole: {why}" for name, why in self.left_whole.items()}
        return {**self.cut.notes, **whole}

    def remarks(self) -> Iterator[str]:
        """What a reader of the record must know."""
        yield f"proved: {self.proof}"
        yield from self.proof.remarks
        yield from self._of_groups()
        if self.unstated:
            yield self.unstated
        yield from self.cut.remarks
        if self.cut.residuals:
            largest = sorted(self.cut.residuals.items(), key=lambda pair: -pair[1])[:3]
            shares = ", ".join(f"{share:.1%} of {name}" for name, share in largest)
            yield f"most is lost, of what consumers read: {shares}"
        yield from ways_out(self.cut.graph)
        yield from described(self.cut.graph.computed)
        if self.cut.graph.unread:
            yield str(self.cut.graph.unread)
        yield from _kept(self.cut.graph, Freeze.POSITIONS)
        yield from _kept(self.cut.graph, Freeze.UNREACHED, "; give an input that leads there")
        if self.cut.graph.unknown:
            names = ", ".join(self.cut.graph.unknown)
            yield f"operators unknown to niwaki, whose channels are left whole: {names}"

    def _of_groups(self) -> Iterator[str]:
        """Groups that a repair could do nothing for, where it did for others; those left whole."""
        cut = self.cut
        for name, note in self.notes.items():
            repaired = name in cut.mixings or name in cut.residuals
            if name in self.left_whole or not repaired:
                yield f"{name}: {note}"
        if self.left_whole and not isinstance(self.model, fx.GraphModule):
            yield (
                "form='graph' may prune what was left whole: a graph of operators holds no sizes "
                "in code of its own"
            )


def _kept(graph: Graph, kind: Freeze, help_: str = "") -> list[str]:
    """What keeps its width for a reason of a kind: because positions are computed from it and are
    added, because code that no input reached may read it.
    """
    layers: dict[tuple[int, Reason], list[str]] = {}
    for item in graph.frozen:
        if item.reason.kind is kind:
            layers.setdefault((item.width, item.reason), []).append(item.layer)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} keep {width} "
        f"channels, {reason}{help_}{' as probes=[…]' if help_ else ''}"
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
class Search:
    """Makes smaller networks of one graph until one is proved and meets its budget.

    Attributes:
        repair: the compensation, for a plan.
        form: "module" for the model's own class, "graph" for a graph of its operators.
        refine: the same counts with better units; None for the plan as it is chosen.
        judge: looks at every repaired cut, with the groups that are left whole as they cannot be
            cut; what it raises ends the search.
    """

    graph: Graph
    repair: Callable[[Plan], Cut]
    form: Form
    clock: Clock
    refine: Callable[[Plan], Plan] | None = None
    judge: Callable[[Cut, Collection[str]], None] | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise UnknownNameError("form", self.form, get_args(Form))

    def within_budget(
        self, scores: Mapping[str, Tensor], budget: Budget, selection: Selection
    ) -> Attempt:
        """A network that meets its budget; where that is measured, the finished network is, and
        more goes until it does.
        """
        graph = self.graph
        if not budget.runs:
            return self.attempt(partial(allocate, graph, scores, budget, selection))
        if self.form == "graph":
            raise SettingError(
                f"a budget of {budget.unit} is measured on modules; for form='graph' give it in "
                "params or macs"
            )
        left_whole = self._uncuttable(scores, budget, selection)
        cost, aim, left = MeasuredCost(graph, budget), budget.amount, 1 - budget.amount
        met: list[Attempt] = []
        for _ in range(ATTEMPTS):
            wanted = dataclasses.replace(budget, amount=aim)
            choose = partial(
                allocate, graph, scores, wanted, selection, cost=cost, tolerance=SLACK * left
            )
            attempt = self.attempt(choose, dict(left_whole))
            with self.clock.stage("measure"):
                ratio = cost.of(attempt.model, seconds=2.0)
            cost.learn(attempt.cut.plan, ratio)
            if ratio.median <= left:
                met.append(dataclasses.replace(attempt, ratio=ratio))
                if ratio.median >= (1 - WASTE) * left or len(met) > 2:
                    break
            elif met:
                break
            aim = min(max(aim + (ratio.median - left) + 0.005, 0.0), 1 - 1e-6)
        if met:
            return max(met, key=lambda attempt: attempt.ratio.median if attempt.ratio else 0.0)
        raise BudgetError(
            f"after {ATTEMPTS} attempts the pruned model's {budget.unit} is still "
            f"{ratio.median:.3f} of the original's (between {ratio.low:.3f} and {ratio.high:.3f}), "
            f"not {left:g}; ask for less, or stop other work on this machine"
        )

    def _uncuttable(
        self, scores: Mapping[str, Tensor], budget: Budget, selection: Selection
    ) -> Mapping[str, str]:
        """Groups that cannot be cut, found out with plain numbers: no network of theirs could be
        timed.
        """
        plain = dataclasses.replace(self, repair=partial(Cut, self.graph), refine=None, judge=None)
        choose = partial(allocate, self.graph, scores, Budget(budget.amount), selection)
        return plain.attempt(choose).left_whole

    def attempt(
        self, choose: Callable[..., Plan], left_whole: dict[str, str] | None = None
    ) -> Attempt:
        """Choose, repair, shrink and check; a group whose cut cannot be proved is left whole, and
        the others go on.

        Args:
            choose: the plan without the groups named by the keyword `without`.
        """
        left_whole = left_whole or {}
        blame = Blame(self.graph)
        while True:
            cut = self._cut(choose, left_whole)
            try:
                return self._finished(cut, left_whole)
            except SurgeryError as error:
                named = [name for name in error.groups if name in cut.plan.kept]
                suspects = named or blame(cut.plan, error)
                if not set(cut.plan) - set(suspects) or not suspects:
                    raise
                why = f"{error}{cause(self.graph, error)}{_because(self.graph, error)}"
                left_whole.update(dict.fromkeys(suspects, why))

    def _cut(self, choose: Callable[..., Plan], left_whole: Mapping[str, str]) -> Cut:
        with self.clock.stage("select"):
            try:
                plan = choose(without=left_whole)
                plan = plan if self.refine is None else self.refine(plan)
            except BudgetError as error:
                reasons = "".join(
                    f"; {name} is left whole: {why}" for name, why in left_whole.items()
                )
                ways = "".join(f"; {way}" for way in ways_out(self.graph))
                raise BudgetError(f"{error}{reasons}{ways}") from error
        with self.clock.stage("compensate"):
            cut = self.repair(plan)
            if self.judge is not None:
                self.judge(cut, left_whole)
        return cut

    def _finished(self, cut: Cut, left_whole: Mapping[str, str]) -> Attempt:
        model, sized, proof = self._scaled(*self._proved(cut))
        unstated = None
        if self.form == "module":
            with self.clock.stage("check"):
                plan, unstated = follow_config(model, self.graph, sized.plan)
                sized = sized.with_plan(plan)
        return Attempt(model, sized, proof, left_whole, unstated)

    def _scaled(self, smaller: nn.Module, cut: Cut, proof: Proof) -> tuple[nn.Module, Cut, Proof]:
        """The same with the scale of attention as it was, where code computes it from the cut."""
        kept = keeping_scale(cut, smaller)
        if kept is cut:
            return smaller, cut, proof
        with self.clock.stage("shrink"):
            smaller = rewrite(kept) if self.form == "graph" else shrink(kept)
        with self.clock.stage("check"):
            return smaller, kept, check(kept, smaller)

    def _proved(self, cut: Cut) -> tuple[nn.Module, Cut, Proof]:
        """The smaller model, its cut with the sizes that its code states, and the proof."""
        failures = []
        for sized in self._guesses(cut):
            try:
                with self.clock.stage("shrink"):
                    smaller = rewrite(sized) if self.form == "graph" else shrink(sized)
                with self.clock.stage("check"):
                    proof = check(sized, smaller)
            except SurgeryError as error:
                failures.append(error)
            else:
                return self._with_least_sizes(smaller, sized, proof)
        # where the guesses fail differently, the one that got further is nearer to the cause
        raise max(failures, key=lambda error: -1 if error.position is None else error.position)

    def _with_least_sizes(
        self, smaller: nn.Module, cut: Cut, proof: Proof
    ) -> tuple[nn.Module, Cut, Proof]:
        """The same, with no size of the model's code changed that need not be."""
        sizes = cut.plan.sizes
        if self.form == "graph" or not sizes:
            return smaller, cut, proof
        proved: list[tuple[nn.Module, Cut, Proof]] = [(smaller, cut, proof)]

        def proves(fewer: Sizes) -> bool:
            sized = cut.with_plan(dataclasses.replace(cut.plan, sizes=fewer))
            network = shrink(sized)
            try:
                proved.append((network, sized, check(sized, network)))
            except SurgeryError:
                return False
            return True

        with self.clock.stage("check"):
            tables = {name: dict(table) for name, table in sizes.items()}
            least_sizes(self.graph, cut.plan, tables, proves)
        return proved[-1]

    def _guesses(self, cut: Cut) -> Iterator[Cut]:
        if self.form == "graph":
            yield cut
            return
        for sizes in size_guesses(self.graph, cut.plan):
            yield cut.with_plan(dataclasses.replace(cut.plan, sizes=sizes))
