"""How much each group minds losing units: what its consumers lose, or the accuracy, against the
ratio of that group alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.graph import Graph
from niwaki.measure import Task
from niwaki.measure import evaluate as accuracy_of
from niwaki.measure.task import Evaluate
from niwaki.methods.base.compensation import Compensation, compensate
from niwaki.methods.base.criterion import Criterion, ScoreFunction, as_criterion, scored
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.proof._check import check
from niwaki.pruning.allocation import select
from niwaki.pruning.selection import Selection
from niwaki.surgery import shrink

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


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


def sensitivity(
    graph: Graph,
    *,
    criterion: Criterion | str | ScoreFunction = "l2",
    compensation: Compensation | str = "auto",
    ratios: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    calibration: Calibration | None = None,
    data: Batches | None = None,
    evaluate: Task | Evaluate | None = None,
) -> Sensitivity:
    """Prune one group at a time.

    Args:
        compensation: one that knows its residual (`"moments"`, `"reconstruct"`, `"auto"`), unless
            there is data.
        data: (inputs, class numbers) afresh, for accuracies of checked networks in the place of
            residuals.
        evaluate: a function of the network that returns a number, or a `niwaki.Task`, in the place
            of accuracy.

    Raises:
        SettingError: a ratio out of [0, 1), or a compensation that knows no residual.
    """
    if not ratios or any(not 0 <= ratio < 1 for ratio in ratios):
        raise SettingError(
            "ratios must be in [0, 1), where 0.5 removes half; got "
            f"{', '.join(map(str, ratios)) or 'none'}"
        )
    judge, measure = _judge(data, Task.of(evaluate), graph)
    method = as_criterion(criterion)
    evidence = Evidence(graph, calibration)
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
            cut = compensate(Cut(graph, plan), compensation, calibration=calibration)
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


def _judge(
    data: Batches | None, task: Task | None, graph: Graph
) -> tuple[Callable[[nn.Module], float] | None, str]:
    """What a cut network is judged by, and what that is called."""
    if task is not None:
        return lambda network: next(iter(task(network).values())), next(iter(task(graph.model)))
    if data is not None:
        return lambda network: accuracy_of(network, data()).accuracy, "accuracy"
    return None, "residual"
