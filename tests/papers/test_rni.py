"""The RNI recipe: its two functions, its cells and records, and what the committed records say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import within
from needed import needs

from niwaki import data, models
from niwaki.core.errors import BudgetError, SettingError, UnknownNameError
from niwaki.data import Dataset, HeldSplit, Normalization
from niwaki.measure import evaluate
from niwaki.papers.recipe import RECIPES, Places
from niwaki.papers.rni.experiment import (
    Method,
    Setting,
    fresh,
    groups_of,
    importances,
    pruned,
)
from niwaki.papers.rni.notebook import prune_finetune, train
from niwaki.papers.rni.recipe import Rni, tables
from niwaki.papers.rni.runs import CellRun, committed, markdown, read

needs("accelerate")
pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
PLAIN = Normalization((0.0,) * 3, (1.0,) * 3)
DOCS = Path(__file__).parents[2] / "docs" / "rni.md"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    pytest.importorskip("sklearn")
    return data.load("digits")


def test_rni_polarises_and_survives_pruning(digits: Dataset) -> None:
    """Most importances end near 0 and the others stay; L1 has no such gap, and pulls down the
    largest too.
    """
    small: dict[str, Any] = {
        "dataset": digits,
        "arch": "digits-cnn",
        "epochs": 8,
        "device": "cpu",
        "progress": False,
    }
    kept = {}
    methods: list[tuple[Method, float]] = [("rni", 1.0), ("l1", 0.01), ("ucs", 0.0)]
    for method, reg in methods:
        model, logs = train(method=method, reg_weight=reg, b=3, **small)
        assert len(logs["test_acc"]) == len(logs["val_acc"]) == 8
        assert (logs["penalty"][0] > 0) == (method != "ucs")
        kept[method] = importances(model)
        smaller, tuning = prune_finetune(
            model, digits, method, 0.7, epochs=4, device="cpu", progress=False
        )
        widths = [
            within.size(smaller, "conv1.out_channels"),
            within.size(smaller, "conv2.out_channels"),
            within.size(smaller, "conv3.out_channels"),
        ]
        assert widths == [10, 19, 19] if method == "ucs" else sum(widths) >= 48
        assert min(widths) >= 3
        assert tuning["val_acc"][tuning["best_epoch"]] > 0.8
        assert within.size(model, "conv1.out_channels") == 32
    rni, l1 = kept["rni"], kept["l1"]
    assert 0.4 < (rni < 0.05).double().mean() < 0.8
    assert (rni > 0.5).double().mean() > 0.15
    assert ((rni > 0.05) & (rni < 0.3)).double().mean() < 0.1  # the gap between the two humps
    assert ((l1 > 0.05) & (l1 < 0.3)).double().mean() > 0.3  # where L1 has most


def test_bad_words_are_refused(digits: Dataset) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rni'"):
        train(digits, "digits-cnn", "rmi", device="cpu")  # type: ignore[arg-type]  # refused
    with pytest.raises(BudgetError, match="prune_pc is a share"):
        prune_finetune(torch.nn.Linear(2, 2), digits, prune_pc=90, device="cpu")
    with pytest.raises(SettingError, match="reg must be a number of at least 0"):
        train(digits, "digits-cnn", reg_weight=-1, epochs=1, device="cpu")
    with pytest.raises(SettingError, match="limit must lie between 1 and"):
        train(digits, "digits-cnn", epochs=1, device="cpu", limit=10**6)
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match=r"'cuda:0' cannot be used here .*pass device='cpu'"):
            train(digits, "digits-cnn")


def test_the_recipe_goes_on_cell_by_cell(few_images: Path, tmp_path: Path) -> None:
    recipe = RECIPES.build("rni:budget=quick,method=rni")
    places = Places(data_root=few_images, work=tmp_path)
    said: list[str] = []
    outcome = recipe.run("vgg-small-cifar10", places, said.append)
    assert "quick budget: 2 + 1 epochs, 400 training images" in outcome.setting
    assert [(cell.criterion, cell.ratio) for cell in outcome.cells] == [("rni", 0.0), ("rni", 0.9)]
    records = sorted((tmp_path / "records").iterdir())
    assert [path.name for path in records] == [
        f"vgg-small-cifar10-rni-{share}-quick-seed0.json" for share in (0, 90)
    ]
    first, second = map(read, records)
    assert sum(first.importances) == sum(first.importances_before) == 432
    assert (
        sum(second.kept.values()) == sum(second.importances) == 43
    )  # exact shares, as its table says
    assert min(second.kept.values()) >= 3
    assert second.params < first.params
    # a cell with a record is not run again, one without is, from the network that was trained
    # already
    first_written = records[0].stat().st_mtime_ns
    records[1].unlink()
    again = recipe.run("vgg-small-cifar10", places, said.append)
    assert again.cells == outcome.cells
    assert records[0].stat().st_mtime_ns == first_written


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    outcome = Rni().run("vgg16-cifar10", Places(data_root=tmp_path), print)
    assert outcome.missing is not None
    assert "cifar10" in outcome.missing
    with pytest.raises(UnknownNameError, match="budget 'fast'"):
        Rni("fast")  # type: ignore[arg-type]  # refused


@pytest.mark.parametrize("name", [run.name for run in committed()])
def test_a_committed_record_is_whole(name: str) -> None:
    run = next(run for run in committed() if run.name == name)
    table = tables()[run.experiment]
    assert run.removed in table["removed"]
    cost = table["budgets"][run.budget]
    assert run.settings["epochs"] == (cost["tuning"] if run.removed else cost["epochs"])
    assert len(run.curve) == run.settings["epochs"] or run.notes
    assert 0 < run.test <= 100
    assert run.versions["torch"]
    assert run.hardware["cpu"]
    if run.removed:
        assert min(run.kept.values()) >= 3
        assert run.untuned is not None


def test_at_nine_tenths_of_the_filters_gone_rni_is_ahead() -> None:
    """Over three seeds, from the committed records of real runs; a point is the noise of three
    runs.

    L1 is behind RNI, as published; but it fell far behind UCS in one seed of three, so no order is
    claimed for these two.
    """
    means = {}
    for method in ("rni", "l1", "ucs"):
        runs = [
            run
            for run in committed()
            if (run.experiment, run.method, run.removed) == ("vgg-small-cifar10", method, 0.9)
        ]
        assert sorted(run.seed for run in runs) == [0, 1, 2]
        means[method] = sum(run.test for run in runs) / 3
    assert means["rni"] >= means["l1"]
    assert means["rni"] >= means["ucs"] - 1


def test_the_tables_in_the_docs_are_those_of_the_records() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for experiment, table in tables().items():
        assert markdown(committed(), experiment, table) in text, f"render it again: {experiment}"


def test_markdown_leaves_cells_without_a_record_empty() -> None:
    run = CellRun("e", "rni", 0.5, 0, "full", 91.234, 92.0, 1, 1, {}, [], 1.0)
    table = {
        "removed": [0.0, 0.5],
        "budgets": {"full": {}, "quick": {}},
        "methods": {"rni": {"published": [93.0, 92.0]}},
    }
    assert markdown([run], "e", table).splitlines()[2:] == [
        "| rni, published | 93.00 | 92.00 |",
        "| rni, measured |  | 91.23 |",
    ]
    assert "| rni, measured |  | 91.23 (91.23 to 91.23, 2 seeds) |" in markdown(
        [run, run], "e", table
    )
    quick = replace(run, budget="quick", test=50.0)
    assert markdown([run, quick], "e", table).splitlines()[3:] == [
        "| rni, measured |  | 91.23 |",
        "| rni, measured (quick) |  | 50.00 |",
    ]
    assert markdown([], "e", table).splitlines()[3:] == ["| rni, measured |  |  |"]


def test_the_logs_are_a_dict_of_lists_by_epoch(digits: Dataset) -> None:
    model, logs = train(digits, "digits-cnn", "ucs", epochs=3, device="cpu", progress=False)
    assert isinstance(logs, dict)
    assert len(logs["test_acc"]) == 3
    assert 0 <= logs["best_epoch"] < 3
    assert logs["val_acc"][logs["best_epoch"]] == max(logs["val_acc"])
    kept = evaluate(model, digits.split("test").batches(500)).accuracy
    assert logs["test_acc"][logs["best_epoch"]] == kept


@pytest.mark.parametrize(("method", "spares"), [("rni", True), ("l1", False), ("ucs", False)])
def test_l1_and_ucs_decay_everything_and_rni_spares_its_scales(
    digits: Dataset, method: Method, spares: bool
) -> None:
    setting = Setting("digits-cnn", method)
    groups = groups_of(fresh(setting, digits), setting)
    assert (groups is not None) == spares
    if groups is not None:
        assert {group.get("weight_decay", 1e-4) for group in groups} == {0.0, 1e-4}
    assert groups_of(fresh(setting, digits), replace(setting, decay="weights")) is not None
    with pytest.raises(UnknownNameError, match="decay 'none'"):
        Setting(decay="none")  # type: ignore[arg-type]  # refused


def test_the_papers_resnet56_has_no_relu_after_its_first_convolution(digits: Dataset) -> None:
    assert fresh(Setting("resnet56", "ucs"), digits).stem == "linear"
    assert fresh(Setting("resnet20", "ucs"), digits).stem == "relu"


def test_at_nine_tenths_the_papers_rule_keeps_what_the_minimum_gave_back() -> None:
    """The rule as the paper's code states it, by numpy's quantile, on a ResNet-56 whose scales
    differ from stage to stage: more stays than a tenth of its 1,008 filters.
    """
    torch.manual_seed(0)
    model = models.build("resnet56:stem=linear").eval()
    for name, module in model.named_modules():
        if name.endswith("bn1") and name.startswith("layer"):
            stage = int(name[5])
            torch.nn.init.uniform_(module.weight, 0, {1: 0.2, 2: 0.6, 3: 1.0}[stage])
    split = HeldSplit(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4), PLAIN)
    data_set = Dataset("none", 10, (3, 32, 32), PLAIN, lambda name: {name: split})
    result = pruned(model, Setting("resnet56", "l1"), data_set, 0.9)
    scales = [
        within.tensor(model, f"layer{stage}.{block}.bn1.weight").detach()
        for stage in (1, 2, 3)
        for block in range(9)
    ]
    threshold = np.quantile(torch.cat(scales).double().numpy(), 0.9)
    wanted = [max(3, int((own.double() > threshold).sum())) for own in scales]
    assert [len(kept.units) for kept in result.plan.values()] == wanted
    assert sum(wanted) > 101
