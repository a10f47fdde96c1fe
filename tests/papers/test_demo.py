"""The demo runs from training to a saved network, and the README shows what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import niwaki
from niwaki.papers.digits import demo
from niwaki.training import TrainSettings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "demo.txt"  # made by: niwaki demo > tests/golden/demo.txt


def test_a_short_demo_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PAIRS", (("l1", "none"), ("l1", "moments")))
    monkeypatch.setattr(demo, "RATIOS", (0.5,))
    monkeypatch.setattr(demo, "TRAINING", TrainSettings(epochs=1, lr=0.05))
    monkeypatch.setattr(demo, "TUNING", TrainSettings(epochs=1, lr=0.02))
    lines: list[str] = []
    outcome = demo.run_demo(tmp_path / "demo", say=lines.append)
    assert [line for line in lines if line.startswith("pruning by")] == [
        "pruning by l1, repaired by none",
        "pruning by l1, repaired by moments",
    ]
    assert outcome.picture.read_bytes().startswith(b"\x89PNG")
    smaller = niwaki.load(outcome.artefact)
    assert niwaki.count_params(smaller) == outcome.best.after.params < outcome.best.before.params
    with torch.no_grad():
        assert smaller(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_the_readme_shows_what_the_demo_printed() -> None:
    table = GOLDEN.read_text(encoding="utf-8").rstrip()
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")
