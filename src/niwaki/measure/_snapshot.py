"""Everything that is measured about a network, in one call; about two of them, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from niwaki.core.records import Measurement
from niwaki.measure.accuracy import Batch, Evaluation, evaluate
from niwaki.measure.latency import Latency, measure_latency
from niwaki.measure.macs import count_macs
from niwaki.measure.memory import peak_memory
from niwaki.measure.params import count_bytes, count_params
from niwaki.running import Inputs, batch_size

Batches = Callable[[], Iterable[Batch]]


def compare(
    before: nn.Module, after: nn.Module, inputs: Inputs, batches: Batches | None = None
) -> tuple[Measurement, Measurement]:
    """The measurements of two networks, their latencies taken in turns; see `snapshot`."""
    first, second = snapshot([before, after], inputs, batches)
    return first, second


def snapshot(
    models: Sequence[nn.Module], inputs: Inputs, batches: Batches | None = None
) -> list[Measurement]:
    """Parameters, bytes, MACs a sample and latency of every model on `inputs`; accuracy and loss
    where there is data.

    `batches` is called once a model, and gives (inputs, class numbers) afresh each time. Without
    it, accuracy and loss are None. Latencies are of the whole batch in `inputs` and taken in turns.

    Raises:
        SettingError, DataError: see `measure_latency` and `evaluate`.
    """
    latencies = measure_latency(models, inputs)
    scores = [evaluate(model, batches()) if batches else None for model in models]
    return [
        _measurement(model, inputs, latency, score)
        for model, latency, score in zip(models, latencies, scores, strict=True)
    ]


def _measurement(
    model: nn.Module, inputs: Inputs, latency: Latency, score: Evaluation | None
) -> Measurement:
    return Measurement(
        accuracy=score.accuracy if score else None,
        loss=score.loss if score and math.isfinite(score.loss) else None,
        params=count_params(model),
        macs=count_macs(model, inputs),
        latency_ms=latency.median_ms,
        bytes=count_bytes(model),
        latency_spread_ms=latency.spread_ms,
        samples=score.samples if score else None,
        non_finite=score.non_finite if score else 0,
        peak_bytes=peak_memory(model, inputs),
        batch=batch_size(inputs),
    )
