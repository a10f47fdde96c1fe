"""Whole residual branches out of a budget, alone or beside units.

Alone, the branches that change their stream least go, one after the other, until the budget is met.
Beside units, it is not known beforehand how many should: each branch that goes leaves more units
to the others. So a few numbers are tried, 0, 1, 2, 3, 4, 6, 9 …; the number whose
masked network answers nearest to the original is taken, and that network made and proved.

Worked example: ten branches of equal cost make up a network, and half of its cost is to go. With
two branches gone 0.8 of the cost is left, and units must bring it to 0.5, which is to lose 0.375 of
what is left; with five gone, no unit need go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, TraceError
from niwaki.core.patterns import matches, refuse_strangers
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph
from niwaki.methods.base import Calibration, Evidence, Scores
from niwaki.methods.base.cut import Cut
from niwaki.methods.distortion.probes import Distance
from niwaki.proof.reference import rerun_outputs
from niwaki.pruning.allocation import allocate
from niwaki.pruning.costs import cost_without, named
from niwaki.pruning.depth import block_influence, branches_there, without_branches
from niwaki.pruning.search import Attempt, Search
from niwaki.pruning.selection import Selection

SAMPLES = 256  # inputs that answers are compared on, at most


@dataclass(frozen=True)
class Shallower:
    """Which branches go, and which units beside them.

    Attributes:
        gone: the branches that go.
        influence: branch → block influence, of all.
        choose: the units that stay, without the groups that its keyword `without` names; None where
            branches alone go.
    """

    gone: tuple[Branch, ...]
    influence: Mapping[str, float]
    choose: Callable[..., Plan] | None = None

    def made(self, search: Search) -> Attempt:
        """The network without these branches, and without as many units as the budget still asks,
        proved.
        """
        if self.choose is None:
            return _without(search, Cut(search.graph), self.gone)
        units = search.attempt(self.choose)
        shallow = _without(search, units.cut, self.gone)
        whole = {**units.left_whole, **shallow.left_whole}
        return replace(shallow, left_whole=whole, unstated=units.unstated)


def shallower(
    search: Search, scores: Scores, budget: Budget, selection: Selection, evidence: Evidence
) -> Shallower:
    """What meets the budget with whole branches gone; nothing is handed out yet.

    Args:
        scores: of the units; not looked at where branches alone go.
        evidence: whose calibration inputs the influence is taken on, and answers are compared on;
            the example inputs without any.

    Raises:
        BudgetError: the network has no residual branch, or all of them are not enough.
        SettingError: a budget that cannot be counted for branches, or a pattern without a match.
    """
    graph = search.graph
    known = branches_there(graph)
    allowed = _allowed(known, selection)
    with search.clock.stage("score"):
        seen = evidence.calibration or Calibration.of([graph.inputs])
        influence = block_influence(graph, known, seen)
    order = _that_can_go(search, sorted(allowed, key=lambda branch: influence[branch.name]))
    if selection.parts == ("branches",):
        return Shallower(tuple(_until_met(graph, order, budget)), influence)
    _refuse_uncounted(budget)
    best, least = None, float("inf")
    refusal: BudgetError | None = None
    for number in _numbers(len(order)):
        try:
            plan = _units_beside(search, scores, budget, selection, order[:number])()
        except BudgetError as error:
            refusal = error
            continue
        with search.clock.stage("select"):
            loss = _lost(search.repair(plan), order[:number], seen)
        if best is None or loss < least:
            best, least = number, loss
        if _met_without_units(graph, order[:number], budget):
            break
    if best is None:
        assert refusal is not None
        raise refusal
    gone = tuple(order[:best])
    return Shallower(gone, influence, _units_beside(search, scores, budget, selection, gone))


def _allowed(known: Sequence[Branch], selection: Selection) -> list[Branch]:
    """The branches that the patterns let in, by their own name or that of a layer in them."""
    layers = {branch.name: [branch.name, *_layers(branch)] for branch in known}
    if selection.parts == ("branches",):
        names = [name for listed in layers.values() for name in listed]
        refuse_strangers("branch", names, (*selection.only, *selection.skip))
    return [
        branch
        for branch in known
        if (not selection.only or any(matches(n, selection.only) for n in layers[branch.name]))
        and not any(matches(n, selection.skip) for n in layers[branch.name])
    ]


def _layers(branch: Branch) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in branch.tensors))


def _that_can_go(search: Search, order: list[Branch]) -> list[Branch]:
    """Those that the class's code can do without."""
    tried = without_branches(Cut(search.graph), order, search.form, search.clock)
    return [branch for branch in order if branch.name in tried.cut.plan.branches]


def _until_met(graph: Graph, order: Sequence[Branch], budget: Budget) -> Sequence[Branch]:
    """As many branches as the budget asks for."""
    if budget.unit == "channels" and not budget.also:
        return order[: round(budget.amount * len(order))]
    _refuse_uncounted(budget)
    for number in range(len(order) + 1):
        if _met_without_units(graph, order[:number], budget):
            return order[:number]
    raise BudgetError(
        f"cannot remove {named(budget)} by whole branches; without all {len(order)} that can go at "
        "most "
        + " and ".join(
            f"{_share_gone(graph, order, one):.1%} of the {one.unit}" for one in budget.every
        )
        + " can go; what=('units', 'branches') takes units too"
    )


def _refuse_uncounted(budget: Budget) -> None:
    for one in budget.every:
        if one.unit not in ("params", "macs", "bytes"):
            raise SettingError(
                "branches go by a budget of params, macs or bytes (or, without units, by a share "
                f"of the branches); got {budget}"
            )


def _share_gone(graph: Graph, gone: Sequence[Branch], budget: Budget) -> float:
    whole = cost_without(graph, budget, ())({})
    return 1 - cost_without(graph, budget, gone)({}) / whole if whole else 0.0


def _met_without_units(graph: Graph, gone: Sequence[Branch], budget: Budget) -> bool:
    return all(_share_gone(graph, gone, one) >= one.amount for one in budget.every)


def _numbers(most: int) -> Iterator[int]:
    """0, 1, 2, 3, 4, then half as many again: 6, 9, 13 …; and all."""
    number = 0
    while number < most:
        yield number
        number += max(1, number // 2 if number >= 4 else 1)
    yield most


def _units_beside(
    search: Search,
    scores: Scores,
    budget: Budget,
    selection: Selection,
    gone: Sequence[Branch],
) -> Callable[..., Plan]:
    """How units are chosen where these branches go too."""
    graph = search.graph
    left = [_what_is_left(graph, one, gone) for one in budget.every]
    wanted = [one for one in left if one.amount > 0] or [replace(left[0], amount=0.0)]
    rest = replace(wanted[0], also=tuple(wanted[1:]))
    inside = _inside(graph, gone)

    def choose(without: Collection[str] = ()) -> Plan:
        aside = {*without, *inside}
        return allocate(graph, scores, rest, selection, without=aside, gone=gone)

    return choose


def _what_is_left(graph: Graph, budget: Budget, gone: Sequence[Branch]) -> Budget:
    """The share of a network without branches that makes a share of the whole one."""
    whole, rest = (cost_without(graph, budget, part)({}) for part in ((), gone))
    amount = 1 - (1 - budget.amount) * whole / rest if rest else 0.0
    return replace(budget, amount=max(0.0, amount), also=())


def _inside(graph: Graph, gone: Sequence[Branch]) -> set[str]:
    """Groups of which nothing is left without these branches."""
    tensors = {name for branch in gone for name in branch.tensors}
    return {
        group.name
        for group in graph.groups
        if all(piece.tensor in tensors for piece in group.slices)
    }


def _without(search: Search, cut: Cut, gone: Sequence[Branch]) -> Attempt:
    chosen = sorted(gone, key=lambda branch: branch.position)
    return without_branches(cut, chosen, search.form, search.clock)


def _lost(cut: Cut, gone: Sequence[Branch], seen: Calibration) -> float:
    """How far the answers of a network without these units and branches are from the original's.

    It is not built for that: the original is run with what goes masked.
    """
    skipped = replace(cut.plan, branches={branch.name: {} for branch in gone})
    masked, distance, samples = cut.with_plan(skipped), Distance(), 0
    for inputs in seen.inputs():
        try:
            wanted, answers = (rerun_outputs(one, inputs) for one in (Cut(cut.graph), masked))
        except (TraceError, RuntimeError, IndexError, ValueError):
            continue  # on these inputs it takes another path
        distance.add(wanted, answers)
        samples += len(wanted[0]) if wanted and wanted[0].ndim else 1
        if samples >= SAMPLES:
            break
    return float(distance)
