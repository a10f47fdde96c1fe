"""trace → score → select → compensate → shrink → check → measure: the way of the data, in one
function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.former import formerly
from niwaki.core.plan import Plan
from niwaki.graph import trace
from niwaki.measure.task import EVALUATE, Batches, Evaluate, Judge, Task
from niwaki.methods.base import (
    COMPENSATIONS,
    CRITERIA,
    RECOVERIES,
    Calibration,
    Compensation,
    Criterion,
    Evidence,
    Gives,
    ScoreFunction,
    recover,
)
from niwaki.pruning._finish import Judged, finished
from niwaki.pruning.asked import skipped
from niwaki.pruning.by_loss import Division
from niwaki.pruning.costs import expected
from niwaki.pruning.quality import Methods, Quality, Recoveries
from niwaki.pruning.result import Form, Result
from niwaki.pruning.scoring import repaired
from niwaki.pruning.search import Clock, Search
from niwaki.pruning.selection import Selection
from niwaki.pruning.shallower import shallower
from niwaki.pruning.stated import stated
from niwaki.pruning.trimming import as_blocks, refuse_idle, trim
from niwaki.running import Inputs

BINS = 40  # of the histogram of scores


@formerly(
    data=EVALUATE,
    measure="networks are timed once the result is printed or saved, at once by "
    "result.measured(), and never by result.untimed()",
)
def prune(  # noqa: PLR0913  # a public verb
    model: nn.Module,
    example_inputs: Inputs,
    budget: Budget | Mapping[str, Any] | float | str = 0.5,
    *,
    quality: Quality = "default",
    criterion: Criterion | str | ScoreFunction | None = None,
    compensation: Compensation | str | None = None,
    recovery: Recoveries | None = None,
    selection: Selection | None = None,
    calibration: Calibration | Gives | None = None,
    evaluate: Task | Evaluate | Batches | None = None,
    probes: bool | Sequence[Inputs] = True,
    seed: int = 0,
    form: Form = "module",
    **choices: Any,
) -> Result:
    """A smaller, repaired and checked copy of a network; the network itself is not touched.

    Args:
        model: any module. Its outputs keep their sizes.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the
            model's device.
        budget: the share to remove: of the channels (`0.5`, `"50%"`), or of what the model costs:
            `"params=0.5"` or `{"params": 0.5}`, `"macs=0.5"`, `"bytes=0.5"`, `"memory=0.5"`
            (activations),
            `"latency=0.5,batch=8,threads=2"`, or `"latency=0.5,measured=device.json"` of what
            bench.py printed on another device; or several, all of which are met:
            `"macs=0.5,params=0.4"`. Memory and latency are measured on networks made for
            the purpose, and in the end on the pruned one, which must meet the budget.
        quality: for those who do not want to choose: `"fast"`, equal shares by the norm of the
            weights, without a repair; `"default"`, repaired, and a budget of anything but channels
            divided by what the answer loses; `"best"`, the same measured group by group, and with
            calibration inputs every layer fitted afterwards (see
            `niwaki.pruning.quality`). What is stated beside it wins.
        criterion: which units stay: `"l1"`, `"taylor"`, … (an unknown name lists all), a
            `Criterion`, or a function (group, evidence) → scores; `"l2"` where nothing is said.
        compensation: what the kept units do for those that go: `"none"`, `"merge"`, with settings
            as in `"merge:threshold=0.45"`, `"match"`, `"fold"`, `"moments"`, `"reconstruct"`, or a
            `Compensation`; `"auto"` is `reconstruct` with calibration inputs, `moments` without.
            That is what is done where nothing is said. Where it cannot be applied the result's
            notes say why.
        recovery: what is mended in the smaller network after the proof, from the calibration
            inputs: `"batchnorm"`, `"refit"`, `"lbfgs"`, or several, one after the other.
        selection: which groups take part, how a budget is divided between them, and whether units,
            blocks of weights or branches go; see `niwaki.Selection`.
        calibration: batches of model inputs for methods that look at activations: a DataLoader, a
            list, a function that gives one, or a `Calibration`. Labels in them are told from inputs
            by the example inputs and the model's forward. Not the inputs that the network will be
            judged on.
        evaluate: how well a network does, before and after. Of a classifier, accuracy and loss on
            batches of (inputs, class numbers): an iterable that can be gone through twice (a list,
            a DataLoader), or a function without arguments that gives one. For any other task, a
            function of the network that returns a number, or numbers by name; or a `niwaki.Task`,
            which says which number counts. Nothing is chosen on it. Without it, the pruned network
            is compared with the original on the calibration inputs (agreement, cosine).
        probes: whether the network is also run, and proved, on other inputs than the example:
            another batch size and other values, longer and shorter ones, in training; or inputs
            that it takes, to be tried beside these. The record says what was covered.
        seed: of the criterion's chance.
        form: "module" gives a network of the model's own class; a group to which that class's code
            cannot be made to fit is left whole. "graph" gives a `torch.fx.GraphModule` of the
            operators that the model runs in evaluation mode, with the sizes among them restated,
            where such groups are pruned too.
        choices: fields of the selection, in the place of one: `only="layer*.conv1"`, `skip="fc"`
            (or modules of the model), `scope="global"`, `min_units=8`.

    Raises:
        TraceError: the model cannot be run on the example inputs, or holds NaN.
        BudgetError: not in [0, 1), or no allowed plan meets it, or timings swing too much to tell.
        UnknownNameError, SettingError: a name, setting or pattern that does not exist.
        SurgeryError: no pruned model could be made that computes what the masked original computes.
    """
    budget = Budget.parse(budget)
    parts = Selection.parts_of(selection, choices)
    methods = Methods.of(quality, fitted=calibration is not None and parts == ("units",))
    methods = methods.but(criterion, compensation, recovery)
    chosen, repair = methods.criterion, methods.compensation
    judge = Judge.of(evaluate)
    seen = None if calibration is None else Calibration.of(calibration, model, example_inputs)
    if "branches" in parts and methods.recovery:
        raise SettingError(
            "a recovery goes through both networks layer by layer; where whole branches go, train "
            "what is left instead of recovery="
        )
    if "blocks" in parts:
        chosen_selection = Selection.of(selection, choices, budget)
        refuse_idle(
            quality=quality != "default",
            compensation=compensation not in (None, "auto"),
            recovery=bool(recovery),
            form=form != "module",
        )
        asked = as_blocks(budget, chosen, chosen_selection)
        return trim(model, example_inputs, calibration=seen, evaluate=evaluate, seed=seed, **asked)
    clock = Clock()
    with clock.stage("trace"):
        graph = trace(model, example_inputs, probes=probes)
    whole, passed_over = skipped(graph, choices.pop("skip", ()))
    choices = {**choices, **({"skip": whole} if whole else {})}
    selection = methods.settled(Selection.of(selection, choices, budget), budget, graph.original)
    remarks = list(passed_over)
    with clock.stage("score"):
        generator = torch.Generator().manual_seed(seed)
        evidence = Evidence(graph, seen, generator, say=remarks.append)
        division = Division.of(chosen, evidence, repair, budget, selection)
        scores, selection = division.scores, division.selection
    repairing = partial(repaired, repair, Evidence(graph, seen, known=evidence.known), seed)
    refining = partial(chosen.refine, evidence=evidence)
    search = Search(graph, repairing, form, clock, refining)
    influence: Mapping[str, float] = {}
    if "branches" in selection.parts:
        without = shallower(search, scores, budget, selection, evidence)
        attempt, influence = without.made(search), without.influence
    else:
        attempt, selection = division.searched(search)
        remarks += division.notes
        attempt, selection, whole_kinds = stated(search, scores, budget, selection, attempt)
        remarks += whole_kinds
    remarks += expected(graph, budget, attempt.cut.plan)
    for step in methods.recovery:
        with clock.stage("recover"):
            cut = attempt.cut
            remarks.append(recover(cut, attempt.model, step, calibration=seen, seed=seed))
    described = {
        "criterion": CRITERIA.spell(chosen),
        "budget": str(budget),
        "compensation": COMPENSATIONS.spell(repair),
        **({"quality": quality} if quality != "default" else {}),
        **({"recovery": [*map(RECOVERIES.spell, methods.recovery)]} if methods.recovery else {}),
        **selection.described(),
    }
    judged = Judged(judge, None if seen is None else seen.inputs, budget.runs)
    result = finished(attempt, budget, described, clock, seed=seed, judged=judged, form=form)
    plan = attempt.cut.plan
    record = dataclasses.replace(
        result.record,
        notes=(*result.record.notes, *remarks),
        importances=_importances(scores, plan),
    )
    dependencies = chosen.dependencies(evidence, plan)
    return dataclasses.replace(
        result,
        record=record,
        dependencies=dependencies,
        curves=scores.curves,
        influence=influence,
    )


def _importances(scores: Mapping[str, Tensor], plan: Plan) -> dict[str, list[float]]:
    """How the scores of all units that took part are spread: a histogram, of those that stayed and
    of those that went.
    """
    kept, dropped = [], []
    for name, entry in plan.items():
        stays = torch.zeros(entry.width, dtype=torch.bool, device="cpu")
        stays[list(entry.units)] = True
        values = scores[name].detach().double().cpu()
        kept.append(values[stays])
        dropped.append(values[~stays])
    every = torch.cat([*kept, *dropped]) if kept else torch.empty(0, device="cpu")
    if not every.numel() or not bool(every.isfinite().all()):
        return {}
    low, high = every.min().item(), every.max().item()
    edges = torch.linspace(
        low, high if high > low else low + 1, BINS + 1, dtype=torch.float64, device="cpu"
    )
    counts = [torch.histogram(torch.cat(part), edges).hist.tolist() for part in (kept, dropped)]
    return {"edges": edges.tolist(), "kept": counts[0], "dropped": counts[1]}
