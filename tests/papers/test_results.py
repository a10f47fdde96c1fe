"""The overview of all papers: every row of the three sources, and no number without a record."""

from __future__ import annotations

import dataclasses
import importlib
import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niwaki import models
from niwaki.cli.app import app
from niwaki.measure.macs import count_macs
from niwaki.papers.hours import MACS, PACE, network, training_hours
from niwaki.papers.line import NOT_RUN, Line, Measured, markdown
from niwaki.papers.recipe import RECIPES, overview

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
START, END = "<!-- rendered by niwaki.papers.line.markdown -->", "<!-- end -->"

# as the three sources' pages print them: what is left of a row once its words are gone
SEEDS = {
    "mint": [
        *(90.95, 96.00, 96.20, 64.00, 73.80, 82.20, 83.46, 11.80, 13.70, 43.50, 43.68, 52.41),
        *(57.01, 16.86, 25.68, 27.05, 43.82, 51.45, 43.01, 49.00, 49.62),
        *(86.27, 87.25, 88.48, 91.87, 85.35, 88.72, 89.70),
    ],
    "accuracy": [
        *(98.47, 98.51, 93.40, 93.02, 93.42, 93.43, 93.38, 93.06, 93.29, 93.01, 93.47, 71.95),
        *(73.55, 74.18, 71.99, 71.01, 71.50, 71.12, 71.05, 98.55, 98.52, 98.58, 98.53),
        *(88.40, 88.69, 85.17, 86.92, 71.26, 82.75, 66.76, 80.02, 88.70, 93.16, 89.14, 87.85),
        93.10,
    ],
    "base": [98.59, 93.98, 92.55, 76.13, 89.80, 93.70],
}


def test_every_row_of_the_three_sources_is_listed() -> None:
    lines = overview()
    assert {line.paper for line in lines} == {
        "Neuron Merging, no fine-tuning",
        "MINT",
        "Methods that MINT compares with",
        "RNI",
        "Baselines",
    }
    removed = {line.removed for line in lines}
    assert not {f"{share:.2f}%" for share in SEEDS["mint"]} - removed
    assert not set(SEEDS["accuracy"]) - {line.published for line in lines}
    assert not set(SEEDS["base"]) - {line.base for line in lines}
    assert all(line.counts for line in lines)


def test_the_page_is_rendered_from_the_records() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition(START)[2].partition(END)[0].strip()
    assert shown == markdown(overview()).strip(), "write it again: python benchmarks/results.py"


def test_a_number_without_a_record_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the records every measured cell reads "not run": no number stands in code or page."""
    for module in ("rni.lines", "mint.lines", "baselines.lines"):
        monkeypatch.setattr(importlib.import_module(f"niwaki.papers.{module}"), "committed", list)
    merging = importlib.import_module("niwaki.papers.neuron_merging.lines")
    monkeypatch.setattr(merging, "_recorded", dict)
    lines = overview()
    assert lines
    assert not any(line.measured for line in lines)
    assert {line.cells()[4].partition(":")[0] for line in lines} == {NOT_RUN}
    assert {line.cells()[5] for line in lines} == {""}


def test_a_line_says_its_budget_and_its_runs() -> None:
    line = Line("p", "e", "row", "50%", "filters", 90.0, None, (Measured(89.123, 93, "quick", 3),))
    assert line.cells() == ("row", "50%", "90.00", "", "89.12 (quick, 3 seeds)", "93.00")
    assert markdown([line]).splitlines()[2] == "The share is of: filters."


def test_what_was_not_run_says_what_it_would_take() -> None:
    line = Line("p", "e", "row", "50%", "filters", 90.0, None, (), 2.11)
    assert line.cells()[4] == "not run: 2.1 h"
    assert dataclasses.replace(line, hours=0.5).cells()[4] == "not run: 30 min"
    left = [line for line in overview() if not line.measured and "compares" not in line.paper]
    assert left
    assert all(line.hours is not None and line.hours > 0 for line in left)


def test_hours_stand_on_a_record_and_on_counted_multiply_adds() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "records" / "training_options.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    (speeds,) = [v for k, v in record["images_per_second"].items() if k.startswith("channels-last")]
    assert (record["model"], record["hardware"]["threads"]) == ("resnet20", 1)
    assert pytest.approx(3 * MACS["resnet20"] * statistics.median(speeds)) == PACE
    assert training_hours("resnet20", "cifar10", 1) == pytest.approx(45_000 / 405.1 / 3600)
    assert network("timm:resnet50") == "resnet50"


@pytest.mark.parametrize("name", sorted(set(MACS) - {"resnet50"}))
def test_multiply_adds_are_those_of_the_networks(name: str) -> None:
    model = models.build(name).eval()
    assert count_macs(model, models.example_inputs(model, batch=1)) == MACS[name]


def test_reproduce_lists_without_running_anything() -> None:
    said = CliRunner().invoke(app, ["reproduce", "baselines", "--list", "--json"])
    assert said.exit_code == 0, said.output
    listed = json.loads(said.stdout)
    assert {line["paper"] for line in listed} == {"Baselines"}
    assert {line["experiment"] for line in listed} == {"resnet56", "vgg16", "mnist-mlp"}
    table = CliRunner().invoke(app, ["reproduce", "--list"])
    assert "MINT: resnet56-authors" in table.stdout
    for paper in RECIPES:
        assert RECIPES.build(paper).lines()
    nothing = CliRunner().invoke(app, ["reproduce"])
    assert "name a paper: baselines, mint, neuron-merging, rni" in str(nothing.exception)
