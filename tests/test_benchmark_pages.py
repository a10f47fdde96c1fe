"""Pages that quote a benchmark quote its record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_on_mint_shows_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    mint = importlib.import_module("mint")
    made_up = {
        "hardware": {"cpu": "a core", "cores": 2},
        "estimate": {
            "plain_s": [4.0, 4.1],
            "layer_pair_ms": [8.0, 8.1],
            "layer_pair_times_faster": 500.0,
            "independent_ms": [32.0, 32.1],
            "independent_times_faster": 125.0,
        },
        "vgg16": {"estimates": 896, "wall_s": 15.0, "watching_wall_s": 5.0, "peak_gb": 1.5},
    }
    page = tmp_path / "page.md"
    page.write_text(f"before\n{mint.START}\nold\n{mint.END}\nafter\n", encoding="utf-8")
    mint.write_page(made_up, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{mint.START}\n| a core, 2 cores | measured | floor |\n")
    assert (
        "| one of the 8 × 8 estimates of a layer pair | 8.0 ms, 500 × less | 500 × less |" in text
    )
    assert "old" not in text
    assert text.endswith(f"\n{mint.END}\nafter\n")

    record = ROOT / "benchmarks" / "records" / "mint.json"
    if record.is_file():
        shown = (ROOT / "docs" / "mint.md").read_text(encoding="utf-8")
        assert mint.as_markdown(json.loads(record.read_text(encoding="utf-8"))) in shown, (
            "write the page again: --read, --page"
        )


def test_the_page_on_training_shows_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    options = importlib.import_module("training_options")
    record = ROOT / "benchmarks" / "records" / "training_options.json"
    known = json.loads(record.read_text(encoding="utf-8"))
    assert set(known["images_per_second"]) <= set(options.OPTIONS)
    shown = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"{options.START}\n{options.as_markdown(known)}\n{options.END}" in shown
    made_up = {**known, "images_per_second": {options.PLAIN: [10, 20], "other": [30, 20]}}
    assert options.as_markdown(made_up).splitlines()[-1] == "| other | 25 | 2.00 × |"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("allocation", "guides/budgets.md"),
        ("guard", "compensation.md"),
        ("gradual", "guides/training-loops.md"),
        ("heads", "compensation.md"),
        ("speed", "performance.md"),
        ("yolo", "guides/yolo.md"),
    ],
)
def test_tables_are_those_of_their_records(
    name: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module(name)
    record = json.loads((ROOT / "benchmarks" / "records" / f"{name}.json").read_text("utf-8"))
    shown = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = f"{benchmark.START}\n{benchmark.as_markdown(record)}\n{benchmark.END}"
    assert table in shown, f"write the page again: benchmarks/{name}.py --page"


def test_a_sweep_does_not_hang_on_who_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("sweep")
    record = json.loads((ROOT / "benchmarks" / "records" / "sweep.json").read_text("utf-8"))
    assert record["cells"] == record["different"] >= 40
    assert list(record["ways"]) == list(benchmark.WAYS)
    assert all(way["done"] == way["equal"] == record["cells"] for way in record["ways"].values())
    killed = record["ways"]["Ray, a worker killed"]
    assert killed["killed"] == 1
    assert 0 < killed["done_when_killed"][0] < record["cells"]
    shown = (ROOT / "docs" / "guides" / "sweep.md").read_text(encoding="utf-8")
    table = f"{benchmark.START}\n{benchmark.as_markdown(record)}\n{benchmark.END}"
    assert table in shown, "write the page again: benchmarks/sweep.py --page"


def test_half_of_the_dimensions_of_heads_cost_less_than_a_fifth_of_half_of_the_heads() -> None:
    record = json.loads((ROOT / "benchmarks" / "records" / "heads.json").read_text("utf-8"))
    heads, dimensions = "half of the heads", "half of the query and key dimensions"
    assert len(record["runs"]) >= 2
    for run in record["runs"].values():
        for repair in ("no data", "512 images"):
            assert run["whole"] - run[dimensions][repair] < (run["whole"] - run[heads][repair]) / 5


def test_no_repair_is_behind_plain_pruning() -> None:
    record = json.loads((ROOT / "benchmarks" / "records" / "guard.json").read_text("utf-8"))
    assert len({key.split(" ")[0] for key in record["cells"]}) >= 8
    assert [key for key, cell in record["cells"].items() if cell["auto"] > cell["none"]] == []


def test_what_is_said_of_random_networks_is_in_the_record() -> None:
    record = json.loads((ROOT / "benchmarks" / "records" / "fuzz.json").read_text("utf-8"))
    total = record["total"]
    count = sum(piece["last"] - piece["first"] + 1 for piece in record["pieces"])
    said = (
        f"{count:,} networks: {total['proved']:,} proved, {total['refused']:,} refused in a "
        f"sentence, {total['nothing']:,} with nothing to prune; {total['judged']:,} of the proved "
        f"could be judged, on {total['inputs']:,} inputs: {total.get('WRONG', 0)} wrong, "
        f"{total.get('raw', 0)} raw exceptions."
    )
    assert said in (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
