"""The baselines' recipe: the published shares of layers, and a row that is run once and resumed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import within
from needed import needs

from niwaki import data, models
from niwaki.core.errors import UnknownNameError
from niwaki.graph import trace
from niwaki.methods.base.criterion import score
from niwaki.methods.base.cut import Scores
from niwaki.papers.baselines import factored, recipe, sparse
from niwaki.papers.baselines import run as baseline_run
from niwaki.papers.baselines.recipe import Baselines
from niwaki.papers.baselines.run import committed
from niwaki.papers.recipe import Places
from niwaki.pruning.allocation import select
from niwaki.pruning.selection import Selection

needs("accelerate")
pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def kept_of(entry: dict[str, Any], model_spec: str, only: tuple[str, ...]) -> dict[str, float]:
    model = models.build(model_spec).eval()
    graph = trace(model, models.example_inputs(model))
    selection = Selection(
        only=only, skip=tuple(entry["skip"]), rounding="floor", shares=entry["shares"]
    )
    plan = select(Scores(graph, score(graph, "l1")), 0, selection).plan
    counts = {name: len(kept.units) for name, kept in plan.items()}
    gone = (1 - part(counts) / part({}) for part in (graph.count_params, graph.count_macs))
    return {**counts, **dict(zip(("params", "macs"), gone, strict=True))}


def test_pruning_filters_shares_are_the_published_ones() -> None:
    """−9.4 % and −10.4 %, −13.7 % and −27.6 %, −64.0 % and −34.2 % in table 1 of 1608.08710."""
    first, second, *_ = recipe.tables()["resnet56"]["rows"]
    a = kept_of(first, "resnet56:shortcut=projection", ("layer*.conv1",))
    b = kept_of(second, "resnet56:shortcut=projection", ("layer*.conv1",))
    assert (a["params"], a["macs"]) == pytest.approx((0.094, 0.104), abs=0.001)
    assert (b["params"], b["macs"]) == pytest.approx((0.137, 0.276), abs=0.002)
    assert (len(a), len(b)) == (23 + 2, 21 + 2)
    assert {b["layer1.0.conv1"], b["layer2.1.conv1"], b["layer3.1.conv1"]} == {6, 22, 57}
    third, *_ = recipe.tables()["vgg16"]["rows"]
    vgg = kept_of(third, "vgg16:classifier=two-layer", ("features.conv*",))
    assert (vgg["params"], vgg["macs"]) == pytest.approx((0.64, 0.342), abs=0.005)


def test_a_row_is_run_once_and_read_again(
    tmp_path: Path, shared_root: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = recipe.tables()
    table = tables["resnet56"]
    del table["rows"][2:], table["rows"][0]
    table["budgets"]["quick"] = {"epochs": 1, "lr": 0.001, "images": 64}
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    places = Places(few_images, shared_root / "checkpoints", limit=100, work=tmp_path)
    said: list[str] = []
    quick = Baselines("quick")
    outcome = quick.run("resnet56", places, said.append)
    assert outcome.missing is None
    original, pruned, tuned = outcome.cells
    assert "1 epochs of fine-tuning on 64 training images" in outcome.setting
    assert (original.published, pruned.published, tuned.published) == (93.04, None, 93.06)
    assert original.measured > 85
    assert tuned.ratio == pytest.approx(0.137, abs=0.001)
    (record,) = (tmp_path / "quick" / "records").iterdir()
    known = baseline_run.read(record)
    assert (known.row, known.test_images) == ("Pruning Filters B", 100)
    assert known.params == [855_770, 738_464]
    assert known.notes == [baseline_run.KEPT]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(baseline_run, "fit", never)
    assert quick.run("resnet56", places, said.append).cells == outcome.cells
    with pytest.raises(AssertionError, match="trained again"):
        Baselines("quick", epochs=2).run("resnet56", places, said.append)


@pytest.mark.parametrize("factors", ["gal", "oed"])
def test_branches_whose_factor_ends_at_zero_go(
    factors: str,
    tmp_path: Path,
    shared_root: Path,
    few_images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = recipe.tables()
    table = tables["resnet56"]
    (entry,) = (row for row in table["rows"] if row.get("factors") == factors)
    entry["reg"] = 30.0  # so few steps take some of the 27 factors to zero, but not all
    table["rows"] = [entry]
    table["budgets"]["quick"] = {"epochs": 1, "lr": 0.001, "images": 128}
    entry["learned"]["quick"] = {"epochs": 1, "lr": 0.01}
    entry["every"] = {"quick": 1}
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    places = Places(few_images, shared_root / "checkpoints", limit=50, work=tmp_path)
    outcome = Baselines("quick").run("resnet56", places, print)
    (path,) = (tmp_path / "quick" / "records").iterdir()
    known = baseline_run.read(path)
    assert known.notes[0] == factored.KEPT
    zeros = int(known.notes[1].split()[0])
    assert 0 < zeros < 27
    assert known.notes[1].count("layer") == zeros
    assert known.params[1] < known.params[0] == 855_770
    assert outcome.cells[-1].ratio == known.gone
    assert len(known.curve) == (factors == "gal")
    if factors == "oed":
        assert known.test == known.untuned


@pytest.mark.parametrize("number", [0, 1], ids=["slimming", "ssl"])
def test_a_network_is_trained_with_its_penalty_and_pruned_to_the_published_widths(
    number: int, tmp_path: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = recipe.tables()
    table = tables["mnist-mlp"]
    table["rows"] = [table["rows"][number]]
    table["budgets"]["quick"] = {"epochs": 1, "lr": 0.1, "images": 2560}
    monkeypatch.setattr(recipe, "tables", lambda: tables)
    places = Places(shared_root / "data", limit=200, work=tmp_path)
    outcome = Baselines("quick").run("mnist-mlp", places, print)
    (record,) = (tmp_path / "quick" / "records").iterdir()
    known = baseline_run.read(record)
    widths, share = [((100, 60), 0.96), ((174, 78), 0.90952)][number]
    assert tuple(known.kept.values()) == widths
    assert outcome.cells[-1].ratio == known.gone == pytest.approx(share, abs=1e-6)
    assert known.notes == [sparse.KEPT]
    assert (known.settings["batch"], known.settings["distil"]) == (sparse.BATCH, 0.0)


def test_the_proximal_step_follows_the_rate(shared_root: Path) -> None:
    """With a weight that outdoes every gradient all groups end at zero; with none, nothing does."""
    entry = {**recipe.tables()["mnist-mlp"]["rows"][1]}
    cost = baseline_run.Cost(1, 0.1, 512)
    mnist = data.load("mnist", shared_root / "data")
    model = models.build(entry["model"]).eval()
    graph = trace(model, models.example_inputs(model))
    for reg, left in ((100.0, 0), (0.0, 500)):
        row = sparse.SparseRow("mnist-mlp", "quick", 0, {}, {**entry, "reg": reg})
        added, shrink = row._penalty(graph, cost, mnist)
        assert added is None
        assert shrink is not None
        with torch.no_grad():
            shrink(model) if reg == 0 else shrink(emptied := copy.deepcopy(model))
        rows = within.tensor(model if reg == 0 else emptied, "fc1.weight").norm(dim=1)
        assert int((rows > 0).sum()) == left


def test_what_is_missing_is_named(tmp_path: Path, shared_root: Path) -> None:
    outcome = Baselines().run("vgg16", Places(shared_root / "data", tmp_path), print)
    assert "vgg16.cifar10.safetensors" in (outcome.missing or "")
    with pytest.raises(UnknownNameError, match="budget 'fast'"):
        Baselines("fast")  # type: ignore[arg-type]  # refused


@pytest.mark.parametrize("record", committed(), ids=lambda record: record.row)
def test_a_committed_record_is_whole(record: baseline_run.BaselineRun) -> None:
    rows = {row["name"]: row for row in recipe.tables()[record.experiment]["rows"]}
    assert record.settings["row"] == rows[record.row]
    assert record.test_images == 10_000
    row = rows[record.row]
    if "factors" in row:  # what goes is what ended at zero
        assert factored.KEPT in record.notes
        return
    # the same share of every layer goes in whole filters: up to two points more
    more, equal = record.gone - row["published_gone"], "budget" in row and "scope" not in row
    assert -0.001 <= more <= (0.02 if equal else 0.001)
    assert len(record.curve) == record.settings["epochs"]
    assert record.versions["torch"]
    assert record.hardware["cpu"]
    kept = sparse.KEPT if record.experiment == "mnist-mlp" else baseline_run.KEPT
    assert kept in record.notes
