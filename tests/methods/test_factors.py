"""Factors on units and branches: they change nothing at one, fold exactly, reach exact zeros, and
move as their formulas say.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import within
import zoo
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.methods.factors import (
    AcceleratedProximalGradient,
    Fista,
    block_soft_threshold,
    factors_of,
    fold_factors,
    others,
    places,
    plan_of_zeros,
    soft_threshold,
    with_factors,
    zero_branches,
)
from niwaki.methods.factors._places import Over
from niwaki.methods.factors.proximal import Proximal
from niwaki.methods.structure_selection import StructureSelection
from niwaki.running import call, tensors_in

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        return [
            out for out in tensors_in(call(model, copy.deepcopy(inputs))) if out.is_floating_point()
        ]


@pytest.mark.parametrize("over", ["units", "branches"])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_ones_change_nothing_any_factor_folds_exactly_and_zeros_can_be_cut(
    name: str, over: Over
) -> None:
    model = zoo.build(name, None if name in ("Float16", "Bfloat16") else torch.float64)
    inputs = zoo.inputs(model, 1)
    graph = niwaki.trace(model, inputs)
    fitting, refused = places(graph, over)
    assert all(refused.values())
    if not fitting:
        with pytest.raises(SettingError, match="no factor"):
            with_factors(graph, over)
        return
    factored = with_factors(graph, over)
    for found, wanted in zip(outputs(factored, inputs), outputs(model, inputs), strict=True):
        assert torch.equal(found, wanted)
    torch.manual_seed(0)
    with torch.no_grad():
        for factor in factors_of(factored).values():
            factor.copy_(torch.rand_like(factor) + 0.5)
            factor[0] = 0
    folded = fold_factors(factored)
    for found, wanted in zip(outputs(folded, inputs), outputs(factored, inputs), strict=True):
        assert torch.equal(found, wanted)
    assert folded.state_dict().keys() == graph.model.state_dict().keys()
    if over == "branches":
        assert zero_branches(factored) == tuple(place.name for place in fitting)
        return
    plan = plan_of_zeros(graph, factored)
    assert all(kept.units == tuple(range(1, kept.width)) for kept in plan.values())
    assert len(plan.units) == len(fitting)


def test_a_branch_with_the_factor_zero_is_gone_without_a_trace() -> None:
    model = zoo.build("IdentityShortcut", torch.float64)
    inputs = zoo.inputs(model, 1)
    graph = niwaki.trace(model, inputs)
    factored = with_factors(graph, "branches")
    with torch.no_grad():
        factors_of(factored)["block"].zero_()
    folded = fold_factors(factored)
    shallow = niwaki.drop_branches(folded, inputs, names=zero_branches(factored))
    assert shallow.dropped == ("block",)
    torch.testing.assert_close(shallow.model(inputs), factored(inputs), rtol=1e-12, atol=1e-12)


def test_units_with_the_factor_zero_are_cut_without_a_trace() -> None:
    model = zoo.build("IdentityShortcut", torch.float64)
    inputs = zoo.inputs(model, 1)
    graph = niwaki.trace(model, inputs)
    factored = with_factors(graph)
    with torch.no_grad():
        for factor in factors_of(factored).values():
            factor[[1, 4]] = 0
            factor[0] = 0.3
    plain = niwaki.trace(fold_factors(factored), inputs)
    smaller = niwaki.shrink(niwaki.Cut(plain, plan_of_zeros(graph, factored)))
    torch.testing.assert_close(smaller(inputs), factored(inputs), rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_group_whose_factors_are_all_zero_keeps_one_unit() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    graph = niwaki.trace(model, torch.randn(1, 2))
    factored = with_factors(graph)
    with torch.no_grad():
        factors_of(factored)["0"].zero_()
    assert plan_of_zeros(graph, factored).kept == {"0": (0,)}


def test_weights_that_layers_share_get_no_factor_and_it_is_said() -> None:
    model = zoo.build("TiedWeights")
    _, refused = places(niwaki.trace(model, zoo.inputs(model, 1)), "units")
    assert any("belongs to several layers" in reason for reason in refused.values())


def test_a_layer_that_keeps_a_list_of_its_weights_gets_no_factor() -> None:
    model = zoo.build("LstmInside")
    fitting, refused = places(niwaki.trace(model, zoo.inputs(model, 1)), "units")
    assert [place.name for place in fitting] == ["hidden"]
    assert "keeps a list of its weights" in refused["lstm"]


def test_proximal_maps_are_minimisers() -> None:
    """argmin of ½(x - v)² + t·|x| on a fine grid, and of the block form by its optimality."""
    grid = torch.linspace(-5, 5, 200_001, dtype=torch.float64)
    for value, amount in ((3.0, 1.0), (-0.5, 1.0), (-2.0, 0.3)):
        best = grid[((grid - value).square() / 2 + amount * grid.abs()).argmin()]
        found = soft_threshold(torch.tensor([value], dtype=torch.float64), amount)
        assert float(found) == pytest.approx(float(best), abs=1e-4)
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    found = block_soft_threshold(rows, 1.0)
    torch.testing.assert_close(found[0], torch.tensor([2.4, 3.2], dtype=torch.float64))
    assert found[1].tolist() == found[2].tolist() == [0, 0]
    slope = found[0] - rows[0] + 1.0 * found[0] / found[0].norm()
    assert slope.abs().max() < 1e-12


class Line(nn.Module):
    """One group of three units, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x).relu())
        return out


def factored_line() -> nn.Module:
    torch.manual_seed(0)
    return with_factors(niwaki.trace(Line().double(), torch.randn(2, 2, dtype=torch.float64)))


def test_accelerated_steps_are_equations_10_to_12() -> None:
    model, step = factored_line(), AcceleratedProximalGradient(1.0, 0.1)
    factor = factors_of(model)["a"]
    generator = torch.Generator().manual_seed(0)
    value, velocity = [1.0] * 3, [0.0] * 3
    for _ in range(25):
        slopes = torch.randn(3, generator=generator, dtype=torch.float64)
        factor.grad = slopes.clone()
        step(model)
        assert factor.grad is None
        for unit in range(3):
            ahead = value[unit] - 0.1 * float(slopes[unit])
            z = math.copysign(max(0.0, abs(ahead) - 0.1), ahead)
            velocity[unit] = z - value[unit] + 0.9 * velocity[unit]
            value[unit] = max(0.0, z + 0.9 * velocity[unit])
        assert factor.detach().tolist() == pytest.approx(value, abs=1e-10)
    model, step = factored_line(), AcceleratedProximalGradient(1.0, 0.1)
    factors_of(model)["a"].grad = torch.full((3,), 0.5, dtype=torch.float64)
    step(model)
    assert factors_of(model)["a"].tolist() == pytest.approx([0.715] * 3)


@pytest.mark.parametrize("signed", [False, True])
def test_fista_steps_are_those_of_beck_and_teboulle(signed: bool) -> None:
    model, step = (
        factored_line(),
        Fista(0.3, lambda number: 0.1 / (1 + number), every=2, signed=signed),
    )
    factor = factors_of(model)["a"]
    generator = torch.Generator().manual_seed(0)
    value, before, a = [1.0] * 3, [1.0] * 3, 1.0
    for number in range(12):
        slopes = torch.randn(3, generator=generator, dtype=torch.float64)
        factor.grad = slopes.clone()
        step(model)
        if number % 2 == 1:
            rate, new = 0.1 / (1 + number), (1 + math.sqrt(1 + 4 * a * a)) / 2
            for unit in range(3):
                y = value[unit] + (a - 1) / new * (value[unit] - before[unit])
                slope = float(slopes[unit]) + (0.3 * (value[unit] > 0) if signed else 0.0)
                ahead = y - rate * slope
                before[unit] = value[unit]
                value[unit] = max(0.0, math.copysign(max(0.0, abs(ahead) - rate * 0.3), ahead))
            a = new
        assert factor.detach().tolist() == pytest.approx(value, abs=1e-10)
    step.restart()
    assert step.momentum == 1.0


@pytest.mark.parametrize("kind", [Proximal, AcceleratedProximalGradient, Fista])
def test_a_lasso_is_solved_to_its_exact_support(kind: type[Proximal]) -> None:
    """½‖y - X·f‖² with an orthonormal X: the answer is S(Xᵀ·y), where negative, 0."""
    model, step = factored_line(), kind(0.5, 0.3)
    factor = factors_of(model)["a"]
    target = torch.tensor([2.0, 0.4, -1.0], dtype=torch.float64)
    for _ in range(400):
        (factor - target).square().sum().div(2).backward()
        step(model)
    assert factor[0].item() == pytest.approx(1.5, abs=1e-3)
    assert factor[1:].tolist() == [0, 0]


def test_sss_finds_the_units_that_the_answer_needs() -> None:
    """Only units 1 and 2 of the trained network are needed: the others end at exactly zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    with torch.no_grad():
        within.tensor(model, "2.weight")[:, [0, 3, 4, 5]] *= 1e-3
        within.tensor(model, "2.weight")[:, [1, 2]] = 2.0
    inputs = torch.randn(256, 3, dtype=torch.float64)
    wanted = model(inputs).detach()
    graph, method = niwaki.trace(model, inputs), StructureSelection(reg=0.05)
    student = method.prepare(graph)
    step, optimizer = method.after_step(0.05), torch.optim.SGD(method.weights(student), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(student(inputs), wanted).backward()
        optimizer.step()
        step(student)
    plan = method.plan(graph, student)
    assert plan.kept == {"0": (1, 2)}
    folded = method.folded(student)
    smaller = niwaki.shrink(niwaki.Cut(niwaki.trace(folded, inputs), plan))
    torch.testing.assert_close(smaller(inputs), student(inputs), rtol=1e-12, atol=1e-12)
    scores = niwaki.score(graph, method.criterion(student))["0"]
    assert scores.nonzero()[:, 0].tolist() == [1, 2]


def test_settings_and_models_without_factors_are_refused() -> None:
    with pytest.raises(SettingError, match="no factors"):
        Fista(0.1)(nn.Linear(2, 2))
    with pytest.raises(SettingError, match="reg"):
        Fista(-1.0)
    with pytest.raises(SettingError, match="lr"):
        Fista(1.0, 0.0)
    with pytest.raises(UnknownNameError, match="known: branches, units"):
        StructureSelection(over="layers")  # type: ignore[arg-type]  # refused
    with pytest.raises(SettingError, match="momentum"):
        StructureSelection(momentum=1.0)
    model = factored_line()
    assert len(others(model)) == 4
