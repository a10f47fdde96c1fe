"""trace → score → select → compensate → shrink → check → measure: the way of the data, in one
function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps, Record, as_table, as_text
from niwaki.graph import trace
from niwaki.measure import Task, compare, cpu_threads
from niwaki.measure.task import Evaluate
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation, compensate
from niwaki.methods.base.criterion import CRITERIA, Criterion, scored
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.base.recovery import RECOVERIES, Recovery, recover
from niwaki.pruning.allocation import Rounding, Scope, Selection, select
from niwaki.pruning.asked import Layers, skipped
from niwaki.pruning.cost import MEASURED, MeasuredCost
from niwaki.pruning.search import SLACK, Clock, Cutting, Form
from niwaki.pruning.table import Preview
from niwaki.pruning.table import preview as foresee
from niwaki.running import Inputs, batched, copied, preserved_state
from niwaki.surgery import hand_over, remember

Batch = tuple[Tensor, Tensor]
Data = Iterable[Batch] | Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Result:
    """A pruned network and how it came to be.

    Attributes:
        model: the smaller module: of the original's class, in its train/eval mode; or, of form
            "graph", a `torch.fx.GraphModule` that runs as the original does in evaluation mode.
        plan: which units of which group stayed.
        record: before and after, settings, versions, hardware, seed, wall times.
        notes: group name → what its compensation did, or why it could do nothing; and, for a group
            that was to be pruned but could not be, why it was left whole.
        residuals: group name → the share of what its consumers read that is lost, E|W·(x - x̂)|²
            over E|W·(x - E x)|², on the calibration inputs, or by the moments that were derived; of
            compensations that know it.
        dependencies: what a report draws and `save` writes, where the units' scores came from pairs
            of layers.
    """

    model: nn.Module
    plan: Plan
    record: Record
    notes: Mapping[str, str]
    form: Form = "module"
    residuals: Mapping[str, float] = field(default_factory=dict)
    dependencies: DependencyMaps | None = None

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return as_table(self.record)

    def __str__(self) -> str:
        return as_text(self.record)


def prune(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    criterion: Criterion | str = "l2",
    budget: Budget | Mapping[str, Any] | float | str = 0.5,
    compensation: Compensation | str = "auto",
    recovery: Recovery | str | Sequence[Recovery | str] = (),
    data: Data | None = None,
    evaluate: Task | Evaluate | None = None,
    calibration: Calibration | Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    scope: Scope = "local",
    only: str | Sequence[str] = (),
    skip: Layers = (),
    min_units: int = 1,
    rounding: Rounding = "round",
    multiple: int | None = None,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    form: Form = "module",
    measure: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """A smaller, repaired and checked copy of a network; the network itself is not touched.

    Args:
        model: any module. Its outputs keep their sizes.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the
            model's device.
        criterion: which units stay: `"l1"`, `"l2"`, `"l2-gm"`, `"random"`, or a `Criterion`.
        budget: the share to remove: of the channels (`0.5`, `"50%"`), or of what the model costs:
            `"params=0.5"` or `{"params": 0.5}`, `"macs=0.5"`, `"bytes=0.5"`, `"memory=0.5"`
            (activations),
            `"latency=0.5,batch=8,threads=2"`. Memory and latency are measured on networks made for
            the purpose, and in the end on the pruned one, which must meet the budget.
        compensation: what the kept units do for those that go: `"none"`, `"merge"`, with settings
            as in `"merge:threshold=0.45"`, `"match"`, `"fold"`, `"moments"`, `"reconstruct"`, or a
            `Compensation`; `"auto"` is `reconstruct` with calibration inputs, `moments` without.
            Where it cannot be applied the result's notes say why.
        recovery: what is done for the smaller network after the check, from the calibration inputs:
            `"batchnorm"`, `"refit"`, `"lbfgs"`, or several, one after the other.
        data: (inputs, class numbers) batches for accuracy and loss before and after: an iterable
            that can be gone through twice, or a function that gives one. Nothing is chosen on it.
        evaluate: how well a network does, for any task: a function of the network that returns a
            number, or numbers by name; or a `niwaki.Task`, which says which number counts. It is
            called before and after. Without it and without `data`, the pruned network is compared
            with the original on the calibration inputs (agreement, cosine).
        calibration: batches of model inputs for criteria and compensations that look at
            activations: a DataLoader, a list, a function that gives one, or a `Calibration`.
            Labels in them are told from inputs by the example inputs and the model's forward.
            Not the inputs that the network will be judged on.
        scope: whether units compete within their group, in the whole network, or by what they cost;
            see `niwaki.Selection`.
        only: glob patterns of the groups that are pruned; all without one.
        skip: glob patterns of groups that are left whole, or modules of the model.
        min_units: units that stay in a group at least.
        rounding: of the number of units that go.
        multiple: what kept counts are rounded to: 8 for a budget of latency, as kernels like it,
            and else 1, unless it is said.
        seed: of the criterion's chance.
        optimizer: of the model; it is handed over to the pruned one in place, with what it
            remembers (momenta, second moments) cut like the parameters, so that training goes on.
            Only once all else has succeeded.
        form: "module" gives a network of the model's own class; a group to which that class's code
            cannot be made to fit is left whole. "graph" gives a `torch.fx.GraphModule` of the
            operators that the model runs in evaluation mode, with the sizes among them restated,
            where such groups are pruned too.
        measure: time both networks and take their peak memory; without it only what is counted.
        settings: more entries for the record's settings.

    Raises:
        TraceError: the model cannot be run on the example inputs, or holds NaN.
        BudgetError: not in [0, 1), or no allowed plan meets it, or timings swing too much to tell.
        UnknownNameError, SettingError: a name, setting or pattern that does not exist.
        SurgeryError: no pruned model could be made that computes what the masked original computes.
    """
    budget = Budget.parse(budget)
    chosen = CRITERIA.build(criterion) if isinstance(criterion, str) else criterion
    repair = COMPENSATIONS.build(compensation) if isinstance(compensation, str) else compensation
    steps = _recoveries(recovery)
    task = Task.of(evaluate)
    batches = _again(data)
    seen = None if calibration is None else Calibration.of(calibration, model, example_inputs)
    clock = Clock()
    with clock.stage("trace"):
        graph = trace(model, example_inputs)
    whole, passed_over = skipped(graph, skip)
    selection = Selection(
        scope,
        _patterns(only),
        whole,
        min_units,
        rounding,
        multiple or default_multiple(budget),
    )
    with clock.stage("score"):
        remarks: list[str] = list(passed_over)
        evidence = Evidence(graph, seen, torch.Generator().manual_seed(seed), say=remarks.append)
        scores = scored(chosen, evidence)
    repairing = partial(compensate, graph, compensation=repair, calibration=seen, seed=seed)
    refining = partial(chosen.refine, evidence=evidence)
    cut = Cutting(graph, repairing, form, clock, refining).within_budget(scores, budget, selection)
    for step in steps:
        with clock.stage("recover"):
            remarks.append(recover(graph, cut.plan, cut.model, step, calibration=seen, seed=seed))
    with (
        clock.stage("measure"),
        preserved_state(model),
        preserved_state(cut.model),
        cpu_threads(budget.threads),
    ):
        before, after = compare(
            model,
            cut.model,
            batched(copied(example_inputs), budget.batch),
            batches,
            task=task,
            unlabelled=None if seen is None else seen.inputs,
            timed=measure,
        )
    if form == "module":
        remember(model, cut.model, cut.plan, example_inputs)
    described = {
        "criterion": str(chosen),
        "budget": str(budget),
        "compensation": str(repair),
        **(task.described(next(iter(after.scores))) if task else {}),
        **({"recovery": [str(step) for step in steps]} if steps else {}),
        **{
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(selection).items()
        },
        **({} if cut.ratio is None else {f"{budget.unit}_ratio": dataclasses.asdict(cut.ratio)}),
        **(
            {"input_shape": list(example_inputs.shape[1:])}
            if isinstance(example_inputs, Tensor)
            else {}
        ),
        **(settings or {}),
    }
    notes = {**cut.compensated.notes, **cut.left_whole}
    summary = (*cut.summary(graph), *remarks)
    if optimizer is not None:
        summary += hand_over(optimizer, graph, cut.plan, cut.model)
    record = Record(
        before,
        after,
        described,
        seed,
        clock.seconds,
        summary,
        residuals=dict(cut.compensated.residuals),
        importances=_importances(scores, cut.plan),
    )
    return Result(cut.model, cut.plan, record, notes, form, cut.compensated.residuals)


def preview(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    criterion: Criterion | str = "l2",
    budget: Budget | Mapping[str, Any] | float | str = 0.5,
    compensation: Compensation | str = "auto",
    calibration: Calibration | Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    selection: Selection | None = None,
    seed: int = 0,
) -> Preview:
    """What `prune` would cut for a budget, and what that costs in score and in signal, group by
    group; nothing is cut.

    The arguments and errors are those of `prune`. Whether every group can be cut shows only when it
    is.
    """
    budget = Budget.parse(budget)
    chosen = CRITERIA.build(criterion) if isinstance(criterion, str) else criterion
    selection = selection or Selection(multiple=default_multiple(budget))
    seen = None if calibration is None else Calibration.of(calibration, model, example_inputs)
    graph = trace(model, example_inputs)
    evidence = Evidence(graph, seen, torch.Generator().manual_seed(seed))
    scores = scored(chosen, evidence)
    measured: dict[str, float] = {}
    if budget.unit in MEASURED:
        cost = MeasuredCost(graph, budget)
        plan = select(
            graph, scores, budget, selection, cost=cost, tolerance=SLACK * (1 - budget.amount)
        )
        measured = {budget.unit: cost({name: len(kept.units) for name, kept in plan.items()})}
    else:
        plan = select(graph, scores, budget, selection)
    plan = chosen.refine(plan, evidence)
    repaired = compensate(graph, plan, compensation, calibration=seen, seed=seed)
    return foresee(graph, scores, plan, repaired.residuals, measured)


def default_multiple(budget: Budget) -> int:
    """What kept counts are rounded to for a budget, unless the user says it: 8 where time
    counts.
    """
    return 8 if budget.unit == "latency" else 1


BINS = 40


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


def _recoveries(given: Recovery | str | Sequence[Recovery | str]) -> list[Recovery]:
    steps = [given] if isinstance(given, (Recovery, str)) else given
    return [RECOVERIES.build(step) if isinstance(step, str) else step for step in steps]


def _patterns(text: str | Sequence[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _again(data: Data | None) -> Callable[[], Iterable[Batch]] | None:
    """Data as a function that gives it afresh."""
    if data is None or callable(data):
        return data
    if iter(data) is data:
        raise SettingError(
            "data can be gone through only once (a generator); pass a list, a DataLoader, or a "
            "function"
        )
    return lambda: data
