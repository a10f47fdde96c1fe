"""Counted moments, and for how many rows they count."""

from __future__ import annotations

import pytest
import torch

from niwaki.graph.places import Places
from niwaki.methods.moments.accumulate import Moments


def counted(rows: torch.Tensor, inputs: int, piece: int) -> Moments:
    """The moments of rows (inputs · m, width), a few inputs at a time."""
    moments = Moments(rows.shape[1])
    each = len(rows) // inputs
    for start in range(0, inputs, piece):
        some = rows[start * each : (start + piece) * each]
        moments.add(some, "here", len(some) // each)
    return moments


def test_rows_that_tell_different_things_count_fully() -> None:
    rows = torch.randn(400 * 16, 8, generator=torch.Generator().manual_seed(0))
    assert counted(rows, 400, 50).effective == pytest.approx(400 * 16, rel=0.1)


def test_rows_that_repeat_each_other_count_as_one_an_input() -> None:
    inputs = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    assert counted(inputs.repeat_interleave(16, 0), 400, 50).effective == pytest.approx(
        400, rel=1e-4
    )


def test_rows_that_share_half_of_their_variance_count_in_between() -> None:
    # m rows whose correlation within an input is r have a design effect of 1 + (m - 1)·r
    generator = torch.Generator().manual_seed(0)
    shared, own = (
        torch.randn(2000, 1, 6, generator=generator),
        torch.randn(2000, 9, 6, generator=generator),
    )
    rows = ((shared + own) / 2**0.5 + 3).flatten(0, 1)
    assert counted(rows, 2000, 100).effective == pytest.approx(2000 * 9 / (1 + 8 * 0.5), rel=0.05)


def test_what_they_count_for_does_not_hang_on_the_batches() -> None:
    rows = torch.randn(60 * 4, 5, generator=torch.Generator().manual_seed(0)).cumsum(0)
    assert counted(rows, 60, 60).effective == pytest.approx(
        counted(rows, 60, 7).effective, rel=1e-6
    )


def test_constant_rows_count_each() -> None:
    assert counted(torch.ones(12, 3), 3, 1).effective == 12


def inputs_of(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 5, 7, generator=torch.Generator().manual_seed(1))


def test_places_are_spread_evenly_and_differ_by_input() -> None:
    maps = torch.arange(32 * 32.0).expand(50, 2, -1)
    chosen = Places.of(inputs_of(50), 8)(maps)
    assert chosen.shape == (50, 2, 8)
    assert torch.equal(
        chosen[:, 0].div(128).floor(), torch.arange(8.0).expand(50, 8)
    )  # one of each eighth
    assert len(chosen[:, 0].unique()) > 250
    columns = chosen[:, 0].remainder(32).flatten().histc(8, 0, 32)
    assert columns.min() > 35  # of 50 on average


def test_an_inputs_places_hang_on_nothing_but_the_input() -> None:
    inputs, maps = inputs_of(12), torch.arange(100.0).expand(12, 1, -1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    whole = Places.of(inputs, 5)(maps)
    assert torch.equal(Places.of(inputs[order], 5)(maps), whole[order])
    assert torch.equal(Places.of(inputs[3:4], 5)(maps[:1]), whole[3:4])


def test_windows_of_an_input_get_places_of_their_own_and_small_maps_are_taken_whole() -> None:
    inputs, maps = inputs_of(2), torch.arange(64.0).expand(8, 1, -1)
    chosen = Places.of(inputs, 4)(maps)
    assert chosen.shape == (8, 1, 4)
    assert len({tuple(row) for row in chosen[:4, 0].tolist()}) == 4
    assert torch.equal(Places.of(inputs, 64)(maps), maps)
    assert Places.of(inputs, 4)(maps[:7]).shape == (7, 1, 4)  # no multiple of the inputs
