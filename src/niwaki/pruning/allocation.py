"""Which units stay, within a budget: counts of all groups first, then the best of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Branch, Graph, Group
from niwaki.methods.auto import Auto
from niwaki.methods.base.compensation import Compensation
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.distortion import of_scores, quick, with_curves
from niwaki.pruning.bisection import per_cost, within_budget
from niwaki.pruning.costs import (
    NAMES,
    Cost,
    blends,
    cost_without,
    named,
    predicted_cost,
    together,
)
from niwaki.pruning.counts import Counts, counts_of_channels, floor_of, whole_count
from niwaki.pruning.followers import Followers
from niwaki.pruning.kinds import alike, without_kinds
from niwaki.pruning.least_loss import Measured, least_loss, least_loss_measured
from niwaki.pruning.participants import participants
from niwaki.pruning.selection import Selection
from niwaki.pruning.shares import counts_by_share, strictly_above

_SHARED = {
    "cost": " shared by cost",
    "auto": " shared by loss",
    "quick": " shared by loss",
}


def select(scores: Scores, budget: Budget | float | str, selection: Selection | None = None) -> Cut:
    """Choose the units that stay: a plain cut, which `compensate` repairs and `shrink` makes.

    Args:
        scores: as `score` gives them; equal ones are kept in order of their index.
        budget: a `Budget`, a share of channels to remove, or `"params=0.5"`.

    Raises:
        BudgetError: no plan that the selection allows meets the budget; the message says how far
            one can go.
        SettingError: a pattern that matches no group, or scores that are not finite.
    """
    selection = (selection or Selection()).or_local()
    budget = Budget.parse(budget)
    scores = with_losses(scores, Auto(), budget, selection)
    plan = allocate(scores.graph, scores, budget, selection)
    return Cut(scores.graph, plan, evidence=scores.evidence)


def allocate(  # noqa: PLR0913  # a public verb
    graph: Graph,
    scores: Mapping[str, Tensor],
    budget: Budget | float | str,
    selection: Selection | None = None,
    *,
    without: Collection[str] = (),
    cost: Cost | None = None,
    tolerance: float = 0.0,
    gone: Sequence[Branch] = (),
) -> Plan:
    """Choose the units that stay.

    Args:
        scores: group name → (width,), high for units that should stay; equal ones are kept in order
            of their index.
        budget: a `Budget`, a share of channels to remove, or `"params=0.5"`.
        without: names of groups that stay whole, beside those that the selection skips.
        cost: what the network costs in the budget's unit with so many units left; predicted from
            the graph without it. A budget of latency needs one that measures.
        tolerance: how much more than the budget may go, as a share, so that a cost that takes long
            is asked less often.
        gone: branches that the network does without; the budget is then of what is left.

    Raises:
        BudgetError: no plan that the selection allows meets the budget; the message says how far
            one can go.
        SettingError: a pattern that matches no group, or scores that are not finite.
    """
    selection, budget = (selection or Selection()).or_local(), Budget.parse(budget)
    groups = participants(graph, selection, without)
    groups = without_kinds(groups, graph, without) if selection.uniform else groups
    for group in groups:
        given = scores.get(group.name)
        if given is None:
            raise SettingError(
                f"the criterion has no scores for group {group.name!r}; leave it out with "
                f"skip={group.name!r}, or take a "
                "criterion that reads the weights: l1, l2, l2-gm"
            )
        if given.shape != (group.width,) or not bool(torch.isfinite(given).all()):
            raise SettingError(f"group {group.name!r} needs {group.width} finite scores")
    aside = [group for group in graph.groups if group.name in without]
    fixed = _own_shares(groups, scores, selection, aside)
    following = Followers(graph, groups, fixed, selection)
    led = {*fixed, *following.names}
    free = [group for group in groups if group.name not in led]
    if not free:
        _refuse_idle_budget(budget, together(budget, _costs(graph, cost)), fixed)
        return _plan(groups, scores, fixed)
    alone = budget.unit == "channels" and not budget.also
    if alone and selection.scope in ("local", "global"):
        counts = counts_of_channels(free, scores, budget.amount, selection)
        counts = alike(free, counts, selection) if selection.uniform else counts
        return _plan(groups, scores, {**fixed, **following.completed(counts)})
    if selection.rule != "exact":
        raise SettingError(
            f"rule={selection.rule!r} reads a share of channels off the scores; a budget of "
            f"{' and '.join(NAMES[one.unit] for one in budget.every)}"
            f"{_SHARED.get(selection.scope or '', '')} needs rule='exact'"
        )
    among = None if alone and selection.scope == "cost" else free
    costs = _costs(graph, cost, among, gone)
    asked = following.priced(_beside(fixed, together(budget, costs)))
    unread = f"; {graph.unread}" if graph.unread and budget.unit in ("params", "bytes") else ""
    if selection.by_loss:
        curves = following.joined(curves_of(scores, groups))
        if cost is None:
            rates = [following.priced(_beside(fixed, rate)) for rate in blends(budget, costs)]
            chosen = least_loss(free, curves, asked, budget, selection, rates, unread)
        else:
            quick = following.priced(_beside(fixed, predicted_cost(graph, Budget(0.0, "macs"))))
            slow = Measured(asked, quick, tolerance)
            chosen = least_loss_measured(free, curves, slow, budget, selection)
        return _plan(groups, scores, {**fixed, **following.completed(chosen)})
    rated = scores
    if selection.scope == "cost":
        rated = per_cost(free, scores, lambda counts: asked({**fixed, **counts}))
    chosen = within_budget(free, rated, asked, budget, selection, tolerance, unread)
    return _plan(groups, scores, {**fixed, **following.completed(chosen)})


def with_losses(
    scores: Scores, repair: Compensation, budget: Budget, selection: Selection
) -> Scores:
    """Scores with what each group's loss does to the answer, where a selection divides by that.

    Args:
        repair: what will be done for the units that go.
    """
    if not selection.by_loss or scores.curves:
        return scores
    if selection.scope == "quick" and scores.evidence is not None:
        equal = equal_shares(scores.graph, scores, budget, selection)
        return replace(scores, curves=quick(scores, scores.evidence, repair, equal).curves)
    groups = participants(scores.graph, selection, ())
    return with_curves(scores, repair, [group.name for group in groups])


def equal_shares(
    graph: Graph,
    scores: Mapping[str, Tensor],
    budget: Budget,
    selection: Selection,
    without: Collection[str] = (),
) -> Plan:
    """The plan of equal shares; of a budget that is measured, for the same share of the
    multiply-adds.
    """
    counted = Budget(budget.amount, "macs") if budget.runs else budget
    return allocate(graph, scores, counted, replace(selection, scope="local"), without=without)


def curves_of(scores: Mapping[str, Tensor], groups: list[Group]) -> dict[str, Tensor]:
    """What the answer loses with every count of every group; by squared scores where nobody has
    looked.
    """
    known = scores.curves if isinstance(scores, Scores) else {}
    return {
        group.name: known[group.name] if group.name in known else of_scores(scores[group.name])
        for group in groups
    }


def _own_shares(
    groups: list[Group], scores: Mapping[str, Tensor], selection: Selection, aside: list[Group]
) -> Counts:
    """Counts of the groups that have a share of their own."""
    return counts_by_share(
        groups,
        selection.shares,
        lambda group, share: _share_of(group, scores, share, selection),
        lambda group: floor_of(group, selection),
        aside,
    )


def _share_of(
    group: Group, scores: Mapping[str, Tensor], share: float, selection: Selection
) -> int:
    """How many units a share leaves of a group by itself, before the limits."""
    if selection.rule == "quantile":
        return int(strictly_above(scores[group.name], share).sum())
    return whole_count(group, group.width * (1 - share), selection)


def _beside(fixed: Counts, cost: Cost) -> Cost:
    """The cost of a network in which some groups have their counts already."""
    return lambda counts: cost({**fixed, **counts}) if counts else cost({})


def _costs(
    graph: Graph,
    measured: Cost | None,
    among: list[Group] | None = None,
    gone: Sequence[Branch] = (),
) -> Callable[[Budget], Cost]:
    """What each of several budgets counts.

    Args:
        measured: of the one that is measured.
    """

    def cost(budget: Budget) -> Cost:
        if measured is not None and (budget.runs or not budget.also):
            return measured
        if gone:
            return cost_without(graph, budget, gone)
        return predicted_cost(graph, budget, among)

    return cost


def _refuse_idle_budget(budget: Budget, asked: Cost, fixed: Counts) -> None:
    """Where every group has a share of its own, a budget can only be met already."""
    if not budget.amount:
        return
    if "channels" in [one.unit for one in budget.every]:
        raise SettingError(
            f"every group has a share of its own, so that a budget of {budget} has nothing to "
            "divide; give 0"
        )
    gone = 1 - asked(fixed) / asked({})
    if gone < budget.amount:
        if budget.also:
            raise BudgetError(
                f"every group has a share of its own, and together they do not remove "
                f"{named(budget)}; raise a share, or leave a group free"
            )
        raise BudgetError(
            f"every group has a share of its own, and together they remove {gone:.1%} of the "
            f"{NAMES[budget.unit]}, not {budget.amount:.1%}; raise a share, or leave a group free"
        )


def _plan(groups: list[Group], scores: Mapping[str, Tensor], counts: Counts) -> Plan:
    kept = {}
    for group in groups:
        best = scores[group.name].argsort(descending=True, stable=True)[: counts[group.name]]
        kept[group.name] = Kept(group.width, tuple(best.sort().values.tolist()))
    return Plan(kept)
