"""From words to cells: the product of the axes, names that tell cells apart, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from niwaki.cli.sweep_words import asked_of
from niwaki.core.errors import BudgetError, NiwakiError, SettingError, UnknownNameError
from niwaki.core.records import Measurement, Record
from niwaki.sweep.front import front_of, two_measures
from niwaki.sweep.grid import Cell, Common, Grid
from niwaki.sweep.search import Range, ranges_of
from niwaki.sweep.words import read_sweep


def test_cells_are_the_product_of_the_axes() -> None:
    grid = Grid(
        models=("digits-cnn",),
        criteria=("l1", "l2"),
        repairs=("none", "merge", "auto"),
        budgets=("0.3", "macs=0.5"),
        seeds=(0, 1),
    )
    cells = grid.cells()
    assert len(cells) == 1 * 2 * 3 * 2 * 2 == len(set(cells))
    assert cells[0] == Cell("digits-cnn", "l1", "none", "0.3", 0)
    assert cells[1] == Cell("digits-cnn", "l1", "none", "0.3", 1)
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(set(cell.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for cell in cells)


def test_names_differ_where_only_signs_do() -> None:
    first = Cell("m", "l1", "merge:threshold=0.1", "0.5", 0)
    second = Cell("m", "l1", "merge:threshold=01", "0.5", 0)
    assert first.name != second.name


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"models": ()}, SettingError, "models is empty"),
        ({"criteria": ()}, SettingError, "criteria is empty"),
        ({"seeds": (0, 0)}, SettingError, "seeds has 0 twice"),
        ({"criteria": ("l3",)}, UnknownNameError, "did you mean"),
        ({"repairs": ("merg",)}, UnknownNameError, "did you mean 'merge'"),
        ({"budgets": ("mac=0.5",)}, UnknownNameError, "did you mean 'macs'"),
        ({"budgets": ("1.5",)}, BudgetError, "share to remove"),
        ({"models": ("digit-cnn",)}, UnknownNameError, "did you mean 'digits-cnn'"),
        ({"models": ("digits-cnn@no.pth",)}, SettingError, "no weights file no.pth"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_runs(
    words: dict[str, Any], error: type[NiwakiError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Grid(**{"models": ("digits-cnn",), **words}).checked()


def test_a_file_is_read_and_the_command_line_replaces_its_words(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'models = "digits-cnn"\ncriteria = ["l1", "l2"]\nbudgets = [0.3, "macs=0.5"]\n'
        'seeds = [0, 1]\ndata = "digits"\nskip = ["fc*"]\nfront = "accuracy,latency"\n'
    )
    asked = asked_of([str(path)], {"criteria": ["random"], "repairs": None, "budgets": []})
    assert asked.grid == Grid(("digits-cnn",), ("random",), ("auto",), ("0.3", "macs=0.5"), (0, 1))
    assert asked.common == Common(data="digits", skip=("fc*",), timed=True)
    assert not asked_of([str(path)], {"front": "accuracy,macs"}).common.timed
    assert asked_of([str(path)], {"front": "accuracy,macs", "timed": True}).common.timed
    assert asked.front == ("accuracy", "latency")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("criterion = ['l1']", "did you mean 'criteria'"),
        ("criteria = [", "is not TOML"),
        ("seeds = ['a']", "list of whole numbers"),
        ("seeds = [true]", "list of whole numbers"),
        ("criteria = [['l1']]", "a text or a list of texts; got"),
    ],
)
def test_files_that_say_nothing_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(NiwakiError, match=message):
        read_sweep(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_sweep(tmp_path / "gone.toml")
    path.write_text("data = 'digits'")
    with pytest.raises(SettingError, match="names no models"):
        asked_of([str(path)], {})
    with pytest.raises(SettingError, match="one TOML file"):
        asked_of([str(path), "digits-cnn"], {})


def record(accuracy: float, macs: int, score: float | None = None, more: bool = True) -> Record:
    scores = {} if score is None else {"map": score}
    found = Measurement(accuracy, 0.1, 10, macs, 1.0, 40, scores=scores)
    settings = {"task": {"primary": "map", "more_is_better": more}}
    return Record(found, found, settings, 0, {})


def test_the_front_is_what_nothing_beats_in_two_measures() -> None:
    records = [record(0.9, 5), record(0.8, 2), record(0.7, 3), record(0.9, 6)]
    assert front_of(records, ("accuracy", "macs")) == [0, 1]
    assert front_of(records, ("macs", "accuracy")) == [0, 1]
    assert front_of([], ("accuracy", "macs")) == []
    errors = [record(0.9, 5, 0.3, more=False), record(0.9, 5, 0.2, more=False)]
    assert front_of(errors, ("map", "macs")) == [1]
    assert front_of([record(0.9, 5, 0.3), record(0.9, 5, 0.2)], ("map", "macs")) == [0]
    assert front_of(records, ("accuracy", "map")) == []
    untimed = dataclasses.replace(records[0].after, macs=1, latency_ms=0.0, peak_bytes=0)
    quick = [*records, dataclasses.replace(records[0], after=untimed)]
    assert front_of(quick, ("accuracy", "latency")) == [0]
    assert front_of(quick, ("accuracy", "peak")) == []
    assert front_of(quick, ("accuracy", "macs")) == [4]
    with pytest.raises(UnknownNameError, match="measure 'mac'; did you mean 'macs'"):
        two_measures("accuracy,mac")
    assert two_measures("accuracy,mac", own=True) == ("accuracy", "mac")
    with pytest.raises(SettingError, match="between two measures"):
        two_measures("accuracy")


def test_ranges_are_read_and_belong_to_placeholders() -> None:
    assert Range.parse("n=1..8").whole
    assert Range.parse("r=1e-4..1e-1,log") == Range("r", (), 1e-4, 0.1, False, True)
    assert Range.parse("c=l1|l2").choices == ("l1", "l2")
    for text in ("t", "t=1", "t=2..1", "t=0..1,log", "t=a..b", "=1..2", "t=1..2,lin"):
        with pytest.raises(SettingError, match="range"):
            Range.parse(text)
    grid = Grid(("digits-cnn",), repairs=("merge:threshold={t}",))
    assert grid.filled({"t": 0.3}).repairs == ("merge:threshold=0.3",)
    assert len(ranges_of(["t=0.1..0.9"], grid)) == 1
    with pytest.raises(SettingError, match="stands in no criterion"):
        ranges_of(["t=0.1..0.9", "u=1..2"], grid)
    with pytest.raises(SettingError, match="has no range"):
        ranges_of([], grid)


def test_a_search_looks_at_validation_data_alone() -> None:
    words = {"repairs": ["merge:threshold={t}"], "search": ["t=0.1..0.9"], "data": "digits"}
    assert asked_of(["digits-cnn"], words).common.data == "digits:split=validation"
    limited = asked_of(["digits-cnn"], {**words, "data": "digits:limit=50"})
    assert limited.common.data == "digits:limit=50,split=validation"
    with pytest.raises(SettingError, match="split=test"):
        asked_of(["digits-cnn"], {**words, "data": "digits:split=test"})
    with pytest.raises(SettingError, match="say what is chosen"):
        asked_of(["digits-cnn"], {"trials": 3})
