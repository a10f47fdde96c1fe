"""The criterion that chooses for the user."""

from __future__ import annotations

import pytest
import torch
import within
from torch import nn

import niwaki


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def test_with_calibration_it_is_reconstruct() -> None:
    model, inputs = network(), torch.randn(64, 6)
    said: list[str] = []
    graph, seen = niwaki.trace(model, inputs), niwaki.Calibration.of([inputs])
    scores = niwaki.score(graph, "auto", calibration=seen, say=said.append)
    torch.testing.assert_close(
        scores["0"], niwaki.score(graph, "reconstruct", calibration=seen)["0"]
    )
    assert said == ["criterion: reconstruct, as there are calibration inputs"]


def test_without_it_takes_what_answers_most_like_the_original() -> None:
    model, inputs = network(), torch.randn(32, 6)
    with torch.no_grad():  # large rows that nobody reads: norms of rows are fooled
        within.tensor(model, "0.weight")[:8] *= 10  # a Linear
        within.tensor(model, "2.weight")[:, :8] = 0
    result = niwaki.prune(model, inputs, 0.5, criterion="auto")
    assert result.plan["0"].units == tuple(range(8, 16))
    notes = [note for note in result.record.notes if note.startswith("criterion: ")]
    assert len(notes) == 1
    assert "l2 " in notes[0]
    with torch.no_grad():
        torch.testing.assert_close(result.model(inputs), model(inputs))


@pytest.mark.parametrize("scope", ["global", "auto"])
def test_its_scores_can_be_compared_between_groups(scope: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    result = niwaki.prune(model, torch.randn(16, 6), "params=0.4", criterion="auto", scope=scope)
    assert result.record.after.params <= 0.6 * result.record.before.params
