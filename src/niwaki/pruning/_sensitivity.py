"""How much each group minds losing units: what its consumers lose, or the accuracy, against the
ratio of that group alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from niwaki.core.errors import SettingError
from niwaki.core.former import formerly
from niwaki.graph import Graph
from niwaki.measure import evaluate as accuracy_of
from niwaki.measure.task import EVALUATE, Batches, Evaluate, Judge, Task
from niwaki.methods.base.compensation import Compensation, compensate
from niwaki.methods.base.criterion import Criterion, ScoreFunction, as_criterion, scored
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.base.evidence import Calibration, Evidence, Gives
from niwaki.proof._check import check
from niwaki.pruning.allocation import select
from niwaki.pruning.selection import Selection
from niwaki.surgery import shrink


@dataclass(frozen=True)
class Sensitivity:
    """Group → one number a ratio; of a group that could not be repaired or cut there is none.

    Attributes:
        measure: "residual", the share of what the group's consumers read that is lost; or
            "accuracy", a share in [0, 1]; or the name of a task's primary number.
        curves: by group, in the order of `ratios`.
        left_out: group → why it has no curve.
    """

    measure: str
    ratios: tuple[float, ...]
    curves: dict[str, tuple[float, ...]]
    left_out: dict[str, str]

    def to_json(self) -> str:
        """As text."""
        entries = {
            "measure": self.measure,
            "ratios": self.ratios,
            "groups": self.curves,
            "left_out": self.left_out,
        }
        return json.dumps(entries, indent=1) + "\n"


@formerly(data=EVALUATE)
def sensitivity(
    graph: Graph,
    *,
    criterion: Criterion | str | ScoreFunction = "l2",
    compensation: Compensation | str = "auto",
    ratios: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    calibration: Calibration | Gives | None = None,
    evaluate: Task | Evaluate | Batches | None = None,
    seed: int = 0,
) -> Sensitivity:
    """Prune one group at a time.

    Args:
        criterion, calibration, seed: as for `niwaki.prune`.
        compensation: one that knows its residual (`"moments"`, `"reconstruct"`, `"auto"`), unless
            checked networks are evaluated.
        ratios: shares of a group's units, in [0, 1).
        evaluate: as for `niwaki.prune`: batches for accuracies, a function of the network, or a
            `niwaki.Task`, in the place of residuals.

    Raises:
        SettingError: a ratio out of [0, 1), or a compensation that knows no residual.
    """
    if not ratios or any(not 0 <= ratio < 1 for ratio in ratios):
        raise SettingError(
            "ratios must be in [0, 1), where 0.5 removes half; got "
            f"{', '.join(map(str, ratios)) or 'none'}"
        )
    judge, measure = _judge(Judge.of(evaluate), graph)
    method = as_criterion(criterion)
    seen = None if calibration is None else Calibration.of(calibration, graph.model, graph.inputs)
    evidence = Evidence(graph, seen, torch.Generator().manual_seed(seed))
    scores = scored(method, evidence)
    curves: dict[str, tuple[float, ...]] = {}
    left_out: dict[str, str] = {}
    for group in graph.groups:
        curve = []
        for ratio in ratios:
            plan = select(Scores(graph, scores), ratio, Selection(only=(group.name,))).plan
            plan = method.refine(
                type(plan)({name: kept for name, kept in plan.items() if name == group.name}),
                evidence,
            )
            cut = compensate(Cut(graph, plan), compensation, calibration=seen)
            if judge is not None:
                pruned = shrink(cut)
                check(cut, pruned)
                curve.append(judge(pruned))
            elif group.name in cut.residuals or not plan.kept:
                curve.append(cut.residuals.get(group.name, 0.0))
            else:
                left_out[group.name] = cut.notes.get(
                    group.name, "its compensation knows no residual"
                )
                break
        if group.name not in left_out:
            curves[group.name] = tuple(curve)
    if not curves:
        raise SettingError(
            f"no residual is known of any group: {next(iter(left_out.values()), 'there are none')}"
        )
    return Sensitivity(measure, tuple(ratios), curves, left_out)


def _judge(given: Judge, graph: Graph) -> tuple[Callable[[nn.Module], float] | None, str]:
    """What a cut network is judged by, and what that is called."""
    if (task := given.task) is not None:
        return lambda network: next(iter(task(network).values())), next(iter(task(graph.model)))
    if (batches := given.batches) is not None:
        return lambda network: accuracy_of(network, batches()).accuracy, "accuracy"
    return None, "residual"
