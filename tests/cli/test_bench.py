"""The script that times an exported network anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niwaki.cli.app import app
from niwaki.io import bench

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deploy") / "out"
    done = CliRunner().invoke(
        app, ["export", "mnist-mlp", "--out", str(out), "--bench"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return out


def test_it_runs_without_niwaki(exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "for name in ('niwaki', 'torch'): sys.modules[name] = None\n"
        "sys.argv = ['bench.py', 'model.onnx', 'model.onnx', '--batch', '3', '--seconds', '0.01',"
        " '--threads', '1']\n"
        "runpy.run_path('bench.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exported, capture_output=True, text=True
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["batch"] == 3
    (times,) = told["files"].values()
    assert times["runs"] >= 10
    assert times["quartiles_ms"][0] <= times["median_ms"] <= times["quartiles_ms"][1]
    assert times["ratio_to_first"] == 1


def test_what_is_wrong_is_one_sentence(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx cannot be loaded" in capsys.readouterr().err
    assert bench.main([str(exported / "model.onnx"), "--provider", "Other"]) == 2
    told = capsys.readouterr().err
    assert "has no Other; it has" in told
    assert told.count("\n") == 1


def test_bench_is_for_onnx_files(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", "mnist-mlp", "--out", str(tmp_path / "o"), "--format", "pt2", "--bench"]
    )
    assert done.exit_code != 0
