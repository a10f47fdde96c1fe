"""Latency that was measured on another device: what `bench.py` prints there is what a budget is met
by here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import niwaki
from niwaki.cli.app import app
from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SettingError
from niwaki.pruning.elsewhere import Elsewhere, read

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.randn(3, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5)
    ).eval()


WHOLE = 8 * 40 + 40 * 40 + 40 * 5


def printed(path: Path, **ratios: Any) -> str:
    """A file as bench.py prints it; m1000=0.5 is half of the time for a network of 1,000."""
    files = {name: {"macs": int(name[1:]), "ratio_to_first": r} for name, r in ratios.items()}
    path.write_text(json.dumps({"files": files, "machine": "board"}))
    return str(path)


def test_times_lie_on_straight_lines_between_those_that_were_measured() -> None:
    curve = Elsewhere(((0.1, 0.4), (0.5, 0.7), (1.0, 1.0)), "board")
    assert curve(0.3) == pytest.approx(0.55)
    assert curve(0.75) == pytest.approx(0.85)
    assert (curve(0.1), curve(0.05), curve(1.0)) == (0.4, 0.4, 1.0)


def test_a_smaller_network_is_never_taken_to_be_slower(tmp_path: Path) -> None:
    path = printed(tmp_path / "device.json", m1000=0.5, m800=0.2, m400=0.3, m200=0.6)
    assert read(path, 1000).points == ((0.2, 1.0), (0.4, 1.0), (0.8, 1.0), (1.0, 1.0))
    other = printed(tmp_path / "device.json", m1000=0.5, m800=0.4, m400=0.3, m200=0.35)
    assert read(other, 1000).points == ((0.2, 0.7), (0.4, 0.7), (0.8, 0.8), (1.0, 1.0))


@pytest.mark.parametrize("scope", ["local", "global", "cost", "auto"])
def test_a_budget_is_met_by_what_was_measured(tmp_path: Path, scope: str) -> None:
    path = printed(tmp_path / "device.json", **{f"m{WHOLE}": 1.0, f"m{WHOLE // 4}": 0.4})
    result = niwaki.prune(
        network(), X, f"latency=0.3,measured={path}", scope=scope, multiple=1,
        compensation="none",
    )  # fmt: skip
    curve, after = read(path, WHOLE), niwaki.count_macs(result.model, X)
    assert curve(after / WHOLE) <= 0.7
    assert after >= 0.4 * WHOLE  # at half of the multiply-adds it is met
    (said,) = [note for note in result.record.notes if note.startswith("latency: ")]
    assert f"{curve(after / WHOLE):.3f} of the original's is expected on board" in said
    assert "latency_ratio" not in result.record.settings
    foreseen = niwaki.preview(
        network(), X, {"latency": 0.3, "measured": path}, scope=scope, multiple=1,
        compensation="none",
    )  # fmt: skip
    assert dict(foreseen.plan.units) == dict(result.plan.units)
    assert foreseen.measured["latency"] == pytest.approx(curve(after / WHOLE))


def test_no_budget_is_met_below_the_least_that_was_measured(tmp_path: Path) -> None:
    path = printed(tmp_path / "device.json", **{f"m{WHOLE}": 1.0, "m500": 0.6})
    with pytest.raises(BudgetError, match=r"40\.0%"):
        niwaki.prune(network(), X, f"latency=0.5,measured={path}")


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({"m100": 1.0, "m50": 0.5}, "this one has 2,120"),
        ({f"m{WHOLE}": 1.0}, "no smaller network"),
        ({}, "states its multiply-adds"),
        ({f"m{WHOLE}": 1.0, "m50": float("nan")}, "no ratio of times"),
        ({f"m{WHOLE}": 1.0, "m50": -1}, "no ratio of times"),
        ({f"m{WHOLE}": 1.0, "m50": "fast"}, "no ratio of times"),
        ({f"m{WHOLE}": 1.0, "m0": 1.0}, "no number of multiply-adds"),
    ],
)
def test_measurements_of_something_else_are_refused(
    tmp_path: Path, ratios: dict[str, Any], said: str
) -> None:
    path = printed(tmp_path / "device.json", **ratios)
    with pytest.raises(SettingError, match=said):
        niwaki.prune(network(), X, f"latency=0.5,measured={path}")


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"files": 3}', '{"files": {"a": 3}}'):
        (tmp_path / "device.json").write_text(text)
        with pytest.raises(SettingError, match=r"does not hold what bench\.py printed"):
            niwaki.prune(network(), X, f"latency=0.5,measured={tmp_path / 'device.json'}")
    with pytest.raises(SettingError, match="does not hold"):
        niwaki.prune(network(), X, f"latency=0.5,measured={tmp_path / 'nowhere.json'}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs=0.5,measured=a.json", "no use for it"),
        ("latency=0.5,batch=2,measured=a.json", "give them to bench.py"),
    ],
)
def test_where_a_file_means_nothing_is_told(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Budget.parse(text)


def test_the_notation_is_kept() -> None:
    text = "latency=0.5,measured=a.json,macs=0.4"
    assert str(Budget.parse(text)) == text
    assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)


def test_from_the_script_to_a_network(tmp_path: Path) -> None:
    """What is written for the device is run here, and what it prints is a budget."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "out"
    words = ["export", "digits-cnn", "--out", str(out), "--bench", "--ladder"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    code = "import sys, runpy\nfor name in ('niwaki', 'torch'): sys.modules[name] = None\n"
    code += f"sys.argv = [{str(out / 'bench.py')!r}, '--seconds', '0.05', '--batch', '64']\n"
    code += f"runpy.run_path({str(out / 'bench.py')!r}, run_name='__main__')"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    device = tmp_path / "device.json"
    device.write_text(there.stdout)
    files = list(json.loads(there.stdout)["files"].values())
    assert len(files) == 5
    assert files[0]["ratio_to_first"] == 1
    model = niwaki.models.build("digits-cnn").eval()
    x = niwaki.models.example_inputs(model)
    whole = niwaki.count_macs(model, x)
    assert files[0]["macs"] == whole
    curve = read(str(device), whole)
    least = curve.points[0][1]
    amount = round((1 - least) / 2, 3)  # half of what can go
    used = CliRunner().invoke(
        app, ["prune", "digits-cnn", "--budget", f"latency={amount},measured={device}", "--json"]
    )
    assert used.exit_code == 0, used.output
    after = json.loads(used.stdout)["after"]["macs"]
    assert curve(after / whole) <= 1 - amount + 1e-9
    assert after < whole


def test_a_ladder_is_for_bench(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", "digits-cnn", "--out", str(tmp_path / "o"), "--ladder"]
    )
    assert isinstance(done.exception, SettingError)
