"""Shares by pattern, limits of a group, and the quantile rule, held against their definitions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.cli.scope import selection_of
from niwaki.core.errors import BudgetError, SettingError
from niwaki.core.plan import Plan
from niwaki.pruning.selection import Scope

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def traced(*widths: int) -> niwaki.Graph:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return niwaki.trace(nn.Sequential(*layers[:-1]), torch.randn(2, widths[0]))


def chosen(graph: niwaki.Graph, budget: Any, **settings: Any) -> Plan:
    return niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l2")), budget, niwaki.Selection(**settings)
    ).plan


def counts(plan: Plan) -> list[int]:
    return [len(kept.units) for kept in plan.values()]


def test_a_pattern_has_its_share_and_the_budget_is_of_the_others() -> None:
    graph = traced(5, 10, 20, 30, 3)
    assert counts(chosen(graph, 0.5, shares={"0": 0.8})) == [2, 10, 15]
    plan = chosen(graph, 0.5, scope="global", shares={"0": 0.8})
    assert counts(plan)[0] == 2
    assert sum(counts(plan)[1:]) == 25
    assert counts(chosen(graph, 0, shares={"[02]": 0.6, "4": 0.1})) == [4, 8, 27]


def test_the_best_units_stay_whatever_gives_the_count() -> None:
    graph = traced(5, 10, 20, 3)
    scores = niwaki.score(graph, "l2")
    plan = niwaki.select(
        niwaki.Scores(graph, scores), 0.0, niwaki.Selection(shares={"0": 0.6, "2": 0.3})
    ).plan
    for name, kept in plan.items():
        order = sorted(range(kept.width), key=lambda unit: -float(scores[name][unit]))
        assert set(kept.units) == set(order[: len(kept.units)])


@pytest.mark.parametrize("scope", ["local", "global", "cost"])
def test_a_budget_of_parameters_counts_the_whole_network(scope: str) -> None:
    graph = traced(5, 10, 20, 30, 3)
    plan = chosen(graph, "params=0.5", scope=scope, shares={"0": 0.2})
    kept = {name: len(entry.units) for name, entry in plan.items()}
    assert kept["0"] == 8
    assert 1 - graph.count_params(kept) / graph.count_params({}) >= 0.5


@pytest.mark.parametrize("scope", ["global", "cost"])
def test_no_group_loses_more_than_the_limit(scope: Scope) -> None:
    graph = traced(5, 10, 20, 30, 3)
    budget = 0.5 if scope == "global" else "macs=0.7"
    scores = {name: torch.rand(30)[: len(own)] for name, own in niwaki.score(graph, "l2").items()}
    scores["0"] -= 5  # without a limit it would lose all but one
    limited = niwaki.select(
        niwaki.Scores(graph, scores), budget, niwaki.Selection(scope, at_most=0.8)
    ).plan
    free = niwaki.select(niwaki.Scores(graph, scores), budget, niwaki.Selection(scope)).plan
    assert len(free["0"].units) == 1
    assert len(limited["0"].units) == 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_quantile_rule_is_that_of_its_definition(share: float) -> None:
    graph = traced(5, 10, 20, 30, 3)
    scores = niwaki.score(graph, "l2")
    threshold = np.quantile(torch.cat(list(scores.values())).double().numpy(), share)
    plan = niwaki.select(
        niwaki.Scores(graph, scores),
        share,
        niwaki.Selection("global", min_units=3, rule="quantile"),
    ).plan
    for name, kept in plan.items():
        above = {unit for unit in range(kept.width) if float(scores[name][unit]) > threshold}
        if len(above) >= 3:
            assert set(kept.units) == above
        else:
            assert len(kept.units) == 3
            assert above <= set(kept.units)


def test_the_quantile_rule_takes_nothing_elsewhere_for_what_must_stay() -> None:
    graph = traced(5, 10, 20, 3)
    scores = {"0": torch.zeros(10) + torch.arange(10) / 100, "2": 1 + torch.arange(20) / 100}
    settings: dict[str, Any] = {"scope": "global", "min_units": 3}
    exact = niwaki.select(niwaki.Scores(graph, scores), 0.5, niwaki.Selection(**settings)).plan
    quantile = niwaki.select(
        niwaki.Scores(graph, scores), 0.5, niwaki.Selection(**settings, rule="quantile")
    ).plan
    assert counts(exact) == [3, 12]
    assert counts(quantile) == [3, 15]
    local = niwaki.select(
        niwaki.Scores(graph, scores), 0.9, niwaki.Selection(min_units=3, rule="quantile")
    ).plan
    assert counts(local) == [3, 3]
    assert counts(
        niwaki.select(niwaki.Scores(graph, scores), 0, niwaki.Selection(rule="quantile")).plan
    ) == [10, 20]


@pytest.mark.parametrize(
    ("settings", "budget", "error", "said"),
    [
        ({"shares": {"conv*": 0.5}}, 0.5, SettingError, "shares names 'conv\\*', and no group"),
        ({"shares": {"0": 0.9}, "at_most": 0.8}, 0, SettingError, "more than at_most=0.8 allows"),
        ({"shares": {"0": 1.0}}, 0, SettingError, "the share of '0' must be in"),
        ({"shares": {"0": 0.5, "[0]": 0.4}}, 0, SettingError, "group '0' is both"),
        ({"at_most": 0.0}, 0, SettingError, "at_most is a share above 0"),
        ({"at_most": 0.4}, 0.5, BudgetError, "at_most=0.4 allows less"),
        ({"shares": {"0": 0.9}, "min_units": 3}, 0, BudgetError, "leaves 1 of the 10 units"),
        ({"shares": {"*": 0.5}}, 0.5, SettingError, "nothing to divide; give 0"),
        ({"shares": {"*": 0.1}}, "params=0.9", BudgetError, "together they remove"),
        ({"rule": "quantile"}, "params=0.5", SettingError, "needs rule='exact'"),
        ({"rule": "quantile", "scope": "cost"}, 0.5, SettingError, "needs rule='exact'"),
        ({"at_most": 0.5, "scope": "global"}, 0.6, BudgetError, "and 50% of the units left"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    settings: dict[str, Any], budget: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        chosen(traced(5, 10, 20, 3), budget, **settings)


def test_prune_takes_a_whole_selection_and_records_it() -> None:
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn").eval()
    x = niwaki.models.example_inputs(model)
    selection = niwaki.Selection(shares={"conv1": 0.5, "conv2": 0.25}, skip=("conv3", "fc1"))
    result = niwaki.prune(model, x, budget=0, selection=selection, compensation="none")
    assert (
        within.size(result.model, "conv1.out_channels"),
        within.size(result.model, "conv2.out_channels"),
    ) == (16, 48)
    assert result.record.settings["shares"] == {"conv1": 0.5, "conv2": 0.25}
    with pytest.raises(SettingError, match="give them in it"):
        niwaki.prune(model, x, selection=selection, only="conv1")


def test_the_command_line_has_shares_limit_and_rule() -> None:
    said = selection_of("local:shares=layer1.*=0.6+fc=0.25,at_most=0.8,rule=quantile", (), ())
    assert said.shares == {"layer1.*": 0.6, "fc": 0.25}
    assert (said.scope, said.at_most, said.rule) == ("local", 0.8, "quantile")
    assert selection_of("global", ("a",), ("b",)) == niwaki.Selection("global", ("a",), ("b",))
    for text, message in (
        ("local:shares=0.6", "layer1"),
        ("local:shares=fc=much", "layer1"),
        ("local:shares=fc=0.9,at_most=0.5", "at_most=0.5"),
        ("local:at_most=2", "at_most"),
        ("local:rule=median", "exact, quantile"),
    ):
        with pytest.raises(SettingError, match=message):
            selection_of(text, (), ())
