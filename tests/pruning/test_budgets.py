"""Budgets in real units: predicted ones hold exactly, measured ones are measured, and what they
cost is said beforehand.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import zoo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import niwaki
from niwaki.core.errors import BudgetError, SettingError, UnknownNameError
from niwaki.measure import Ratio, cpu_threads, latency_ratio, layer_costs, peak_memory
from niwaki.measure.latency import _ratio
from niwaki.measure.macs import FORMULAS, count_macs, plain_attention
from niwaki.pruning.cost import MeasuredCost
from niwaki.running import batch_size, batched, call

pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")
MEASURES = {
    "params": lambda model, x: niwaki.count_params(model),
    "macs": niwaki.count_macs,
    "bytes": lambda model, x: niwaki.count_bytes(model),
    "memory": peak_memory,
}


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return niwaki.models.build("resnet20").eval()


@pytest.mark.parametrize("scope", ["local", "global", "cost"])
@pytest.mark.parametrize("unit", MEASURES)
def test_a_budget_is_met_and_not_far_undercut(resnet: nn.Module, unit: str, scope: Any) -> None:
    x = niwaki.models.example_inputs(resnet)
    result = niwaki.prune(resnet, x, budget=f"{unit}=0.4", scope=scope, compensation="none")
    left = MEASURES[unit](result.model, x) / MEASURES[unit](resnet, x)
    assert 0.5 < left <= 0.6


@pytest.mark.parametrize("multiple", [8, 16])
def test_counts_are_what_kernels_like(resnet: nn.Module, multiple: int) -> None:
    x = niwaki.models.example_inputs(resnet)
    result = niwaki.prune(resnet, x, budget="macs=0.3", multiple=multiple, compensation="none")
    assert all(
        len(kept.units) % multiple == 0 or len(kept.units) == kept.width
        for kept in result.plan.values()
    )
    assert niwaki.count_macs(result.model, x) <= 0.7 * niwaki.count_macs(resnet, x)


def test_what_is_dear_goes_first_where_cost_decides() -> None:
    """Two layers of the same scores, one of which costs four times as much: its units go first."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.MaxPool2d(4),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 2, 1),
    ).eval()
    graph = niwaki.trace(model, torch.randn(2, 3, 16, 16))
    scores = {group.name: torch.arange(1.0, 9.0) for group in graph.groups}
    plan = niwaki.select(
        niwaki.Scores(graph, scores), "macs=0.4", niwaki.Selection(scope="cost")
    ).plan
    assert len(plan["0"].units) < len(plan["2"].units)
    even = niwaki.select(
        niwaki.Scores(graph, scores), "macs=0.4", niwaki.Selection(scope="global")
    ).plan
    assert abs(len(even["0"].units) - len(even["2"].units)) <= 1


def slow(monkeypatch: pytest.MonkeyPatch, noise: float = 0.0, floor: float = 0.0) -> list[int]:
    """A clock that goes by multiply-adds; returns how many units each look saw."""
    looks: list[int] = []

    def ratio(first: nn.Module, second: nn.Module, inputs: Any, **_: Any) -> Ratio:
        looks.append(batch_size(inputs))
        share = floor + (1 - floor) * count_macs(second, inputs) / count_macs(first, inputs)
        return Ratio(share, share * (1 - noise), share * (1 + noise), 10)

    monkeypatch.setattr(sys.modules["niwaki.pruning.cost"], "latency_ratio", ratio)
    return looks


def test_latency_is_measured_on_networks_of_those_sizes(
    resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = slow(monkeypatch)
    x = niwaki.models.example_inputs(resnet)
    result = niwaki.prune(resnet, x, budget="latency=0.5,batch=3,threads=1", compensation="none")
    ratio = result.record.settings["latency_ratio"]["median"]
    assert 0.42 < ratio <= 0.5
    assert ratio == niwaki.count_macs(result.model, x) / niwaki.count_macs(resnet, x)
    assert set(looks) == {3}
    assert len(looks) < 20
    assert all(len(kept.units) % 8 == 0 for kept in result.plan.values())
    assert result.record.settings["budget"] == "latency=0.5,batch=3,threads=1"


def test_a_latency_that_cannot_be_had_is_refused_with_what_can(
    resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, floor=0.7)
    with pytest.raises(BudgetError, match=r"cannot remove 50.0% of the latency.*at most"):
        niwaki.prune(resnet, niwaki.models.example_inputs(resnet), budget="latency=0.5")


def test_timings_that_swing_are_looked_at_again_and_then_given_up(
    resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = slow(monkeypatch, noise=0.5)
    graph = niwaki.trace(resnet, niwaki.models.example_inputs(resnet))
    cost = MeasuredCost(graph, niwaki.Budget.parse("latency=0.5"))
    with pytest.raises(BudgetError, match=r"timings swing too much.*known only as 0\.50 to 1\.50"):
        cost.of(resnet)
    assert len(looks) == 3
    looks.clear()
    cost.of(
        niwaki.prune(resnet, niwaki.models.example_inputs(resnet), budget=0.9).model, target=0.5
    )
    assert len(looks) == 1  # on which side of the target it lies is plain all the same


def test_a_finished_network_that_is_too_slow_is_cut_further(
    resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The throwaway networks look faster than the finished one: the aim moves until that one meets
    the budget.
    """
    slow(monkeypatch)
    quick = sys.modules["niwaki.pruning.cost"].latency_ratio

    def ratio(first: nn.Module, second: nn.Module, inputs: Any, **settings: Any) -> Ratio:
        found = quick(first, second, inputs)
        more = 1.0 if settings.get("target") is not None else 1.1
        return Ratio(found.median * more, found.low * more, found.high * more, 10)

    monkeypatch.setattr(sys.modules["niwaki.pruning.cost"], "latency_ratio", ratio)
    x = niwaki.models.example_inputs(resnet)
    result = niwaki.prune(resnet, x, budget="latency=0.4", compensation="none")
    assert result.record.settings["latency_ratio"]["median"] <= 0.6


def test_the_preview_says_what_is_cut_then_and_cuts_nothing(resnet: nn.Module) -> None:
    x = niwaki.models.example_inputs(resnet)
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    foreseen = niwaki.preview(resnet, x, criterion="l1", budget="macs=0.5")
    result = niwaki.prune(resnet, x, criterion="l1", budget="macs=0.5")
    assert {row.group: row.residual for row in foreseen.rows if row.residual is not None} == dict(
        result.residuals
    )
    assert len(result.residuals) > 0
    assert dict(foreseen.plan.units) == dict(result.plan.units)
    assert foreseen.sizes["params"] == (result.record.before.params, result.record.after.params)
    assert foreseen.sizes["macs"] == (result.record.before.macs, result.record.after.macs)
    assert foreseen.sizes["bytes"] == (result.record.before.bytes, result.record.after.bytes)
    for row in foreseen.rows:  # the least of them go; some groups may be kept whole
        gone = 1 - row.kept / row.width
        assert 0 <= row.lost < gone or row.lost == gone == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    assert "signal lost" in str(foreseen)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("latency=0.5,batch=0", SettingError, "batch"),
        ("latency=0.5,batch=two", SettingError, "batch"),
        ("latency=0.5,cores=2", UnknownNameError, "'cores'"),
        ("macs=0.5,batch=2", SettingError, "no use for it"),
        ("latncy=0.5", UnknownNameError, "'latency'"),
        ("latency=half", BudgetError, "latency=0.5"),
    ],
)
def test_budgets_that_cannot_be_read(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        niwaki.Budget.parse(text)


def test_a_graph_alone_knows_no_latency(resnet: nn.Module) -> None:
    graph = niwaki.trace(resnet, niwaki.models.example_inputs(resnet))
    with pytest.raises(BudgetError, match=r"niwaki\.prune\("):
        niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), "latency=0.5")


@pytest.mark.parametrize("name", zoo.MODELS)
def test_macs_are_half_of_what_torch_counts(name: str) -> None:
    """On the real model and on real data, where `count_macs` runs a copy without data."""
    model = zoo.build(name)
    x = zoo.inputs(model, 1)
    with (
        torch.no_grad(),
        plain_attention(),
        FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
    ):
        call(model, x)
    assert count_macs(model, x) == round(counter.get_total_flops() / 2 / batch_size(x))


def test_peak_memory_by_hand() -> None:
    """x stays with the caller; the first layer's output lives until the second has made its own."""
    model = nn.Sequential(nn.Linear(10, 100, bias=False), nn.Linear(100, 20, bias=False))
    assert peak_memory(model, torch.ones(4, 10)) == 4 * 4 * (10 + 100 + 20)
    inplace = nn.Sequential(nn.Linear(10, 100, bias=False), nn.ReLU(inplace=True), nn.Flatten())
    assert peak_memory(inplace, torch.ones(4, 10)) == 4 * 4 * (10 + 100)
    assert peak_memory(nn.Linear(3, 5).half(), torch.ones(2, 3).half()) >= 2 * 2 * (3 + 5)


def test_layers_add_up(resnet: nn.Module) -> None:
    x = niwaki.models.example_inputs(resnet)
    rows = layer_costs(resnet, x, repeats=2)
    assert sum(row.params for row in rows) == niwaki.count_params(resnet)
    assert sum(row.macs for row in rows) == niwaki.count_macs(resnet, x)
    assert rows[0].name == "conv1"
    assert all(row.ms > 0 for row in rows)
    assert not any(module._forward_hooks for module in resnet.modules())


def test_the_interval_of_a_ratio_is_that_of_a_median() -> None:
    ratio = _ratio([0.5 + 0.001 * i for i in range(100)])
    assert ratio.median == pytest.approx(0.5495)
    assert 0.535 < ratio.low < 0.5495 < ratio.high < 0.565
    assert _ratio([0.5, 0.6, 0.4]).spread > 0.15


def test_equal_models_take_equal_times() -> None:
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    ratio = latency_ratio(model, model, torch.ones(8, 64), seconds=0.05, patience=0.1)
    assert 0.3 < ratio.median < 3
    assert ratio.rounds >= 8


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_batches_of_another_size_hold_the_same_samples() -> None:
    x = torch.arange(6).reshape(3, 2)
    five, one = batched(x, 5), batched({"x": x, "k": 3}, 1)
    assert isinstance(five, torch.Tensor)
    assert five.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert isinstance(one, dict)
    assert one["x"].tolist() == [[0, 1]]
    assert batched(x, None) is x
