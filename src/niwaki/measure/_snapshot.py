"""Everything that is measured about a network, in one call; about two of them, side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from niwaki.core.records import Evaluation, Measurement
from niwaki.measure._agreement import SAME, agreement
from niwaki.measure.accuracy import Batch, evaluate
from niwaki.measure.latency import Latency, measure_latency
from niwaki.measure.macs import count_macs
from niwaki.measure.memory import peak_memory
from niwaki.measure.params import count_bytes, count_params
from niwaki.measure.task import Task
from niwaki.running import Inputs, batch_size

Batches = Callable[[], Iterable[Batch]]


def compare(  # noqa: PLR0913  # a public verb
    before: nn.Module,
    after: nn.Module,
    inputs: Inputs,
    batches: Batches | None = None,
    *,
    task: Task | None = None,
    unlabelled: Callable[[], Iterable[Inputs]] | None = None,
    timed: bool = True,
    macs: Sequence[int] | None = None,
) -> tuple[Measurement, Measurement]:
    """The measurements of two networks, their latencies taken in turns; see `snapshot`.

    Args:
        unlabelled: inputs on which the second is compared with the first, where there is neither
            data nor a task to judge them by.
    """
    first, second = snapshot([before, after], inputs, batches, task=task, timed=timed, macs=macs)
    if batches is None and task is None and unlabelled is not None:
        scores = agreement(before, after, unlabelled())
        if scores:
            first = dataclasses.replace(first, scores=dict(SAME))
            second = dataclasses.replace(second, scores=scores)
    return first, second


def snapshot(
    models: Sequence[nn.Module],
    inputs: Inputs,
    batches: Batches | None = None,
    *,
    task: Task | None = None,
    timed: bool = True,
    macs: Sequence[int] | None = None,
) -> list[Measurement]:
    """Parameters, bytes, MACs a sample and latency of every model on `inputs`; accuracy and loss
    where there is data, and the numbers of a task where there is one.

    `batches` is called once a model, and gives (inputs, class numbers) afresh each time. Without
    it, accuracy and loss are None. Latencies are of the whole batch in `inputs` and taken in turns.

    Args:
        timed: without it, latency and peak memory are not measured (0 and None).
        macs: of a sample, a model; where they are known from a recorded run.

    Raises:
        SettingError, DataError: see `measure_latency`, `evaluate` and `Task`.
    """
    latencies: list[Latency | None] = [None for _ in models]
    if timed:
        latencies = list(measure_latency(models, inputs))
    scores = [evaluate(model, batches()) if batches else None for model in models]
    counts = macs or [count_macs(model, inputs) for model in models]
    measured = [
        _measurement(model, inputs, latency, score, count)
        for model, latency, score, count in zip(models, latencies, scores, counts, strict=True)
    ]
    if task is None:
        return measured
    return [_with_task(values, task(model)) for values, model in zip(measured, models, strict=True)]


def _with_task(measured: Measurement, scores: dict[str, float]) -> Measurement:
    """With the numbers of a task; its accuracy and loss are what a record knows by these names."""
    accuracy = scores.get("accuracy")
    if measured.accuracy is not None or accuracy is None or not 0 <= accuracy <= 1:
        return dataclasses.replace(measured, scores=scores)
    loss = scores.get("loss")
    return dataclasses.replace(measured, scores=scores, accuracy=accuracy, loss=loss)


def _measurement(
    model: nn.Module,
    inputs: Inputs,
    latency: Latency | None,
    score: Evaluation | None,
    macs: int,
) -> Measurement:
    return Measurement(
        accuracy=score.accuracy if score else None,
        loss=score.loss if score and math.isfinite(score.loss) else None,
        params=count_params(model),
        macs=macs,
        latency_ms=latency.median_ms if latency else 0.0,
        bytes=count_bytes(model),
        latency_spread_ms=latency.spread_ms if latency else 0.0,
        samples=score.samples if score else None,
        non_finite=score.non_finite if score else 0,
        peak_bytes=peak_memory(model, inputs) if latency else None,
        batch=batch_size(inputs),
    )
