"""Optuna fills the placeholders, best trial first, and a second call asks for the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from niwaki.core.errors import MissingExtraError, SettingError
from niwaki.core.work import Workers
from niwaki.sweep import Common, Grid, SweepFolder, run_cells
from niwaki.sweep.cell import Outcome
from niwaki.sweep.run import Pairs
from niwaki.sweep.search import Range, search

GRID = Grid(("digits-cnn",), repairs=("merge:threshold={t}",), seeds=(0, 1))
RANGE = (Range("t", (), 0.0, 1.0),)


def outcome(accuracy: float) -> Outcome:
    measured = {
        "accuracy": accuracy, "loss": 1.0, "params": 1, "macs": 1, "latency_ms": 1.0, "bytes": 4,
        "latency_spread_ms": 0.0, "samples": 1, "non_finite": 0,
    }  # fmt: skip
    record = {
        "before": measured, "after": measured, "settings": {}, "seed": 0, "seconds": {},
        "notes": [], "versions": {}, "hardware": {}, "created": "", "schema": 1,
    }  # fmt: skip
    return {"status": "done", "record": record, "plan": {"schema": 1, "groups": {}}}


class Hill:
    """Best at 0.3; below 0.1 every cell fails."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, shared: dict[str, Any], words: dict[str, Any]) -> Outcome:
        threshold = float(words["repair"].partition("=")[2])
        self.asked.append(threshold)
        if threshold < 0.1:
            return {"status": "failed", "reason": "too low"}
        return outcome(0.5 + words["seed"] * 0.1 - (threshold - 0.3) ** 2)


def searched(folder: Path, work: Hill, trials: int) -> Any:
    place = SweepFolder(folder, Common()).checked()

    def run(grid: Grid) -> Pairs:
        return run_cells(grid.cells(), place, work, workers=Workers())

    return search(GRID, RANGE, trials, "accuracy", run)


def test_a_search_finds_the_hill_and_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    first = Hill()
    found = searched(tmp_path, first, 25)
    assert found.values["t"] == pytest.approx(0.3, abs=0.1)
    assert found.value == pytest.approx(0.55 - (found.values["t"] - 0.3) ** 2)
    assert len(found.pairs) == 2 * 25
    assert min(first.asked) >= 0
    second = Hill()
    more = searched(tmp_path, second, 27)
    new = {t for t in second.asked if t >= 0.1} - set(first.asked)
    assert len(new) <= 2  # all others were read
    assert more.value >= found.value


def test_a_search_of_which_nothing_ends_says_so(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    class Failing(Hill):
        def __call__(self, shared: dict[str, Any], words: dict[str, Any]) -> Outcome:
            return {"status": "failed", "reason": "never"}

    with pytest.raises(SettingError, match="no trial"):
        searched(tmp_path, Failing(), 2)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"niwaki\[search\]"):
        search(GRID, RANGE, 1, "accuracy", lambda grid: [])
