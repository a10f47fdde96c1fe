"""A budget divided by what the network's answer loses, and the guard: no network is handed out that
answers worse than one with equal shares.

Curves add up what groups lose one by one, and to first order; what all of them lose together is
seen only when they are cut. So the original, the network as divided and one with equal shares are
run on held-out calibration inputs, or on the example inputs without any, and of the two cuts the
one is kept whose answers are nearer. Both are repaired alike; equal shares count as plain where
their repair does harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import torch

from niwaki.core.budget import Budget
from niwaki.core.errors import NiwakiError
from niwaki.core.plan import Plan
from niwaki.methods.base import Compensation, Criterion, Cut, Evidence, Scores, scored
from niwaki.methods.base.held_out import Split
from niwaki.methods.distortion import apart, quick
from niwaki.methods.distortion.probes import Probes
from niwaki.pruning.allocation import equal_shares, with_losses
from niwaki.pruning.search import Attempt, Search
from niwaki.pruning.selection import Selection
from niwaki.running import preserved_rng

Fit = Callable[[Plan], Cut]


class _WorseError(Exception):
    """A divided cut answers worse than equal shares."""


@dataclass(frozen=True, eq=False)
class Division:
    """How a budget is divided.

    Attributes:
        scores: of the units, with curves where it is divided by these.
        selection: of equal shares where loss cannot be told.
        fit: repairs a plan of equal shares, for the comparison.
        known: a cut of equal shares that was repaired already.
        notes: what the comparison said.
    """

    scores: Scores
    budget: Budget
    selection: Selection
    fit: Fit | None = None
    known: Cut | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        criterion: Criterion,
        evidence: Evidence,
        repair: Compensation,
        budget: Budget,
        selection: Selection,
    ) -> Division:
        """Scores of units, none where no unit goes; and curves, where a selection divides by
        them.
        """
        if "units" not in selection.parts:
            return cls(Scores(evidence.graph, {}, evidence), budget, selection)
        scores = scored(criterion, evidence)
        if not selection.by_loss:
            return cls(scores, budget, selection)
        if selection.parts != ("units",):  # branches, too: their numbers are compared elsewhere
            return cls(with_losses(scores, repair, budget, selection), budget, selection)
        if selection.scope == "auto":
            return _thorough(scores, evidence, repair, budget, selection)
        try:
            return _quick(scores, evidence, repair, budget, selection)
        except (NiwakiError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            evidence.say(f"equal shares: what the answer loses could not be told: {why}")
            return cls(scores, budget, replace(selection, scope="local"))

    def searched(self, search: Search) -> tuple[Attempt, Selection]:
        """The network within the budget, of equal shares where these answer better; and the
        selection that it is by.
        """
        equal = replace(self.selection, scope="local")
        if self.fit is None:
            return search.within_budget(self.scores, self.budget, self.selection), self.selection
        if self.budget.runs:  # made several times: one comparison, of the last
            attempt = search.within_budget(self.scores, self.budget, self.selection)
            if not self.loses(attempt.cut, attempt.left_whole):
                return attempt, self.selection
            return search.within_budget(self.scores, self.budget, equal), equal

        def judge(cut: Cut, left_whole: Collection[str]) -> None:
            if self.loses(cut, left_whole):
                raise _WorseError

        try:
            guarded = replace(search, judge=judge)
            return guarded.within_budget(self.scores, self.budget, self.selection), self.selection
        except _WorseError:
            return search.within_budget(self.scores, self.budget, equal), equal

    def loses(self, cut: Cut, left_whole: Collection[str] = ()) -> bool:
        """Whether equal shares answer better than a divided cut; the notes say by what.

        Args:
            left_whole: groups that cannot be cut; equal shares leave them whole too.
        """
        evidence = self.scores.evidence
        if self.fit is None or evidence is None:
            return False
        if self.known is not None and self.known.plan.kept == cut.plan.kept:
            self.notes[:] = ["divided by loss: these are equal shares"]
            return False
        try:
            with preserved_rng(), torch.no_grad():
                ours, equal, source = self._errors(self.fit, evidence, cut, left_whole)
        except (NiwakiError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            said = f"equal shares: they could not be compared with a division by loss: {why}"
            self.notes[:] = [said]
            return True
        numbers = f"on {source} answers are off by {ours:.3g} of how they vary, with equal shares"
        if ours > equal:
            self.notes[:] = [f"equal shares: divided by loss, {numbers} by {equal:.3g}"]
            return True
        self.notes[:] = [f"divided by loss: {numbers} by {equal:.3g}"]
        return False

    def _errors(
        self, fit: Fit, evidence: Evidence, cut: Cut, left_whole: Collection[str]
    ) -> tuple[float, float, str]:
        """How far the divided cut is off, how far equal shares are, and on what."""
        graph, split = evidence.graph, Split.of(evidence, "the division")
        equal = self.known
        whole = equal is not None and set(left_whole) & set(equal.plan.kept)
        if equal is None or whole or self.budget.runs:
            equal = fit(self._equal(cut.plan, left_whole))
        probes = Probes(graph, split.held)
        # with calibration inputs the divided plan is fitted too, so that both are repaired alike
        ours = probes.together(cut if evidence.calibration is None else fit(cut.plan))
        theirs = min(map(probes.together, (equal, Cut(graph, equal.plan))))
        return ours, theirs, split.source

    def _equal(self, plan: Plan, left_whole: Collection[str]) -> Plan:
        """Equal shares for the budget; where it is measured, for as many multiply-adds as the plan
        leaves.
        """
        graph, budget = self.scores.graph, self.budget
        if budget.runs:
            counts = {name: len(kept.units) for name, kept in plan.items()}
            gone = 1 - graph.count_macs(counts) / graph.count_macs()
            budget = Budget(max(0.0, gone), "macs")
        return equal_shares(graph, self.scores, budget, self.selection, left_whole)


def _quick(
    scores: Scores,
    evidence: Evidence,
    repair: Compensation,
    budget: Budget,
    selection: Selection,
) -> Division:
    equal = equal_shares(scores.graph, scores, budget, selection)
    known = quick(scores, _fitted_on(evidence), repair, equal)

    def fit(plan: Plan) -> Cut:
        return known.fit([plan])[0]

    found = replace(scores, curves=known.curves)
    return Division(found, budget, selection, fit, known.cuts[0])


def _thorough(
    scores: Scores,
    evidence: Evidence,
    repair: Compensation,
    budget: Budget,
    selection: Selection,
) -> Division:
    method, rest = apart(repair, evidence), _fitted_on(evidence)

    def fit(plan: Plan) -> Cut:
        return method.apply(rest, plan)

    return Division(with_losses(scores, repair, budget, selection), budget, selection, fit)


def _fitted_on(evidence: Evidence) -> Evidence:
    """What both networks of a comparison are repaired by: nothing that they are judged on."""
    return Split.of(evidence, "the division").evidence
