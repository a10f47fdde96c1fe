"""What the graph says a plan will cost is what the pruned network is then measured to cost."""

from __future__ import annotations

from typing import Any

import pytest
import zoo

import niwaki
from niwaki.running import batch_size


@pytest.mark.parametrize("name", zoo.MODELS)
def test_predicted_is_measured(name: str, quick_latency: None) -> None:
    model = zoo.build(name)
    inputs: Any = zoo.inputs(model, 1)
    graph = niwaki.trace(model, inputs)
    samples = batch_size(inputs)
    assert graph.count_params() == niwaki.count_params(model)
    measured = niwaki.count_macs(model, inputs)
    if not graph.unknown:
        assert round(graph.count_macs() / samples) == measured
    try:
        result = niwaki.prune(model, inputs, compensation="none")
    except niwaki.NiwakiError:
        return
    counts = {group: len(kept.units) for group, kept in result.plan.items()}
    assert graph.count_params(counts) == result.record.after.params
    if not graph.unknown:
        counted = niwaki.count_macs(result.model, inputs)
        assert round(graph.count_macs(counts) / samples) == counted == result.record.after.macs
