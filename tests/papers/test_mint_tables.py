"""MINT's recipe: what it reads, what it makes of missing files, and one quick run on real MNIST."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from niwaki.papers import MintRecipe, Places
from niwaki.papers.mint import recipe

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def test_published_numbers_are_those_of_the_paper() -> None:
    tables = recipe.tables()
    published = {name: [(row["params"], row["published"]) for row in table["rows"]] for name, table in tables.items()}
    assert published["mnist-mlp-groups"] == [(0.8627, 98.55), (0.8725, 98.52), (0.8848, 98.55), (0.9187, 98.55)]
    assert published["mnist-mlp-samples"] == [(0.8535, 98.58), (0.8848, 98.53), (0.8872, 98.51), (0.8970, 98.53)]
    assert published["vgg16"] == [(0.8346, 93.43)]
    assert published["resnet56"] == [(0.5701, 93.02)]
    assert published["mnist-mlp"][0][0] >= 0.962


def test_what_is_missing_is_named(tmp_path: Path, shared_root: Path) -> None:
    outcome = MintRecipe().run("vgg16", Places(shared_root / "data", tmp_path, work=tmp_path), lambda text: None)
    assert not outcome.cells
    assert "vgg16.cifar10.safetensors" in (outcome.missing or "")
    outcome = MintRecipe().run("mnist-mlp", Places(tmp_path, tmp_path, work=tmp_path), lambda text: None)
    assert "no" in (outcome.missing or "")


def test_a_quick_run_trains_trims_and_retrains_and_a_second_reads_it(
    tmp_path: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = recipe.tables()
    tables["mnist-mlp"]["seeds"] = [0]
    tables["mnist-mlp"]["rows"][0] |= {"groups": 5, "per_class": 20, "params": 0.8}
    del tables["mnist-mlp"]["rows"][1]
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    places, said = Places(shared_root / "data", None, limit=1000, work=tmp_path), []
    quick = MintRecipe(epochs=2, tuning=2, images=4000)
    outcome = quick.run("mnist-mlp", places, said.append)
    original, trimmed, stored = outcome.cells
    assert (original.published, trimmed.published, stored.published) == (98.59, 98.47, 22.0)
    assert trimmed.ratio >= 0.8
    assert trimmed.measured > 50
    assert 100 < stored.measured < 0.2 * 600 + 2
    assert "4,000 training images" in outcome.setting
    (cell,) = (tmp_path / "cells").glob("*.json")
    assert json.loads(cell.read_text())["accuracy"] == trimmed.measured

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(recipe, "fit", never)
    assert quick.run("mnist-mlp", places, said.append).cells == outcome.cells
