"""What a pruning would do, before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.former import formerly
from niwaki.core.plan import Plan
from niwaki.graph import Graph, trace
from niwaki.methods.base import (
    Calibration,
    Compensation,
    Criterion,
    Evidence,
    Gives,
    ScoreFunction,
    Scores,
)
from niwaki.pruning.allocation import allocate
from niwaki.pruning.asked import skipped
from niwaki.pruning.by_loss import Division
from niwaki.pruning.cost import MeasuredCost
from niwaki.pruning.costs import predicted_cost
from niwaki.pruning.quality import Methods, Quality
from niwaki.pruning.scoring import repaired
from niwaki.pruning.search import SLACK, Clock, Search
from niwaki.pruning.selection import Selection
from niwaki.pruning.shallower import shallower
from niwaki.pruning.table import Preview, Without
from niwaki.pruning.table import preview as foresee
from niwaki.running import Inputs


@formerly(data="nothing is measured before a cut", measure="nothing is timed")
def preview(  # noqa: PLR0913  # a public verb
    model: nn.Module,
    example_inputs: Inputs,
    budget: Budget | Mapping[str, Any] | float | str = 0.5,
    *,
    quality: Quality = "default",
    criterion: Criterion | str | ScoreFunction | None = None,
    compensation: Compensation | str | None = None,
    selection: Selection | None = None,
    calibration: Calibration | Gives | None = None,
    seed: int = 0,
    **choices: Any,
) -> Preview:
    """What `prune` would cut for a budget, and what that costs in score and in signal, group by
    group; nothing is cut.

    The arguments and errors are those of `prune`. Whether every group can be cut shows only when it
    is. Whole branches (`what="branches"`) are foreseen too: a copy of the network shows which of
    them its code can do without.

    Raises:
        SettingError: blocks of weights are to go, which are not foreseen here.
    """
    budget = Budget.parse(budget)
    methods = Methods.of(quality).but(criterion, compensation)
    chosen, repair = methods.criterion, methods.compensation
    seen = None if calibration is None else Calibration.of(calibration, model, example_inputs)
    _refuse_blocks(selection, choices)
    graph = trace(model, example_inputs)
    whole, passed_over = skipped(graph, choices.pop("skip", ()))
    choices = {**choices, **({"skip": whole} if whole else {})}
    selection = methods.settled(Selection.of(selection, choices, budget), budget, graph.original)
    remarks = list(passed_over)
    evidence = Evidence(graph, seen, torch.Generator().manual_seed(seed), say=remarks.append)
    division = Division.of(chosen, evidence, repair, budget, selection)
    scores, selection = division.scores, division.selection
    repairing = partial(repaired, repair, evidence, seed)
    without, measured = Without(), dict[str, float]()
    if "branches" in selection.parts:
        search = Search(graph, repairing, "module", Clock())
        fewer = shallower(search, scores, budget, selection, evidence)
        plan = Plan() if fewer.choose is None else fewer.choose()
        without = Without(fewer.gone, fewer.influence)
    else:
        plan, measured = _foreseen(scores, budget, selection)
    plan = chosen.refine(plan, evidence)
    cut = repairing(plan)
    if division.loses(cut):
        plan, measured = _foreseen(scores, budget, replace(selection, scope="local"))
        cut = repairing(chosen.refine(plan, evidence))
    foreseen = foresee(graph, scores, cut.plan, cut.residuals, measured, without)
    return replace(foreseen, notes=tuple(dict.fromkeys((*remarks, *division.notes))))


def _refuse_blocks(selection: Selection | None, choices: Mapping[str, Any]) -> None:
    if "blocks" in Selection.parts_of(selection, choices):
        raise SettingError(
            "blocks of weights are not foreseen: call niwaki.prune, which leaves the network as it "
            "is, or list what each cut-off would do with niwaki prune --scope "
            "blocks:cut_off=0:1:0.1"
        )


def _foreseen(
    scores: Scores, budget: Budget, selection: Selection
) -> tuple[Plan, dict[str, float]]:
    """The plan; and of a budget that is measured what a network of its sizes costs: one made for
    that, or as it was on another device.
    """
    graph = scores.graph
    if not budget.runs:
        plan = allocate(graph, scores, budget, selection)
        return plan, {} if budget.measured is None else _read_off(graph, budget, plan)
    cost, slack = MeasuredCost(graph, budget), SLACK * (1 - budget.amount)
    plan = allocate(graph, scores, budget, selection, cost=cost, tolerance=slack)
    return plan, {budget.unit: cost({name: len(kept.units) for name, kept in plan.items()})}


def _read_off(graph: Graph, budget: Budget, plan: Plan) -> dict[str, float]:
    cost = predicted_cost(graph, budget.every[0])
    return {budget.unit: cost({name: len(kept.units) for name, kept in plan.items()})}
