"""ThiNet: greedy removal and least squares against brute force, and an exact repair by
construction.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept
from niwaki.graph.places import Places
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.thinet import channel_factors, removal_order, summands

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_worked_example() -> None:
    rows = torch.tensor([[3.0, 1.0, -3.0], [2.0, 1.0, -2.0]], dtype=torch.float64)
    assert removal_order(rows).tolist() == [1, 2, 0]
    assert channel_factors(rows, (0,)).tolist() == pytest.approx([5 / 13])


def test_greedy_removal_is_that_of_algorithm_1() -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 7, dtype=torch.float64) + 0.3
    gone: list[int] = []
    while len(gone) < 7:
        left = {
            channel: float(rows[:, [*gone, channel]].sum(1).square().sum())
            for channel in range(7)
            if channel not in gone
        }
        gone.append(min(left, key=lambda channel: left[channel]))
    assert removal_order(rows).tolist() == gone


def test_factors_are_the_normal_equations() -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 7, dtype=torch.float64)
    kept = rows[:, [1, 2, 5]]
    by_hand = torch.linalg.solve(kept.T @ kept, kept.T @ rows.sum(1))
    torch.testing.assert_close(channel_factors(rows, (1, 2, 5)), by_hand, rtol=1e-10, atol=0)


def test_summands_add_up_to_what_the_reader_computes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(80, 3),
    )
    model = model.double()
    inputs = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    graph = niwaki.trace(model, inputs)
    evidence = niwaki.Evidence(graph, niwaki.Calibration.of([inputs]))
    parts = summands(evidence, list(graph.groups), 10, 10_000)
    generator = torch.Generator().manual_seed(0)
    maps = Places.of(inputs, 10)(
        (model[2](model[:2](inputs)) - within.tensor(model, "2.bias").view(-1, 1, 1)).flatten(2)
    )
    rows = maps.movedim(1, 2).flatten(0, 1)
    outputs = torch.randint(5, (len(rows),), generator=generator)
    expected = rows.gather(1, outputs[:, None])[:, 0]
    torch.testing.assert_close(parts["0"].sum(1), expected.detach(), rtol=1e-10, atol=1e-12)
    # a flattened map is read at 16 places a unit
    values = model[:5](inputs)
    outputs = torch.randint(3, (3,), generator=generator)
    by_hand = (values * within.tensor(model, "5.weight")[outputs]).view(3, 5, 16).sum(2)
    torch.testing.assert_close(parts["2"], by_hand.detach(), rtol=1e-10, atol=1e-12)


def test_units_that_cancel_go_first_and_factors_mend_a_doubled_unit_exactly() -> None:
    """Units 0 and 1 are the same, 2 and 3 cancel one another: half can go without any loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    with torch.no_grad():
        for name in ("0.weight", "0.bias"):
            values = within.tensor(model, name)
            values[1], values[3] = values[0], values[2]
        within.tensor(model, "0.bias").add_(2)
        within.tensor(model, "2.weight")[:, 1] = within.tensor(model, "2.weight")[:, 0]
        within.tensor(model, "2.weight")[:, 3] = -within.tensor(model, "2.weight")[:, 2]
    inputs = torch.randn(400, 3, dtype=torch.float64)
    graph, seen = niwaki.trace(model, inputs), niwaki.Calibration.of([inputs])
    order = niwaki.score(graph, "thinet", calibration=seen)["0"]
    assert sorted(order.tolist()) == pytest.approx([turn / 3.5 for turn in range(1, 7)])
    plan = niwaki.Plan({"0": Kept(6, (0, 4, 5))})
    repair = niwaki.compensate(niwaki.Cut(graph, plan), "thinet", calibration=seen)
    factors = repair.mixings["0"].matrix[[0, 4, 5], [0, 1, 2]]
    torch.testing.assert_close(factors, torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, repair.mixings))
    torch.testing.assert_close(pruned(inputs), model(inputs), rtol=1e-9, atol=1e-9)


def test_what_goes_is_near_the_best_of_all_subsets() -> None:
    torch.manual_seed(0)
    rows = torch.randn(60, 6, dtype=torch.float64)
    left = {
        gone: float(rows[:, list(gone)].sum(1).square().sum())
        for gone in itertools.combinations(range(6), 3)
    }
    greedy = tuple(sorted(removal_order(rows)[:3].tolist()))
    assert left[greedy] <= 1.5 * min(left.values())


def test_groups_that_no_product_reads_follow_their_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))
    inputs = torch.randn(2, 1, 5, 5)
    graph, seen = niwaki.trace(model, inputs), niwaki.Calibration.of([inputs])
    scores, norms = niwaki.score(graph, "thinet", calibration=seen), niwaki.score(graph, "l2")
    for name in scores:
        assert torch.equal(scores[name].argsort(), norms[name].argsort())


def test_settings_are_checked_and_inputs_are_needed() -> None:
    for registry in (CRITERIA, COMPENSATIONS):
        with pytest.raises(SettingError, match="at least 1"):
            registry.build("thinet:places=0")
