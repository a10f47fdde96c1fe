"""From a proved network to a result: both networks are measured, and the record is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from niwaki.core.budget import Budget
from niwaki.core.records import Record
from niwaki.measure import Judge, compare, cpu_threads
from niwaki.pruning.bench import Bench
from niwaki.pruning.result import Form, Result
from niwaki.pruning.search import Attempt, Clock
from niwaki.running import Inputs, batch_size, batched, copied, preserved_state, tensors_in
from niwaki.surgery import remember


@dataclass(frozen=True)
class Judged:
    """How two networks are measured.

    Attributes:
        judge: batches for accuracy, or another measure of how well a network does.
        unlabelled: gives inputs, to compare the two on, where there is neither.
        timed: whether latency and peak memory are taken at once, and not when they are wanted.
        against: the network to compare with; the one that was cut, without it.
    """

    judge: Judge = field(default_factory=Judge)
    unlabelled: Callable[[], Iterable[Inputs]] | None = None
    timed: bool = False
    against: nn.Module | None = None


def finished(
    attempt: Attempt,
    budget: Budget,
    described: Mapping[str, Any],
    clock: Clock,
    *,
    seed: int = 0,
    judged: Judged | None = None,
    form: Form = "module",
) -> Result:
    """The result of a search: both networks measured, and the record written.

    Args:
        described: entries for the record's settings.
        judged: how both are judged; not at all without it.
    """
    cut, model = attempt.cut, attempt.cut.graph.original
    inputs = cut.graph.inputs
    judged = judged or Judged()
    first = model if judged.against is None else judged.against
    shown = batched(copied(inputs), budget.batch)
    with clock.stage("measure"), preserved_state(first), preserved_state(attempt.model):
        with cpu_threads(budget.threads):
            before, after = compare(
                first,
                attempt.model,
                shown,
                judged.judge.batches,
                task=judged.judge.task,
                unlabelled=_taken(judged.unlabelled, inputs)
                if form == "graph"
                else judged.unlabelled,
                timed=judged.timed,
                macs=_counted(attempt, shown) if first is model else None,
            )
    if form == "module":
        masked = any(weight.kind == "mask" for weight in cut.graph.computed)
        # masks are the user's, and not what a factory makes; blocks are of ordinary weights
        plain = masked or bool(cut.plan.blocks)
        remember(cut.graph.model if plain else model, attempt.model, cut.plan, inputs)
    ratio = attempt.ratio
    task = judged.judge.task
    settings = {
        **described,
        **(task.described(next(iter(after.scores))) if task else {}),
        **({} if ratio is None else {f"{budget.unit}_ratio": dataclasses.asdict(ratio)}),
        **({"input_shape": list(inputs.shape[1:])} if isinstance(inputs, Tensor) else {}),
    }
    record = Record(
        before,
        after,
        settings,
        seed,
        clock.seconds,
        tuple(attempt.remarks()),
        residuals=dict(cut.residuals),
    )
    bench = None if judged.timed else Bench(first, shown, budget.threads)
    return Result(
        attempt.model,
        cut,
        attempt.proof,
        record,
        attempt.notes,
        attempt.left_whole,
        form,
        bench=bench,
    )


def _taken(
    given: Callable[[], Iterable[Inputs]] | None, like: Inputs
) -> Callable[[], Iterable[Inputs]] | None:
    """Of batches those of the example's sizes, which are all that a graph of operators takes."""
    if given is None:
        return None
    shapes = [tensor.shape for tensor in tensors_in(like)]
    return lambda: (
        batch for batch in given() if [tensor.shape for tensor in tensors_in(batch)] == shapes
    )


def _counted(attempt: Attempt, inputs: Inputs) -> tuple[int, int] | None:
    """Multiply-adds of a sample, before and after, from the operators that were recorded; None
    where that run does not say all: the two were not proved in step, an operator is unknown, or the
    batch is another.
    """
    graph, plan = attempt.cut.graph, attempt.cut.plan
    samples = batch_size(graph.inputs)
    if not attempt.proof.in_step or graph.unknown or plan.blocks or plan.branches:
        return None
    if batch_size(inputs) != samples:
        return None
    kept = {name: len(units) for name, units in plan.kept.items()}
    return round(graph.count_macs() / samples), round(graph.count_macs(kept) / samples)
