"""Every criterion by gradients, activations or ranks meets every kind of budget, scope and repair;
and keeps the units that were made to matter.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.methods.base.compensation import COMPENSATIONS

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")

NAMES = (
    "taylor",
    "taylor-activation",
    "fisher",
    "hessian",
    "lamp",
    "wanda",
    "flap",
    "nisp",
    "thinet",
    "pruning-filters",
    "isomorphic:criterion=taylor",
)
WAYS = list(
    zip(
        NAMES,
        itertools.cycle(("channels=0.5", "params=0.5", "macs=0.4", "bytes=0.4")),
        itertools.cycle(("global", "local", "cost")),
        itertools.cycle(COMPENSATIONS),
        strict=False,
    )
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    model = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    return model.eval()


INPUTS = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
SEEN = niwaki.Calibration.of([INPUTS[:8], INPUTS[8:]])


@pytest.mark.parametrize(("name", "budget", "scope", "compensation"), WAYS)
def test_the_budget_is_met(name: str, budget: str, scope: str, compensation: str) -> None:
    result = niwaki.prune(
        network(),
        INPUTS,
        criterion=name,
        budget=budget,
        scope=scope,
        compensation=compensation,
        calibration=SEEN,
        recovery="batchnorm",
    )
    assert result.model(INPUTS).shape == (16, 4)
    unit, _, share = budget.partition("=")
    if unit in ("params", "macs", "bytes"):
        before, after = (getattr(result.record, side) for side in ("before", "after"))
        assert getattr(after, unit) <= (1 - float(share)) * getattr(before, unit)


@pytest.mark.parametrize("name", NAMES)
def test_units_that_do_nothing_go_first(name: str) -> None:
    """Half of the units have no weights, and nothing hears them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
    first, last = within.part(model, "0", nn.Linear), within.part(model, "2", nn.Linear)
    with torch.no_grad():
        first.bias.add_(1)
        for tensor in (first.weight, first.bias, last.weight.T):
            tensor[::2] = 0
    inputs = torch.randn(64, 6)
    seen = niwaki.Calibration.of(inputs.split(8))
    result = niwaki.prune(
        model, inputs, criterion=name, budget=0.5, compensation="none", calibration=seen
    )
    if name == "hessian":  # a unit whose loss is concave scores below zero, and goes too
        assert len(set(result.plan.kept["0"]) & {1, 3, 5, 7, 9}) >= 1
        return
    assert result.plan.kept == {"0": (1, 3, 5, 7, 9)}
    torch.testing.assert_close(result.model(inputs), model(inputs))
