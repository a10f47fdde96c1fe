"""MINT's recipe: what it reads, what it makes of missing files, and one quick run on real MNIST."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from niwaki import measure, models
from niwaki.core.errors import UnknownNameError
from niwaki.graph import trace
from niwaki.graph.pairs import layer_pairs
from niwaki.papers.cell import Outcome, as_record
from niwaki.papers.mint import recipe
from niwaki.papers.mint import run as mint_run
from niwaki.papers.mint.recipe import MintRecipe
from niwaki.papers.mint.rendering import committed, markdown
from niwaki.papers.recipe import Places
from niwaki.pruning.trimming import scope
from niwaki.training import RunFolder

DOCS = Path(__file__).parents[2] / "docs" / "mint.md"
pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def test_published_numbers_are_those_of_the_paper() -> None:
    tables = recipe.tables()
    published = {
        name: [(row["params"], row["published"]) for row in table["rows"]]
        for name, table in tables.items()
    }
    assert published["mnist-mlp-groups"] == [
        (0.8627, 98.55),
        (0.8725, 98.52),
        (0.8848, 98.55),
        (0.9187, 98.55),
    ]
    assert published["mnist-mlp-samples"] == [
        (0.8535, 98.58),
        (0.8848, 98.53),
        (0.8872, 98.51),
        (0.8970, 98.53),
    ]
    assert published["vgg16"] == [(0.8346, 93.43)]
    assert published["resnet56"] == [(0.5701, 93.02)]
    assert published["mnist-mlp"][0][0] >= 0.962


def test_what_is_missing_is_named(tmp_path: Path, shared_root: Path) -> None:
    outcome = MintRecipe().run(
        "vgg16", Places(shared_root / "data", tmp_path, work=tmp_path), lambda text: None
    )
    assert not outcome.cells
    assert "vgg16.cifar10.safetensors" in (outcome.missing or "")
    outcome = MintRecipe().run(
        "mnist-mlp", Places(tmp_path, tmp_path, work=tmp_path), lambda text: None
    )
    assert "no" in (outcome.missing or "")


@pytest.mark.parametrize("killed_at", [2, 5], ids=["training", "tuning"])
def test_a_run_that_is_killed_goes_on_within_its_training(
    tmp_path: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    tables = recipe.tables()
    table = tables["mnist-mlp"]
    table["seeds"] = [0]
    table["rows"][0] |= {"groups": 5, "per_class": 20, "params": 0.8}
    del table["rows"][1:]
    epochs = {"training": {"epochs": 3}, "tuning": {"epochs": 3}}
    table["quick"] = {"images": 1000, "test_images": 500, **epochs}
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    monkeypatch.setattr(mint_run, "RunFolder", partial(RunFolder, every=0))
    looks = list[int]()

    def run(folder: str, stop: int | None) -> Outcome:
        def evaluate(*words: Any, **more: Any) -> Any:
            looks.append(1)
            if len(looks) == stop:
                raise KeyboardInterrupt
            return measure.evaluate(*words, **more)

        looks.clear()
        monkeypatch.setattr(mint_run, "evaluate", evaluate)
        places = Places(shared_root / "data", None, work=tmp_path / folder)
        return MintRecipe("quick").run("mnist-mlp", places, lambda text: None)

    whole = run("whole", None)
    expected = len(looks)
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed_at)
    resumed = run("killed", None)
    assert [cell.measured for cell in resumed.cells[:2]] == [
        cell.measured for cell in whole.cells[:2]
    ]
    assert len(looks) == expected - killed_at + 1  # what was validated is not validated again


def test_a_quick_run_trains_trims_and_retrains_and_a_second_reads_it(
    tmp_path: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = recipe.tables()
    table = tables["mnist-mlp"]
    table["seeds"] = [0]
    table["rows"][0] |= {"groups": 5, "per_class": 20, "params": 0.8}
    del table["rows"][1:]
    table["quick"] = {
        "images": 4000,
        "test_images": 1000,
        "training": {"epochs": 2},
        "tuning": {"epochs": 2},
    }
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    places = Places(shared_root / "data", None, work=tmp_path)
    said: list[str] = []
    quick = MintRecipe("quick")
    outcome = quick.run("mnist-mlp", places, said.append)
    original, trimmed, stored = outcome.cells
    assert (original.published, trimmed.published, stored.published) == (98.59, 98.47, 22.0)
    assert trimmed.ratio >= 0.8
    assert trimmed.measured > 50
    assert 100 < stored.measured < 0.2 * 600 + 2
    assert "ON A SUBSET: 4,000 training images, the first 1,000 test images" in outcome.setting
    (run,) = outcome.runs
    assert (run["experiment"], run["row"], run["seed"]) == (
        "mnist-mlp",
        table["rows"][0]["name"],
        0,
    )
    assert run["accuracy"] == trimmed.measured
    (cell,) = (tmp_path / "quick" / "cells").glob("*.json")
    assert json.loads(cell.read_text())["accuracy"] == trimmed.measured

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(mint_run, "fit", never)
    assert quick.run("mnist-mlp", places, said.append).cells == outcome.cells
    with pytest.raises(
        AssertionError, match="trained again"
    ):  # what is asked for otherwise is another cell
        MintRecipe("quick", tuning=3).run("mnist-mlp", places, said.append)

    record = json.loads(
        as_record(
            "mint:budget=quick", {"mnist-mlp": outcome, "vgg16": Outcome("", missing="x")}, None
        )
    )
    assert record["runs"] == list(outcome.runs)
    assert record["settings"] == {"mnist-mlp": outcome.setting}
    lines = markdown([record], "mnist-mlp", table).splitlines()
    assert lines[2] == f"| original | 98.59 |  | {original.measured:.2f} |"
    assert lines[3] == (
        f"| {trimmed.compensation} | 96.20, 98.47 |  | {100 * trimmed.ratio:.2f}, "
        f"{trimmed.measured:.2f} |"
    )
    assert lines[4].startswith(f"| {trimmed.compensation}: kB | 22 |  | 1")
    longer = [{**run, "accuracy": 98.0} for run in record["runs"]]
    short = {**record, "paper": "mint:budget=short", "runs": longer}
    assert "98.00" in markdown([record, short], "mnist-mlp", table).splitlines()[3]


def test_what_a_cell_may_take_is_the_tables_word_the_rows_and_the_users() -> None:
    table = {"tuning": {"epochs": 20}, "quick": {"images": 500, "tuning": {"epochs": 3}}}
    row = {"tuning": {"epochs": 30, "shift": 1}}
    places = Places()
    full, quick = (MintRecipe(budget).cost(table, row, places) for budget in ("full", "quick"))
    assert (full.tuning.epochs, full.tuning.shift, full.training.epochs, full.images, full.own) == (
        30,
        1,
        40,
        None,
        False,
    )
    assert (quick.tuning.epochs, quick.tuning.shift, quick.images, quick.own) == (3, 1, 500, True)
    asked = MintRecipe("quick", epochs=1, tuning=2, images=7).cost(table, row, Places(limit=9))
    assert (asked.training.epochs, asked.tuning.epochs, asked.images, asked.test_images) == (
        1,
        2,
        7,
        9,
    )
    with pytest.raises(UnknownNameError, match="budget 'fast'"):
        MintRecipe("fast")  # type: ignore[arg-type]  # refused


def test_the_tables_in_the_docs_are_those_of_the_records() -> None:
    for page in (DOCS, Path(recipe.__file__).with_name("README.md")):
        text = page.read_text(encoding="utf-8")
        for experiment, table in recipe.tables().items():
            if page is DOCS and experiment in ("mnist-mlp-groups", "mnist-mlp-samples", "resnet50"):
                continue
            if experiment.endswith("-authors") and experiment != "mnist-mlp-authors":
                continue  # docs/results.md has their rows
            assert markdown(committed(), experiment, table) in text, (
                f"render it again: {experiment} in {page}"
            )


@pytest.mark.parametrize("record", committed(), ids=lambda record: record["paper"])
def test_a_committed_record_is_whole(record: dict[str, Any]) -> None:
    tables = recipe.tables()
    assert record["versions"]["torch"]
    assert record["hardware"]["cpu"]
    assert record["runs"]
    for run in record["runs"]:
        (row,) = [row for row in tables[run["experiment"]]["rows"] if row["name"] == run["row"]]
        assert run["gone"] >= row["params"]
        assert 0 < run["accuracy"] <= 100
        assert run["params"][1] < run["params"][0]
    for experiment, said in record["settings"].items():
        assert ("ON A SUBSET" in said) == ("budget=quick" in record["paper"]), experiment


def test_the_authors_settings_are_those_of_their_commands() -> None:
    tables = recipe.tables()
    (row,) = tables["mnist-mlp-authors"]["rows"]
    assert (row["groups"], row["child_groups"], row["per_class"]) == (250, 100, 250)
    cost = MintRecipe().cost(tables["mnist-mlp-authors"], row, Places())
    assert cost.tuning.settings(0).milestones == (10, 20)
    assert (cost.tuning.epochs, cost.tuning.batch, cost.tuning.lr) == (30, 256, 0.1)
    table = tables["resnet56-authors"]
    model = models.build(table["model"])
    pairs = scope(
        layer_pairs(trace(model, models.example_inputs(model))), table["only"], table["skip"]
    )
    assert sum(model.get_parameter(pair.weight).numel() for pair in pairs) == 785_664
    published = [
        (row["params"], row["published"], row["published_kb"])
        for name in ("resnet56-authors", "resnet50-authors")
        for row in tables[name]["rows"]
    ]
    assert published == [
        (0.5241, 93.47, 1552.0),
        (0.5701, 93.02, 1461.0),
        (0.4301, 71.50, 52365.0),
        (0.4900, 71.12, 47513.0),
        (0.4962, 71.05, 46925.0),
    ]
