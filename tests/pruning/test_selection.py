"""Budgets met as asked, no more than asked, or refused with what can be had; names and patterns
that say what exists.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import BudgetError, SettingError, UnknownNameError
from niwaki.core.plan import Kept, Plan
from niwaki.pruning.selection import Scope


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def traced(*widths: int) -> niwaki.Graph:
    torch.manual_seed(0)
    return niwaki.trace(mlp(*widths), torch.randn(2, widths[0]))


def counts(plan: Plan) -> list[int]:
    return [len(kept.units) for kept in plan.values()]


def chosen(graph: niwaki.Graph, budget: Any, **settings: Any) -> Plan:
    return niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l2")), budget, niwaki.Selection(**settings)
    ).plan


# channels


@pytest.mark.parametrize(
    ("share", "rounding", "kept"),
    [
        (0.0, "round", [10, 16, 7]),
        (0.25, "round", [8, 12, 5]),  # 7.5 → 8 as Python rounds, 12, 5.25
        (0.25, "floor", [7, 12, 5]),
        (0.5, "round", [5, 8, 4]),
        (0.5, "floor", [5, 8, 3]),
        (0.8, "floor", [2, 3, 1]),  # 10·(1 - 0.8) is 1.9999999999999996 to a computer
        (0.7, "floor", [3, 4, 2]),
        (0.99, "round", [1, 1, 1]),
    ],
)
def test_local_takes_the_same_share_of_every_group(
    share: float, rounding: str, kept: list[int]
) -> None:
    assert counts(chosen(traced(5, 10, 16, 7, 3), share, rounding=rounding)) == kept


def test_the_best_stay_and_equal_ones_in_order() -> None:
    graph = traced(4, 6, 2)
    scores = {"0": torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0, 3.0], dtype=torch.float64)}
    assert niwaki.select(niwaki.Scores(graph, scores), 0.5).plan["0"].units == (1, 3, 5)
    assert niwaki.select(niwaki.Scores(graph, scores), 0.66).plan["0"].units == (1, 3)
    assert niwaki.select(niwaki.Scores(graph, scores), 0.33).plan["0"].units == (1, 2, 3, 5)


def test_global_lays_one_threshold_over_all() -> None:
    graph = traced(4, 4, 4, 2)
    scores = {"0": torch.tensor([1.0, 2.0, 3.0, 4.0]), "2": torch.tensor([5.0, 6.0, 7.0, 8.0])}
    plan = niwaki.select(niwaki.Scores(graph, scores), 0.5, niwaki.Selection(scope="global")).plan
    assert (plan["0"].units, plan["2"].units) == ((3,), (1, 2, 3))  # one of the first must stay
    plan = niwaki.select(
        niwaki.Scores(graph, scores), 0.5, niwaki.Selection(scope="global", min_units=2)
    ).plan
    assert (plan["0"].units, plan["2"].units) == ((2, 3), (2, 3))


@pytest.mark.parametrize(("multiple", "kept"), [(1, [6, 10]), (4, [8, 8]), (8, [8, 8])])
def test_counts_are_multiples(multiple: int, kept: list[int]) -> None:
    assert counts(chosen(traced(4, 12, 20, 2), 0.5, multiple=multiple)) == kept


@pytest.mark.parametrize(
    ("scope", "share"),
    [("local", 0.1), ("local", 0.6), ("local", 0.9), ("global", 0.1), ("global", 0.4)],
)
@pytest.mark.parametrize("multiple", [2, 3, 8])
def test_every_kept_count_is_a_multiple_or_whole(scope: str, share: float, multiple: int) -> None:
    for kept in chosen(traced(4, 13, 24, 5, 2), share, scope=scope, multiple=multiple).values():
        assert len(kept.units) == kept.width or len(kept.units) % multiple == 0


def test_multiples_are_in_the_message_where_they_are_the_obstacle() -> None:
    with pytest.raises(
        BudgetError,
        match=(
            "25 of 42 channels with at least 1 unit, and multiples of 8, left in each of 3 groups"
        ),
    ):
        chosen(traced(4, 13, 24, 5, 2), 0.6, scope="global", multiple=8)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_no_group_falls_below_the_minimum(scope: str) -> None:
    plan = chosen(traced(4, 10, 20, 2, 3), 0.5, scope=scope, min_units=6)
    assert min(counts(plan)[:2]) >= 6
    assert counts(plan)[2] == 2  # as many as it has


# parameters


def params_left(graph: niwaki.Graph, plan: Plan) -> int:
    return sum(math.prod(shape) for shape in graph.shapes_after(plan.kept).values())


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    ("widths", "share"),
    [
        *(((6, 20, 30, 11, 4), share) for share in (0.0, 0.1, 0.37, 0.5, 0.8)),
        ((17, 13, 20, 8, 18), 0.5),  # steps of two groups lie close together
        ((13, 11, 13, 20, 6, 11), 0.7),
        ((9, 16, 14, 20), 0.5),
    ],
)
def test_parameters_go_as_asked_and_not_a_step_further(
    scope: Scope, widths: tuple[int, ...], share: float
) -> None:
    graph = traced(*widths)
    scores, whole = niwaki.score(graph, "l2"), niwaki.count_params(graph.model)
    selection = niwaki.Selection(scope=scope)
    plan = niwaki.select(niwaki.Scores(graph, scores), f"params={share}", selection).plan
    assert 1 - params_left(graph, plan) / whole >= share
    # by trying all shares of channels: none that keeps more is enough
    tried = (
        [i / 4000 for i in range(4000)]
        if scope == "local"
        else [i / total_units(graph) for i in range(total_units(graph))]
    )
    found = [plan_or_none(graph, scores, channels, selection) for channels in tried]
    plans = list({tuple(counts(p)): p for p in found if p}.values())
    enough = [params_left(graph, p) for p in plans if 1 - params_left(graph, p) / whole >= share]
    assert params_left(graph, plan) == max(enough)


def total_units(graph: niwaki.Graph) -> int:
    return sum(group.width for group in graph.groups)


def plan_or_none(
    graph: niwaki.Graph, scores: Any, share: float, selection: niwaki.Selection
) -> Plan | None:
    try:
        return niwaki.select(niwaki.Scores(graph, scores), share, selection).plan
    except BudgetError:
        return None


def test_a_share_of_parameters_counts_the_model_that_comes_out() -> None:
    graph = traced(6, 20, 30, 4)
    plan = chosen(graph, "params=0.6")
    pruned = niwaki.shrink(niwaki.Cut(graph, plan))
    assert niwaki.count_params(pruned) == params_left(graph, plan)
    assert niwaki.count_params(pruned) <= 0.4 * niwaki.count_params(graph.model)


# what cannot be had


def test_a_budget_out_of_reach_says_what_is_within() -> None:
    graph = traced(6, 20, 30, 4)
    with pytest.raises(
        BudgetError, match=r"cannot remove 90.0% of the parameters; with at least 15 units left"
    ) as caught:
        chosen(graph, "params=0.9", min_units=15)
    reachable = float(str(caught.value).split("at most ")[1].split("%")[0]) / 100
    assert niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l2")),
        f"params={reachable - 0.001}",
        niwaki.Selection(min_units=15),
    ).plan
    with pytest.raises(
        BudgetError,
        match=r"cannot remove 45 of 50 channels with at least 15 units left .* at most 20 can go \(a share of 0.4\)",
    ):
        chosen(graph, 0.9, scope="global", min_units=15)
    assert counts(chosen(graph, 0.4, scope="global", min_units=15)) == [15, 15]


@pytest.mark.parametrize("amount", [-0.1, 1, 1.5, math.nan, math.inf])
def test_a_share_outside_of_0_to_1_is_refused(amount: float) -> None:
    with pytest.raises(BudgetError, match=r"must be in \[0, 1\), where 0.5 removes half; got"):
        niwaki.Budget(amount)
    with pytest.raises(BudgetError, match=r"must be in \[0, 1\)"):
        chosen(traced(3, 4, 2), amount)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.5", niwaki.Budget(0.5)),
        ("channels=0.25", niwaki.Budget(0.25)),
        ("params=0.1", niwaki.Budget(0.1, "params")),
    ],
)
def test_budgets_are_read_as_they_are_written(text: str, budget: niwaki.Budget) -> None:
    assert niwaki.Budget.parse(text) == budget
    assert niwaki.Budget.parse(str(budget)) == budget
    assert niwaki.Budget.parse(budget) is budget


def test_budgets_that_cannot_be_read() -> None:
    with pytest.raises(BudgetError, match="cannot read the budget 'half'; write 0\\.5, channels="):
        niwaki.Budget.parse("half")
    with pytest.raises(UnknownNameError, match="unknown budget 'parms'; did you mean 'params'"):
        niwaki.Budget.parse("parms=0.5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scope": "globl"}, "unknown scope 'globl'; did you mean 'global'"),
        ({"rounding": "flor"}, "unknown rounding 'flor'; did you mean 'floor'"),
        ({"min_units": 0}, "min_units must be a whole number of at least 1; got 0"),
        ({"multiple": 1.5}, "multiple must be a whole number of at least 1; got 1.5"),
    ],
)
def test_settings_of_a_selection_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((UnknownNameError, SettingError), match=message):
        niwaki.Selection(**settings)


# which groups


def test_patterns_are_on_the_names_of_layers() -> None:
    graph = traced(4, 8, 8, 8, 2)
    assert [g.name for g in graph.groups] == ["0", "2", "4"]
    assert list(chosen(graph, 0.5, only=("[02]",))) == ["0", "2"]
    assert list(chosen(graph, 0.5, skip=("2",))) == ["0", "4"]
    assert list(chosen(graph, 0.5, only=("?",), skip=("0", "4"))) == ["2"]


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(
        SettingError, match=re.escape("no group has a layer named like 'layer*'; groups are: 0, 2")
    ):
        chosen(traced(4, 8, 8, 2), 0.5, only=("layer*",))
    with pytest.raises(BudgetError, match="no group of channels can be pruned"):
        chosen(traced(4, 8, 8, 2), 0.5, skip=("*",))


def test_a_stream_is_known_by_any_layer_that_writes_it() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.out = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            out: Tensor = self.out(x + self.branch(torch.relu(x)))
            return out

    graph = niwaki.trace(Stream(), torch.randn(2, 3))
    assert graph["stem"].layers == ("stem", "branch")
    assert list(chosen(graph, 0.5, only=("branch",))) == ["stem"]


@pytest.mark.parametrize("scores", [torch.full((8,), math.nan), torch.ones(7), None])
def test_scores_that_are_none_are_refused(scores: Tensor | None) -> None:
    graph = traced(4, 8, 2)
    with pytest.raises(
        SettingError, match=r"group '0' needs 8 finite scores|no scores for group '0'; leave it out"
    ):
        niwaki.select(niwaki.Scores(graph, {} if scores is None else {"0": scores}), 0.5)


# plans


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the plan is not JSON"),
        ("[]", "the plan has schema None; this niwaki reads schema 2"),
        ('{"schema": 9, "groups": {}}', "the plan has schema 9"),
        ('{"schema": 1}', "the plan has no table 'groups'"),
        ('{"schema": 1, "groups": {"a": {"width": 3}}}', "group 'a' of the plan needs"),
        (
            '{"schema": 1, "groups": {"a": {"width": 3, "kept": [0, 3]}}}',
            "group 'a' of the plan: kept units must be integers from 0 to 2",
        ),
        ('{"schema": 1, "groups": {"a": {"width": 3, "kept": [1, 0]}}}', "ascending"),
        ('{"schema": 1, "groups": {"a": {"width": 3, "kept": []}}}', "at least one"),
        ('{"schema": 1, "groups": {"a": {"width": 3, "kept": [0.5]}}}', "integers"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Plan.from_json(text)


def test_a_plan_prints_what_it_keeps() -> None:
    plan = Plan({"conv1": Kept(8, (0, 2)), "fc": Kept(4, (0, 1, 2, 3))})
    assert str(plan).split() == ["conv1", "2", "of", "8", "fc", "4", "of", "4"]
    assert plan.kept == {"conv1": (0, 2)}


def test_half_of_crossing_groups_is_a_half() -> None:
    """Convolution groups and the channels in a group are rows and columns of one axis: half of both
    would be 3/4 gone.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )
    graph = niwaki.trace(model, torch.randn(1, 3, 6, 6))
    assert graph.crossing == {"0": {"0#2", "2"}, "0#2": {"0"}, "2": {"0"}}
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5).plan
    smaller = niwaki.shrink(niwaki.Cut(graph, plan))
    assert within.size(smaller, "2.out_channels") == 8
    named = niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5, niwaki.Selection(only=("0#2",))
    ).plan
    assert list(named) == ["0#2"]
