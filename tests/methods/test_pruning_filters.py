"""Pruning Filters: the score without biases, shares from sensitivity curves, and the authors'
counts.
"""

from __future__ import annotations

import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.pruning_filters import filters_kept, shares_by_sensitivity


def test_the_score_is_the_sum_of_absolute_weights_without_biases() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    model = model.double().eval()
    with torch.no_grad():
        within.tensor(model, "0.bias").copy_(torch.tensor([100.0, 0.0, 50.0]))
    graph = niwaki.trace(model, torch.randn(1, 2, 5, 5, dtype=torch.float64))
    by_hand = within.tensor(model, "0.weight").detach().abs().sum((1, 2, 3))
    scores = niwaki.score(graph, "pruning-filters")["0"]
    torch.testing.assert_close(scores, by_hand / by_hand.mean(), rtol=1e-10, atol=0)
    assert not torch.equal(niwaki.score(graph, "l1")["0"].argsort(), scores.argsort())


def test_a_share_is_the_largest_up_to_which_nothing_is_lost() -> None:
    curves = {
        "a": (0.0, 0.1, 2.0),
        "b": (0.2, 3.0, 1.0),
        "c": (5.0, 0.0, 0.0),
        "d": (0.0, 0.0, 1.0),
    }
    shares = shares_by_sensitivity((0.3, 0.5, 0.7), curves, 1.0)
    assert shares == {"a": 0.5, "b": 0.3, "d": 0.7}


def test_curves_of_a_network_give_shares_to_the_layers_that_can_bear_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        within.tensor(model, "0.weight")[4:] *= 1e-4  # half of the first layer says nothing
        within.tensor(model, "0.bias")[4:] *= 1e-4
    inputs = torch.randn(64, 4)
    found = niwaki.sensitivity(
        niwaki.trace(model, inputs),
        criterion="pruning-filters",
        ratios=(0.25, 0.5, 0.75),
        compensation="moments",
        calibration=niwaki.Calibration.of([inputs]),
    )
    shares = shares_by_sensitivity(found.ratios, found.curves, 1e-4)
    assert shares.get("0") == 0.5
    assert "2" not in shares


def test_counts_are_those_of_the_authors() -> None:
    assert [filters_kept(width, 0.6) for width in (16, 32, 64)] == [6, 12, 25]
    assert filters_kept(64, 0.3) == 44
    assert filters_kept(10, 0.9) == 1


def test_nonsense_is_refused() -> None:
    with pytest.raises(SettingError, match="ascend"):
        shares_by_sensitivity((0.5, 0.3), {}, 1.0)
    with pytest.raises(SettingError, match="curve of 'a' has 1 values, not 2"):
        shares_by_sensitivity((0.3, 0.5), {"a": (1.0,)}, 1.0)
