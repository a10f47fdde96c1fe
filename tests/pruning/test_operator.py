"""What niwaki knows of an operator is answered by one call and stands on one page."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

import niwaki
from niwaki.core.errors import UnknownNameError
from niwaki.pruning._operator import COLUMNS, operators

ROOT = Path(__file__).parents[2]
ABOVE_THE_TABLE = [
    path
    for path in (ROOT / "src" / "niwaki").rglob("*.py")
    if path.parent.name != "operators" and "running" not in path.parts
]


def test_of_a_convolution_every_room_says_its_own() -> None:
    record = niwaki.operator("convolution")
    assert record.name == "aten.convolution"
    assert list(record.facts) == ["axes", "weighted", "moments", "restated"]
    assert record.lines["weighted"] == "input · weight (out, in) over an image + bias"
    printed = str(record).splitlines()
    assert printed[0] == "aten.convolution"
    assert [line.split()[0] for line in printed[1:]] == list(record.facts)


def test_an_operator_that_writes_in_place_has_the_record_of_the_plain_one() -> None:
    assert niwaki.operator("aten.add_").facts == niwaki.operator("add").facts


def test_an_operator_without_a_record_is_an_error_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match=r"aten\.convolution"):
        niwaki.operator("convolutoin")


def test_every_record_is_of_an_operator_that_some_torch_has() -> None:
    of_some = {"_grouped_mm", "_scaled_dot_product_fused_attention_overrideable"}
    of_other_ranks = {"_adaptive_avg_pool1d"}
    names = [name.removeprefix("aten.") for name in operators() if name.startswith("aten.")]
    missing = {name for name in names if not hasattr(torch.ops.aten, name)}
    assert missing <= of_some | of_other_ranks
    assert len(names) > 300


def test_columns_have_names_of_their_own_and_say_what_they_are() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.meaning for column in COLUMNS)


def test_arguments_go_by_name_outside_the_table() -> None:
    by_place = re.compile(r"\bop\.args\[\d|\bop\.args\[:|\.arg\(\d")
    places = [
        f"{path.name}: {line.strip()}"
        for path in ABOVE_THE_TABLE
        for line in path.read_text(encoding="utf-8").splitlines()
        if by_place.search(line)
    ]
    assert places == [], places


def test_the_page_is_what_the_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = importlib.import_module("operators")
    shown = page.PAGE.read_text(encoding="utf-8")
    assert f"{page.START}\n{page.as_markdown()}\n{page.END}" in shown, (
        "write it anew: cd benchmarks; python operators.py --page"
    )
