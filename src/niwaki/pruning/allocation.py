"""Which units stay: the best of each group (local), or the best of the network (global), within a
budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, UnknownNameError
from niwaki.core.patterns import patterns_of
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group
from niwaki.methods.base.cut import Cut, Scores
from niwaki.pruning.kinds import Choose, alike, uniformly, without_kinds
from niwaki.pruning.shares import check_shares, counts_by_share, refuse_over_limit, strictly_above

Scope = Literal["local", "global", "cost"]
Counts = dict[str, int]  # group → how many units stay
Cost = Callable[[Counts], float]  # what the whole network costs once only so many units are left
Rounding = Literal["round", "floor"]
Rule = Literal["exact", "quantile"]
NAMES = {
    "channels": "channels",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "memory": "activation memory",
    "latency": "latency",
}


@dataclass(frozen=True)
class Selection:
    """How units are chosen.

    Attributes:
        scope: "local" takes the same share of every group; "global" lays one threshold over the
            scores of all groups; "cost" lays one over the scores, as multiples of their group's
            mean, divided by what a unit of that group costs in the budget's unit, so that units
            with a low score and a high cost are removed first.
        only, skip: glob patterns on the names of the layers that produce the units
            (`layer*.conv1`). A group takes part when one of its layers, or its own name, matches
            `only` (if given) and none matches `skip`. Of groups that are rows and columns of one
            axis (heads and head dimensions, convolution groups and channels in a group) only the
            outer takes part, so that a share stays that share; skip it by its name, or name the
            other, to prune that.
        min_units: no group falls below this many units (or its width, where that is less).
        rounding: a local share keeps round(width·(1 - share)) units, or floor of it.
        multiple: kept counts are rounded to the nearest multiple of this; None is 1, and 8 for a
            budget of latency, as kernels like it.
        rule: "exact" removes as many units as the share says; "quantile" keeps those whose score
            lies strictly above the share's quantile (interpolated), and at least `min_units` of a
            group, without taking elsewhere what that gave back: RNI's rule (arXiv 2204.06404).
        shares: glob pattern, as for `only` → the share of units that such groups lose, whatever the
            budget: `{"layer1.*": 0.6}`. A budget of channels is then about the other groups; every
            other budget is still about the whole network.
        at_most: no group loses more than this share of its units.
        uniform: groups of one kind (the same layer of every block: names that differ in numbers
            alone) keep the same number of units, so that a config with one entry for it can state
            the sizes; what it cannot state is left whole.
    """

    scope: Scope = "local"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    min_units: int = 1
    rounding: Rounding = "round"
    multiple: int | None = None
    rule: Rule = "exact"
    shares: Mapping[str, float] = field(default_factory=dict)
    at_most: float = 1.0
    uniform: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("scope", self.scope, get_args(Scope)),
            ("rounding", self.rounding, get_args(Rounding)),
            ("rule", self.rule, get_args(Rule)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        for name, number in (("min_units", self.min_units), ("multiple", self.multiple or 1)):
            if not isinstance(number, int) or number < 1:
                raise SettingError(f"{name} must be a whole number of at least 1; got {number!r}")
        check_shares(self.shares, self.at_most)

    @classmethod
    def of(
        cls, selection: Selection | None, choices: Mapping[str, Any], budget: Budget
    ) -> Selection:
        """A selection, or one of fields by name, with the multiple that suits a budget.

        Raises:
            UnknownNameError: no such field.
            SettingError: both a selection and fields.
        """
        known = [item.name for item in fields(cls)]
        for name in choices:
            if name not in known:
                raise UnknownNameError("setting of prune", name, known)
        if selection is not None and choices:
            raise SettingError(f"{', '.join(choices)} belong into the selection; give them in it")
        patterns = {
            name: patterns_of(choices[name]) for name in ("only", "skip") if name in choices
        }
        chosen = selection or cls(**{**choices, **patterns})
        usual = 8 if budget.unit == "latency" else 1
        return chosen if chosen.multiple is not None else replace(chosen, multiple=usual)

    def described(self) -> dict[str, Any]:
        """As JSON holds it, for a record."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
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
    plan = allocate(scores.graph, scores, budget, selection)
    return Cut(scores.graph, plan, evidence=scores.evidence)


def allocate(
    graph: Graph,
    scores: Mapping[str, Tensor],
    budget: Budget | float | str,
    selection: Selection | None = None,
    *,
    without: Collection[str] = (),
    cost: Cost | None = None,
    tolerance: float = 0.0,
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

    Raises:
        BudgetError: no plan that the selection allows meets the budget; the message says how far
            one can go.
        SettingError: a pattern that matches no group, or scores that are not finite.
    """
    selection, budget = selection or Selection(), Budget.parse(budget)
    groups = _participants(graph, selection, without)
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
    free = [group for group in groups if group.name not in fixed]
    if not free:
        _refuse_idle_budget(budget, graph, fixed, cost)
        return _plan(groups, scores, fixed)
    if budget.unit == "channels" and selection.scope != "cost":
        counts = _of_channels(free, scores, budget.amount, selection)
        counts = alike(free, counts, selection, _rounded) if selection.uniform else counts
        return _plan(groups, scores, {**fixed, **counts})
    if selection.rule != "exact":
        raise SettingError(
            f"rule={selection.rule!r} reads a share of channels off the scores; a budget of "
            f"{NAMES[budget.unit]}{' shared by cost' * (selection.scope == 'cost')} needs "
            "rule='exact'"
        )
    asked = cost or predicted_cost(graph, budget)
    rated = scores
    if selection.scope == "cost":
        rated = _per_cost(free, scores, lambda counts: asked({**fixed, **counts}))
    unread = f"; {graph.unread}" if graph.unread and budget.unit in ("params", "bytes") else ""
    beside = _beside(fixed, asked)
    chosen = _within(free, rated, beside, budget, selection, tolerance, unread)
    return _plan(groups, scores, {**fixed, **chosen})


def _own_shares(
    groups: list[Group], scores: Mapping[str, Tensor], selection: Selection, aside: list[Group]
) -> Counts:
    """Counts of the groups that have a share of their own."""
    return counts_by_share(
        groups,
        selection.shares,
        lambda group, share: _share_of(group, scores, share, selection),
        lambda group: _floor(group, selection),
        aside,
    )


def _share_of(
    group: Group, scores: Mapping[str, Tensor], share: float, selection: Selection
) -> int:
    """How many units a share leaves of a group by itself, before the limits."""
    if selection.rule == "quantile":
        return int(strictly_above(scores[group.name], share).sum())
    return _whole(group, group.width * (1 - share), selection)


def _beside(fixed: Counts, cost: Cost) -> Cost:
    """The cost of a network in which some groups have their counts already."""
    return lambda counts: cost({**fixed, **counts}) if counts else cost({})


def _refuse_idle_budget(budget: Budget, graph: Graph, fixed: Counts, cost: Cost | None) -> None:
    """Where every group has a share of its own, a budget can only be met already."""
    if not budget.amount:
        return
    if budget.unit == "channels":
        raise SettingError(
            f"every group has a share of its own, so that a budget of {budget} has nothing to "
            "divide; give 0"
        )
    asked = cost or predicted_cost(graph, budget)
    gone = 1 - asked(fixed) / asked({})
    if gone < budget.amount:
        raise BudgetError(
            f"every group has a share of its own, and together they remove {gone:.1%} of the "
            f"{NAMES[budget.unit]}, not {budget.amount:.1%}; raise a share, or leave a group free"
        )


def _of_channels(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """Counts for a share of the channels."""
    if selection.scope == "local":
        refuse_over_limit(share, selection.at_most)
    if selection.rule == "quantile":
        return _by_quantile(groups, scores, share, selection)
    choose = _local if selection.scope == "local" else _global
    return choose(groups, scores, share, selection)


def _by_quantile(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """Units above the quantile of all groups together ("global"), or of their own ("local")."""
    widths = [group.width for group in groups]
    values = [scores[group.name] for group in groups]
    if selection.scope == "global":
        stays = torch.split(strictly_above(torch.cat(values), share), widths)
    else:
        stays = tuple(strictly_above(own, share) for own in values)
    return {
        group.name: _rounded(group, int(part.sum()), selection)
        for group, part in zip(groups, stays, strict=True)
    }


def predicted_cost(graph: Graph, budget: Budget) -> Cost:
    """What the graph says that the network costs, in the unit of a budget.

    Raises:
        BudgetError: memory or latency, which no graph knows.
    """
    if budget.unit in ("memory", "latency"):
        raise BudgetError(
            f"{NAMES[budget.unit]} is measured on models, not read off a graph; use "
            f"niwaki.prune(…, budget='{budget}')"
        )
    costs: dict[str, Cost] = {
        "channels": lambda counts: sum(
            counts.get(group.name, group.width) for group in graph.groups
        ),
        "params": graph.count_params,
        "macs": graph.count_macs,
        "bytes": graph.count_bytes,
    }
    return costs[budget.unit]


def _participants(graph: Graph, selection: Selection, without: Collection[str]) -> list[Group]:
    """The groups that the patterns let in, but for those named."""
    for pattern in (*selection.only, *selection.skip):
        if not any(
            fnmatchcase(layer, pattern)
            for group in graph.groups
            for layer in (*group.layers, group.name)
        ):
            known = ", ".join(group.name for group in graph.groups[:8]) or "none"
            raise SettingError(
                f"no group has a layer named like {pattern!r}; groups are: "
                f"{known}{', …' * (len(graph.groups) > 8)}"
            )

    def matches(group: Group, patterns: tuple[str, ...]) -> bool:
        return any(
            fnmatchcase(layer, pattern)
            for pattern in patterns
            for layer in (*group.layers, group.name)
        )

    asked = [
        group
        for group in graph.groups
        if (not selection.only or matches(group, selection.only))
        and not matches(group, selection.skip)
        and group.name not in without
    ]
    names = {group.name for group in asked}
    # of groups that cross each other one takes part, else a half would be three quarters: the
    # outer, whole heads rather than a part of every head
    taking: set[str] = set()
    for group in sorted(asked, key=lambda group: len(graph.around[group.name] & names)):
        if not graph.crossing[group.name] & taking:
            taking.add(group.name)
    groups = [group for group in asked if group.name in taking]
    if (
        groups
        and selection.min_units * (selection.multiple or 1) > 1
        and all(_floor(g, selection) == g.width for g in groups)
    ):
        raise BudgetError(
            f"nothing can go with {_rest(selection)} left in each group: the widest has "
            f"{max(g.width for g in groups)}"
        )
    if not groups:
        raise BudgetError(
            "no group of channels can be pruned; print(niwaki.trace(model, inputs)) says what is "
            "frozen and why"
        )
    return groups


def _floor(group: Group, selection: Selection) -> int:
    """The fewest units that a group may keep."""
    # 10·(1 - 0.8) is a little above 2
    spared = math.ceil(group.width * (1 - selection.at_most) - 1e-9)
    wanted = max(selection.min_units, spared)
    return min(
        group.width, math.ceil(wanted / (selection.multiple or 1)) * (selection.multiple or 1)
    )


def _rest(selection: Selection) -> str:
    multiples = (
        f", and multiples of {(selection.multiple or 1)}," if (selection.multiple or 1) > 1 else ""
    )
    spared = f" and {1 - selection.at_most:.0%} of the units" if selection.at_most < 1 else ""
    return (
        f"at least {selection.min_units} unit{'s' * (selection.min_units > 1)}{spared}{multiples}"
    )


def _rounded(group: Group, count: float, selection: Selection) -> int:
    """A wished count made a whole one that is allowed."""
    whole = _whole(group, count, selection)
    return max(_floor(group, selection), min(whole, group.width))


def _whole(group: Group, count: float, selection: Selection) -> int:
    """A wished count, rounded."""
    whole = (
        round(count) if selection.rounding == "round" else math.floor(count + 1e-9)
    )  # 10·(1 - 0.8) is a little below 2
    if (selection.multiple or 1) > 1 and whole < group.width:
        whole = round(whole / (selection.multiple or 1)) * (selection.multiple or 1)
    return whole


def _local(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The same share of every group."""
    return {group.name: _rounded(group, group.width * (1 - share), selection) for group in groups}


def _global(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The lowest scores of all groups together go, save the best few of each group."""
    free = {
        group.name: scores[group.name].sort().values[: group.width - _floor(group, selection)]
        for group in groups
    }
    total = sum(group.width for group in groups)
    wanted, possible = round(total * share), sum(len(values) for values in free.values())
    if wanted > possible:
        raise BudgetError(
            f"cannot remove {wanted} of {total} channels with {_rest(selection)} left in each of "
            f"{len(groups)} "
            f"groups; at most {possible} can go (a share of "
            f"{math.floor(1000 * possible / total) / 1000})"
        )
    order = torch.cat(list(free.values())).argsort(stable=True)[:wanted]
    owner = torch.cat(
        [torch.full((len(values),), i, device="cpu") for i, values in enumerate(free.values())]
    )
    removed = torch.bincount(owner[order], minlength=len(groups)).tolist()
    return {
        group.name: _rounded(group, group.width - gone, selection)
        for group, gone in zip(groups, removed, strict=True)
    }


def _per_cost(groups: list[Group], scores: Mapping[str, Tensor], cost: Cost) -> dict[str, Tensor]:
    """Scores as multiples of their group's mean, for what one unit of the group costs: comparable
    between groups.
    """
    whole, rated = cost({}), {}
    for group in groups:
        half = group.width // 2
        saved = (
            (whole - cost({group.name: half})) / (group.width - half)
            if half
            else whole / group.width
        )
        mean = scores[group.name].double().abs().mean().clamp(min=1e-30)
        # a group that costs nothing keeps its units: its scores count for a thousand times the
        # cheapest share
        rated[group.name] = scores[group.name].double() / mean / max(saved, whole * 1e-9)
    return rated


def _within(
    groups: list[Group],
    scores: Mapping[str, Tensor],
    cost: Cost,
    budget: Budget,
    selection: Selection,
    tolerance: float,
    aside: str = "",
) -> Counts:
    """The smallest share of channels whose plan removes at least the budget's share of the cost.

    Args:
        aside: what else an error is to say of why no plan does.
    """
    choose = _chooser(selection)
    whole = cost({})

    def removed(counts: Counts) -> float:
        return 1 - cost(counts) / whole if whole else 0.0

    total = sum(group.width for group in groups)
    most = (
        sum(group.width - _floor(group, selection) for group in groups) / total
        if selection.scope != "local"
        else 1.0
    )
    if budget.amount == 0:
        return choose(groups, scores, 0.0, selection)
    reachable = removed(choose(groups, scores, most, selection))
    if reachable < budget.amount:
        raise BudgetError(
            f"cannot remove {budget.amount:.1%} of the {NAMES[budget.unit]}; with "
            f"{_rest(selection)} left in each of "
            f"{len(groups)} groups at most {reachable:.1%} can go{aside}"
        )
    low, high, reached = 0.0, most, reachable
    # the share removed is a step function that never falls: halve until the step is found; the
    # steps of two groups of m and n units are never nearer to one another than 1/(2·m·n)
    finest = 0.25 / max(total, *(group.width**2 for group in groups))
    while high - low > finest and reached > budget.amount + tolerance:
        middle = (low + high) / 2
        if choose(groups, scores, middle, selection) == choose(groups, scores, high, selection):
            high = middle
        elif (found := removed(choose(groups, scores, middle, selection))) >= budget.amount:
            high, reached = middle, found
        else:
            low = middle
    return choose(groups, scores, high, selection)


def _chooser(selection: Selection) -> Choose:
    choose = _local if selection.scope == "local" else _global
    return uniformly(choose, _rounded) if selection.uniform else choose


def _plan(groups: list[Group], scores: Mapping[str, Tensor], counts: Counts) -> Plan:
    kept = {}
    for group in groups:
        best = scores[group.name].argsort(descending=True, stable=True)[: counts[group.name]]
        kept[group.name] = Kept(group.width, tuple(best.sort().values.tolist()))
    return Plan(kept)
