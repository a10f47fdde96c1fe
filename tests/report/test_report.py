"""The report: what it reads, what it says of broken folders, and that a real browser draws it
without a network.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import niwaki
from niwaki.core.errors import DataError
from niwaki.core.records import DependencyMap, DependencyMaps, Measurement, Record
from niwaki.report import as_csv, as_json, pareto, read_runs, report_page


def measurement(**changes: Any) -> Measurement:
    values = {
        "accuracy": 0.9,
        "loss": 0.3,
        "params": 1000,
        "macs": 50_000,
        "latency_ms": 2.0,
        "bytes": 4000,
    }
    return Measurement(**{**values, "peak_bytes": 800, "batch": 4, **changes})


def write_run(folder: Path, **after: Any) -> Path:
    """A folder as niwaki leaves it, with what the page can show."""
    folder.mkdir(parents=True)
    settings = {
        "model": "net",
        "criterion": "l1",
        "budget": "channels=0.5",
        "compensation": "none",
        "odd": "<b>&\"'</b>",
    }
    record = Record(
        measurement(),
        measurement(**{"params": 500, "accuracy": 0.85, **after}),
        settings,
        seed=0,
        seconds={"trace": 0.1},
        notes=("checked: <script>alert(1)</script>",),
        residuals={"a": 0.02, "b": 0.3},
        importances={"edges": [0.0, 0.5, 1.0], "kept": [1.0, 7.0], "dropped": [6.0, 2.0]},
    )
    (folder / "record.json").write_text(record.to_json())
    step = {"a": {"width": 4, "kept": [0, 3]}, "b": {"width": 12, "kept": [1, 2, 5, 6, 7, 8]}}
    (folder / "plan.json").write_text(
        json.dumps({"schema": 2, "steps": [step, {"b": {"width": 6, "kept": [0, 1, 2]}}]})
    )
    matrix = DependencyMap("a", "b", ((0.1, 0.9), (0.4, 0.0)), ((0.0, 0.5), (0.0, 1.0)))
    (folder / "dependencies.json").write_text(DependencyMaps((matrix,)).to_json())
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "one")
    write_run(tmp_path / "runs" / "two", params=300, accuracy=0.8, latency_ms=1.0)
    write_run(tmp_path / "runs" / "deep" / "er", params=600, accuracy=0.7, latency_ms=3.0)
    return tmp_path / "runs"


def test_runs_are_found_in_folders_of_folders(runs: Path) -> None:
    found, left_out = read_runs([runs])
    assert [run.name for run in found] == ["deep/er", "one", "two"]
    assert left_out == []
    assert found[0].widths == [("a", 4, 2), ("b", 12, 3)]
    assert found[0].dependencies[0].gone == ((0.0, 0.5), (0.0, 1.0))
    twice, _ = read_runs([runs / "one", runs / "one"])
    assert [run.name for run in twice] == ["one", "one (2)"]


def test_broken_folders_are_left_out_and_said(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (runs / "two" / "record.json").write_text("{")
    (runs / "one" / "plan.json").write_text('{"steps": [{"a": {"width": 1, "kept": [7]}}]}')
    matrix = {"child": "b", "parent": "a", "values": [[1], [1, 2]], "gone": []}
    (runs / "one" / "dependencies.json").write_text(json.dumps({"schema": 1, "maps": [matrix]}))
    found, left_out = read_runs([runs, tmp_path / "empty", tmp_path / "nowhere"])
    assert [run.name for run in found] == ["deep/er", "one"]
    assert len(left_out) == 3
    assert "two/record.json is not JSON" in left_out[0]
    assert "empty has no record.json" in left_out[1]
    assert "nowhere is no folder" in left_out[2]
    assert len(found[1].problems) == 2
    page = report_page(found, left_out)
    assert "Not in this report" in page
    assert "ragged" in page


@pytest.mark.parametrize("content", [None, "", "[]", "null", "{}", "[" * 100_000, "\x00\xff"])
def test_nothing_to_report_is_an_error_that_says_why(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"nothing to report.*record\.json"):
        read_runs([tmp_path])


def test_the_page_is_one_file_and_escapes_what_it_is_given(runs: Path) -> None:
    page = report_page(read_runs([runs])[0])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>&" not in page
    assert page.count("<script>") == 1
    for reference in ("http://", "https://", "@import", "url("):
        assert reference not in page


def test_the_page_does_without_accuracy(tmp_path: Path) -> None:
    write_run(tmp_path / "run", accuracy=None, loss=None)
    page = report_page(read_runs([tmp_path])[0])
    assert "Accuracy against" not in page
    assert "What is left of the original" in page


def test_numbers_are_those_of_the_records(runs: Path) -> None:
    found, _ = read_runs([runs])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["params_after"] for row in rows] == ["600", "500", "300"]
    assert float(rows[2]["throughput_after"]) == 4000
    data = json.loads(as_json(found))
    assert data["runs"][0]["groups"] == [
        {"group": "a", "units": 4, "kept": 2},
        {"group": "b", "units": 12, "kept": 3},
    ]
    assert data["runs"][1]["residuals"] == {"a": 0.02, "b": 0.3}


def test_a_formula_in_a_name_is_text_in_a_spreadsheet(tmp_path: Path) -> None:
    write_run(tmp_path / "=1+1")
    assert as_csv(read_runs([tmp_path / "=1+1"])[0]).splitlines()[1].startswith("'=1+1")


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    points = [(3, 0.9), (1, 0.5), (2, 0.5), (2, 0.7), (4, 0.9), (5, 0.95)]
    assert pareto(points) == [1, 3, 0, 5]
    assert pareto([]) == []


def test_a_result_shows_itself_in_a_notebook(quick_latency: None) -> None:
    torch.manual_seed(0)
    model = niwaki.models.build("lenet-300-100").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model))
    shown = result._repr_html_()
    assert f"<td>{result.record.after.params:,}</td>" in shown
    assert shown.startswith("<table")
    kept = sum(result.record.importances["kept"])
    assert kept == sum(len(entry.units) for entry in result.plan.values())


def test_report_from_the_shell(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from niwaki.cli.app import main

    out = tmp_path / "page.html"
    codes = []
    for words in (
        (runs, "--out", out),
        (runs, "--out", out),
        (runs, "--out", out, "--overwrite"),
        (tmp_path / "no", "--out", "x"),
    ):
        monkeypatch.setattr(sys, "argv", ["niwaki", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        codes.append(stop.value.code)
    assert codes == [0, 1, 0, 1]
    assert {path.suffix for path in tmp_path.glob("page.*")} == {".html", ".csv", ".json"}


@pytest.mark.parametrize(("width", "height"), [(375, 740), (1280, 900)], ids=["phone", "desktop"])
def test_a_browser_draws_all_of_it_without_a_network(
    browser: Any, runs: Path, tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_page(read_runs([runs])[0]), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert said == []
    assert asked == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    seen = "e => { const box = e.getBoundingClientRect(); return box.width > 20 && box.height > 5 }"
    shown = page.locator("figure.chart svg:visible")
    assert shown.count() == 2  # of each drawing the one that fits
    assert page.locator("figure.chart svg:visible .dot").count() == 2 * 4
    for selector in ("figure.chart svg:visible", ".bar", ".histogram", ".maps svg", "table.runs"):
        assert page.locator(selector).count() > 0, selector
        assert page.locator(selector).evaluate_all(f"all => all.every({seen})"), selector
    text = page.locator("figure.chart svg:visible .tick").first.evaluate(
        "e => e.getBoundingClientRect().height"
    )
    assert text > 10  # pixels: letters stay readable
    page.locator("figure.chart svg:visible .dot").first.focus()
    assert "accuracy" in page.locator("#tip.shown").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#tip.shown").count() == 0
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()
