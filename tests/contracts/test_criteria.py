"""What every criterion owes: one finite score a unit, the same for the same seed, the number that
its definition gives.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import within
import zoo
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.norms import L1

# three units with (weights, bias): (3, 4 | 0), (0, 0 | 1), (1, 0 | -2)
WEIGHT, BIAS = [[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], [0.0, 1.0, -2.0]
BY_HAND = {
    "l1": [7.0, 1.0, 3.0],
    "l2": [5.0, 1.0, math.sqrt(5)],
    "l2-gm": [
        math.sqrt(9 + 16 + 1) + math.sqrt(4 + 16 + 4),
        math.sqrt(9 + 16 + 1) + math.sqrt(1 + 9),
        math.sqrt(4 + 16 + 4) + math.sqrt(1 + 9),
    ],
    "pruning-filters": [7.0, 0.0, 1.0],
    "lamp": [25 / 25, 1 / 31, 5 / 30],
}
COMPARABLE = {"lamp"}  # not divided by their mean


def tiny() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        within.tensor(model, "0.weight").copy_(torch.tensor(WEIGHT))
        within.tensor(model, "0.bias").copy_(torch.tensor(BIAS))
    return model


def divided_by_mean(values: list[float]) -> Tensor:
    scores = torch.tensor(values, dtype=torch.float64)
    return scores / scores.mean()


@pytest.mark.parametrize("name", BY_HAND)
def test_the_value_is_that_of_the_definition(name: str) -> None:
    graph = niwaki.trace(tiny(), torch.randn(2, 2))
    raw = CRITERIA.build(name).score(graph["0"], niwaki.Evidence(graph))
    assert raw.double().tolist() == pytest.approx(BY_HAND[name], rel=1e-12)
    expected = torch.tensor(BY_HAND[name], dtype=torch.float64)
    expected = expected if name in COMPARABLE else divided_by_mean(BY_HAND[name])
    assert niwaki.score(graph, name)["0"].tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_every_criterion_but_chance_has_a_value_by_hand() -> None:
    # chance has none; the others' are in tests/methods
    elsewhere = {"random", "bn-scale", "mint", "reconstruct", "fold"}
    elsewhere |= {"taylor", "taylor-activation", "fisher", "hessian"}  # test_differentiated.py
    elsewhere |= {"wanda", "flap", "isomorphic"}  # test_named_criteria.py
    elsewhere |= {"nisp", "thinet"}  # test_nisp.py, test_thinet.py
    elsewhere |= {"auto"}  # one of the others
    assert set(CRITERIA) == {*BY_HAND, *elsewhere}


def test_chance_is_uniform_and_not_divided() -> None:
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(2, 4000), nn.ReLU(), nn.Linear(4000, 1)), torch.randn(2, 2)
    )
    scores = niwaki.score(graph, "random")["0"]
    assert scores.min() >= 0
    assert scores.max() < 1
    assert scores.mean().item() == pytest.approx(0.5, abs=0.03)
    assert scores.unique().numel() == 4000


def test_chance_differs_between_groups_and_seeds() -> None:
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1)),
        torch.randn(2, 2),
    )
    first, second = niwaki.score(graph, "random", seed=1), niwaki.score(graph, "random", seed=2)
    assert not torch.equal(first["0"], first["2"])
    assert not torch.equal(first["0"], second["0"])


def test_a_convolution_is_scored_over_its_whole_filter() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 1))
    graph = niwaki.trace(model, torch.randn(1, 2, 5, 5))
    raw = CRITERIA.build("l1").score(graph["0"], niwaki.Evidence(graph))
    assert raw.tolist() == pytest.approx(
        [within.tensor(model, "0.weight")[i].abs().sum().item() for i in range(3)], rel=1e-6
    )


def test_a_residual_stream_is_scored_over_all_who_write_it() -> None:
    model = zoo.build("IdentityShortcut", torch.float64)
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    assert set(graph["stem"].layers) == {"stem", "block.conv2"}
    state = dict(model.named_parameters())
    by_hand = [
        (
            state["stem.weight"][i].abs().sum()
            + state["stem.bias"][i].abs()
            + state["block.conv2.weight"][i].abs().sum()
        ).item()
        for i in range(8)
    ]
    raw = CRITERIA.build("l1").score(graph["stem"], niwaki.Evidence(graph))
    assert raw.tolist() == pytest.approx(by_hand)


# settings for criteria that are slow, or need more samples, by default
QUICK = {"mint": "mint:groups=2,samples=24"}
QUICK |= {name: f"{name}:batches=2" for name in ("taylor", "taylor-activation")}
QUICK |= {name: f"{name}:batches=2,draws=1" for name in ("fisher", "hessian")}


@pytest.mark.filterwarnings(
    "ignore:.*dead units", "ignore:.*units in", "ignore:hessian. squared gradients"
)
# every criterion meets a quarter of the models, and every model a quarter of the criteria
@pytest.mark.parametrize(
    ("model", "name"),
    [
        (model, name)
        for row, model in enumerate(zoo.MODELS)
        for column, name in enumerate(CRITERIA)
        if (row + column) % 4 == 0
    ],
)
def test_one_finite_score_a_unit_the_same_by_seed(model: str, name: str) -> None:
    module = zoo.build(model)
    graph = niwaki.trace(module, zoo.inputs(module, 1))
    scored = [group for group in graph.groups if group.scales or name != "bn-scale"]
    if graph.groups and not scored:
        with pytest.raises(SettingError, match="the criteria l1 and l2 read the weights"):
            niwaki.score(graph, name)
        return
    random = torch.get_rng_state()
    seen, spec = zoo.calibration(module), QUICK.get(name, name)
    scores = niwaki.score(graph, spec, calibration=seen, seed=3)
    again = niwaki.score(graph, CRITERIA.build(spec), calibration=seen, seed=3)
    assert torch.equal(random, torch.get_rng_state())
    assert {key: value.shape for key, value in scores.items()} == {
        group.name: (group.width,) for group in scored
    }
    for key, value in scores.items():
        assert value.dtype == torch.float64
        assert bool(torch.isfinite(value).all())
        assert torch.equal(value, again[key])


class Constant(Criterion):
    """All units are worth nothing: there is no mean to divide by."""

    def score(self, group: niwaki.Group, evidence: niwaki.Evidence) -> Tensor:
        return torch.zeros(group.width)


def test_a_criterion_of_the_users_own_is_taken() -> None:
    graph = niwaki.trace(tiny(), torch.randn(2, 2))
    assert niwaki.score(graph, Constant())["0"].tolist() == [0, 0, 0]
    assert niwaki.select(niwaki.Scores(graph, niwaki.score(graph, Constant())), 0.34).plan.kept == {
        "0": (0, 1)
    }


def test_a_function_is_a_criterion() -> None:
    graph = niwaki.trace(tiny(), torch.randn(2, 2))
    largest = niwaki.score(graph, lambda group, evidence: group.rows(evidence.state).amax(1))
    torch.testing.assert_close(largest["0"], divided_by_mean([4, 1, 1]))
    result = niwaki.prune(
        tiny(), torch.randn(2, 2), criterion=weakest_first, budget=0.34, compensation="none"
    )
    assert result.plan.kept == {"0": (1, 2)}
    assert result.record.settings["criterion"] == "weakest_first"


def weakest_first(group: niwaki.Group, evidence: niwaki.Evidence) -> Tensor:
    return -group.rows(evidence.state).abs().sum(1)


@pytest.mark.parametrize(
    "given", [lambda group, evidence: torch.zeros(2), lambda group, evidence: 1]
)
def test_a_function_that_gives_no_scores_is_refused_with_the_shape_that_it_owes(given: Any) -> None:
    with pytest.raises(SettingError, match=r"tensor of shape \(3,\), one score a unit"):
        niwaki.score(niwaki.trace(tiny(), torch.randn(2, 2)), given)


@pytest.mark.parametrize("given", [3, L1, None])
def test_what_is_no_criterion_is_refused(given: Any) -> None:
    with pytest.raises(SettingError, match="a criterion is a name"):
        niwaki.score(niwaki.trace(tiny(), torch.randn(2, 2)), given)


PRINT_GROUPS = """
import sys; sys.path.insert(0, {tests!r})
import niwaki, torch, zoo
from torch import nn
class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.a, self.out = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)
    def forward(self, x):
        return self.out(torch.relu(x @ (self.a.weight + self.b.weight).T))
found = [zoo.build(name) for name in ["ConcatThenConv", "WeightNorm", "FusedQkv"]]
for model, x in [(Sum(), torch.randn(2, 3)), *((model, zoo.inputs(model, 1)) for model in found)]:
    graph = niwaki.trace(model, x)
    for g in graph.groups:
        print(g.name, g.layers, [(p.tensor, p.axis, p.role.value) for p in g.slices], [w.layer for w in g.writers])
"""


def test_groups_have_the_same_names_in_every_process() -> None:
    """A plan is replayed by other processes, whose hash seeds differ."""
    code = PRINT_GROUPS.format(tests=os.path.dirname(os.path.dirname(__file__)))
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().count("\n") > 5
