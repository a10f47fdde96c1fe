"""A sweep that is killed goes on, one that fails says where, and who runs it does not matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from niwaki.cli.app import app
from niwaki.cli.sweep_cell import run_cell
from niwaki.core.errors import DataError, OutputError, UnknownNameError
from niwaki.core.work import Workers
from niwaki.sweep import Common, Grid, SweepFolder, run_cells
from niwaki.sweep.cell import Outcome
from niwaki.sweep.run import Board, is_done

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
GRID = Grid(("digits-cnn",), ("l1", "l2"), ("none",), ("0.3", "0.6"))


@pytest.fixture(params=["local", "ray"])
def two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Two workers, in processes or on Ray, that find this folder's modules."""
    if request.param == "ray":
        pytest.importorskip("ray")
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *sys.path]))
    return Workers(request.param, 2)


class Counting:
    """Runs no networks: says which cells were asked for, and stops or fails where it is told to."""

    def __init__(self, fails: str = "", stops_after: int = 99) -> None:
        self.seen: list[str] = []
        self.fails, self.stops_after = fails, stops_after

    def __call__(self, shared: dict[str, Any], words: dict[str, Any]) -> Outcome:
        if len(self.seen) == self.stops_after:
            raise KeyboardInterrupt
        self.seen.append(words["criterion"] + words["budget"])
        if words["criterion"] == self.fails:
            return {"status": "failed", "reason": "no luck"}
        return {"status": "done", "record": {}, "plan": {}}


def test_a_sweep_that_was_stopped_runs_only_what_is_left(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep", Common()).checked()
    first, cells = Counting(stops_after=2), GRID.cells()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, folder, first, workers=Workers())
    assert first.seen == ["l10.3", "l10.6"]
    damaged = next((tmp_path / "sweep" / "cells").glob("*l1-none-0-6*"))
    damaged.write_text(damaged.read_text()[:20])
    second, boards = Counting(), list[tuple[int, int, int]]()
    pairs = run_cells(
        cells, folder, second, workers=Workers(),
        watch=lambda board: boards.append((board.read, len(board.ended), board.total)),
    )  # fmt: skip
    assert second.seen == ["l10.6", "l20.3", "l20.6"]
    assert [cell for cell, _ in pairs] == list(cells)
    assert boards == [(1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 4)]


def test_a_cell_that_fails_leaves_its_reason_and_is_tried_again(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, Common()).checked()
    pairs = run_cells(GRID.cells(), folder, Counting("l1"), workers=Workers())
    assert [outcome["status"] for _, outcome in pairs] == ["failed", "failed", "done", "done"]
    again = Counting()
    run_cells(GRID.cells(), folder, again, workers=Workers())
    assert again.seen == ["l10.3", "l10.6"]


def test_axes_may_grow_and_what_all_share_may_not_change(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep", Common(calibration=8)).checked()
    run_cells(GRID.cells(), folder, Counting(), workers=Workers())
    more, later = Grid(("digits-cnn",), ("l1", "l2"), ("none",), ("0.3", "0.9")), Counting()
    run_cells(more.cells(), folder.checked(), later, workers=Workers())
    assert later.seen == ["l10.9", "l20.9"]
    with pytest.raises(OutputError, match=r"another sweep.*calibration: 8 there, 16 now"):
        SweepFolder(folder.path, Common(calibration=16)).checked()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no sweep"):
        SweepFolder(tmp_path / "mine", Common()).checked()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="holds no sweep"):
        SweepFolder(tmp_path / "file", Common()).checked()


def test_time_left_goes_by_the_cells_that_were_run() -> None:
    pair = (GRID.cells()[0], {"status": "done"})
    board = Board(10, read=4, ended=[pair] * 4, started=time.monotonic() - 30)
    assert board.seconds_left is None
    board.ended = [pair] * 7  # four were read, three were run
    assert board.seconds_left == pytest.approx(30, abs=1)  # three more at ten seconds each


def outcomes(folder: Path, workers: Workers, evaluate: str) -> dict[str, Any]:
    common = Common(data="digits:limit=100", evaluate=evaluate)
    place = SweepFolder(folder, common).checked()
    pairs = run_cells(GRID.cells(), place, run_cell, workers=workers)
    assert all(is_done(outcome) for _, outcome in pairs), pairs
    return {
        cell.label: (
            outcome["plan"],
            [outcome["record"][side]["scores"] for side in ("before", "after")],
            [outcome["record"][side]["macs"] for side in ("before", "after")],
            outcome["record"]["residuals"],
        )
        for cell, outcome in pairs
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = outcomes(tmp_path_factory.mktemp("alone") / "one", Workers(), "sweep_work:norm")
    torch.set_num_threads(threads)
    assert len(found) == 4
    return found


def test_two_workers_one_of_which_is_killed_give_what_one_process_gives(
    two: Workers, alone: dict[str, Any], tmp_path: Path
) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    found = outcomes(tmp_path / "two", two, f"sweep_work:norm:deaths={deaths}")
    assert found == alone
    assert len(list(deaths.iterdir())) == 1


def test_where_no_cell_can_be_run_nothing_is_written(tmp_path: Path) -> None:
    words = ["sweep", "digits-cnn", "--data", "mnits", "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, words)
    assert isinstance(said.exception, DataError)
    assert "no cell could be run: unknown data" in str(said.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_makes_table_page_and_cells(tmp_path: Path) -> None:
    words = [
        "sweep", "digits-cnn", "--data", "digits:limit=100", "--criterion", "l1", "--criterion",
        "wanda", "--compensation", "none", "--budget", "0.3", "--budget", "macs=0.6", "--front",
        "accuracy,macs", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    lines = [line for line in said.stdout.splitlines() if line.strip().startswith("digits-cnn")]
    assert len(lines) == 4
    below = said.stdout.split("\n", 1)[1]  # the title
    first, second = below.split("digits-cnn, wanda")[0], below.split("wanda", 1)[1]
    assert ("*" in first, "failed" in first) == (True, False)  # in a row, or, where narrow, below
    assert ("*" in second, second.count("failed")) == (False, 2)
    assert "calibration" in said.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "digits-cnn, l1, none, macs=0.6, seed 0" in page
    assert "wanda" in page
    rows = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert len(rows) == 3
    cells = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").glob("*-l1-*")]
    assert [cell["record"]["after"]["latency_ms"] for cell in cells] == [0, 0]
    timed = CliRunner().invoke(app, [*words[:-4], "--timed", "--out", str(tmp_path / "timed")])
    assert "latency, ms" in timed.stdout
    cells = [json.loads(path.read_text()) for path in (tmp_path / "timed" / "cells").glob("*-l1-*")]
    assert all(cell["record"]["after"]["latency_ms"] > 0 for cell in cells)
    again = CliRunner().invoke(app, [*words, "--calibration", "32"])
    assert isinstance(again.exception, OutputError)
    wrong = CliRunner().invoke(app, ["sweep", "digits-cnn", "--criterion", "l3", "--out", "x"])
    assert isinstance(wrong.exception, UnknownNameError)
    assert not Path("x").exists()


def test_a_sweep_that_was_killed_goes_on_from_its_cells(tmp_path: Path) -> None:
    words = [
        "sweep", "digits-cnn", "--data", "digits:limit=50", "--criterion", "l1", "--compensation",
        "none", "--budget", "0.2", "--budget", "0.4", "--budget", "0.6", "--out", str(tmp_path),
    ]  # fmt: skip
    command = [sys.executable, "-c", "from niwaki.cli import main; main()", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any((tmp_path / "cells").glob("*.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert 0 < len(kept) < 3
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    files = sorted((tmp_path / "cells").glob("*.json"))
    assert len(files) == 3
    assert {path.name: path.stat().st_mtime_ns for path in files if path.name in kept} == kept
    assert all(json.loads(path.read_text())["status"] == "done" for path in files)
