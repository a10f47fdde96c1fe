"""Whole residual branches out of a network: those that change their stream least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError, SurgeryError
from niwaki.core.patterns import matches, patterns_of, refuse_strangers
from niwaki.core.plan import StandIn
from niwaki.graph import Branch, Graph, branches, trace
from niwaki.methods.base import Calibration, Gives
from niwaki.methods.base.cut import Cut
from niwaki.proof import Proof, check
from niwaki.pruning._finish import finished
from niwaki.pruning.result import Form, Result
from niwaki.pruning.search import Attempt, Clock
from niwaki.running import Inputs, Op, run
from niwaki.surgery import rewrite, shrink, stand_ins


def drop_branches(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    share: float | None = None,
    names: str | Sequence[str] = (),
    calibration: Calibration | Gives | None = None,
    form: Form = "module",
) -> Result:
    """A copy of a network without whole residual branches, proved; the network itself is not
    touched.

    Of each branch the block around it becomes an identity, or the parts that compute it become
    nothing; whichever of the two computes what the original computes with that branch's sum
    skipped. A branch that the class's code cannot do without is left, and `result.left_whole` says
    so.

    Args:
        share: of the branches, in [0, 1), those of the least influence; or
        names: glob patterns of branches, as `niwaki.branches` lists them.
        calibration: unlabelled inputs that the influence is taken on; without them the example
            inputs are.
        form: see `niwaki.prune`; "graph" does without any branch.

    Raises:
        SettingError: neither or both of `share` and `names`, or a pattern that matches no branch.
        BudgetError: the share is not in [0, 1), or the network has no residual branch.
        TraceError: the model cannot be run on the inputs.
        SurgeryError: no graph can stand for the model.
    """
    patterns = patterns_of(names)
    if (share is None) == (not patterns):
        raise SettingError(
            "say which branches go: share=0.25 for the least influential quarter, or "
            "names=('layer3.*',)"
        )
    clock = Clock()
    with clock.stage("trace"):
        graph = trace(model, example_inputs)
    known = branches_there(graph)
    with clock.stage("score"):
        batches = Calibration.of([example_inputs] if calibration is None else calibration)
        influence = block_influence(graph, known, batches)
    chosen = _by_name(known, patterns) if patterns else _least(known, influence, share)
    attempt = without_branches(Cut(graph), chosen, form, clock)
    described = {"what": "branches", **({"share": share} if share is not None else {})}
    result = finished(attempt, Budget(0.0), described, clock, form=form)
    return replace(result, influence=influence)


def branches_there(graph: Graph) -> tuple[Branch, ...]:
    """The residual branches of a network.

    Raises:
        BudgetError: it has none.
    """
    known = branches(graph)
    if not known:
        raise BudgetError(
            "the network has no residual branch: no sum of a stream and what was computed from it "
            "alone"
        )
    return known


def without_branches(cut: Cut, chosen: Sequence[Branch], form: Form, clock: Clock) -> Attempt:
    """A cut's network without these branches too, proved; each that its code cannot do without is
    left.
    """
    if form == "graph":
        whole = _with(cut, {branch.name: {} for branch in chosen})
        smaller = rewrite(whole)
        return Attempt(smaller, whole, check(whole, smaller), {})
    try:
        first = {branch.name: next(stand_ins(cut.graph, branch)) for branch in chosen}
        return Attempt(*_proved(_with(cut, first), clock), {})
    except (SurgeryError, StopIteration):
        return _one_by_one(cut, chosen, clock)


def _one_by_one(cut: Cut, chosen: Sequence[Branch], clock: Clock) -> Attempt:
    model, best, proof = _proved(cut, clock)
    left: dict[str, str] = {}
    for branch in chosen:
        left[branch.name] = "no layer of its own computes it, so that none can stand in for it"
        for layers in stand_ins(cut.graph, branch):
            try:
                more = {**best.plan.branches, branch.name: layers}
                model, best, proof = _proved(_with(best, more), clock)
            except SurgeryError as error:
                left[branch.name] = str(error)
            else:
                del left[branch.name]
                break
    return Attempt(model, best, proof, left)


def _proved(cut: Cut, clock: Clock) -> tuple[nn.Module, Cut, Proof]:
    with clock.stage("shrink"):
        smaller = shrink(cut)
    with clock.stage("check"):
        return smaller, cut, check(cut, smaller)


def _with(cut: Cut, gone: Mapping[str, Mapping[str, StandIn]]) -> Cut:
    return cut.with_plan(replace(cut.plan, branches=gone))


def _by_name(known: Sequence[Branch], patterns: Sequence[str]) -> list[Branch]:
    refuse_strangers("branch", [branch.name for branch in known], patterns)
    return [branch for branch in known if matches(branch.name, patterns)]


def _least(
    known: Sequence[Branch], influence: Mapping[str, float], share: float | None
) -> list[Branch]:
    if share is None or not 0 <= share < 1:
        raise BudgetError(
            f"the share of branches to drop must be in [0, 1), where 0.5 drops half; got {share}"
        )
    going = sorted(known, key=lambda branch: influence[branch.name])[: round(share * len(known))]
    return sorted(going, key=lambda branch: branch.position)


def block_influence(
    graph: Graph, known: Sequence[Branch], calibration: Calibration
) -> dict[str, float]:
    """How much each branch turns its stream: 1 - cos(x, x + f(x)), the mean over samples, in
    [0, 2] (Men et al., ShortGPT, arXiv 2403.03853).
    """
    at = {branch.position: branch for branch in known}
    totals = {branch.name: 0.0 for branch in known}
    samples = dict.fromkeys(totals, 0)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        branch = at.get(position)
        stream = None if branch is None else args[branch.stream].double().flatten(1)
        result = op.func(*args, **kwargs)
        if branch is not None and stream is not None:
            cosine = torch.cosine_similarity(stream, result.double().flatten(1), dim=1)
            totals[branch.name] += float((1 - cosine).sum())
            samples[branch.name] += len(cosine)
        return result

    for inputs, _ in calibration.batches():
        run(graph.model, graph.inference.tape, inputs, step)
    return {name: total / max(1, samples[name]) for name, total in totals.items()}
