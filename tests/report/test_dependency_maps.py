"""dependencies.json: what it says of a pruned network, how large it gets, what of it is refused,
and that a report draws it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import niwaki
from niwaki.cli.app import main
from niwaki.core.records import DependencyMap, DependencyMaps, RecordError, read_dependencies
from niwaki.core.records.dependency_maps import LARGEST, LIMIT, MOST
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.given import Given
from niwaki.methods.mint._layer_dependencies import Dependency, contiguous_groups
from niwaki.methods.mint.blocks import CutOff
from niwaki.methods.mint.criterion import unit_scores
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.pruning.trimming import trim
from niwaki.report import read_runs, report_page

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return niwaki.models.build("digits-cnn").eval()


def made_up(model: torch.nn.Module, groups: int = 8) -> list[Dependency]:
    generator, none = torch.Generator().manual_seed(0), torch.zeros(0, dtype=torch.int64)
    found = []
    for pair in layer_pairs(niwaki.trace(model, niwaki.models.example_inputs(model))):
        sides = [contiguous_groups(site.count, groups) for site in (pair.writes, pair.reads)]
        values = torch.rand(
            *(int(side.max()) + 1 for side in sides), generator=generator, dtype=torch.float64
        )
        found.append(Dependency(pair, values, sides[0], sides[1], none, none))
    return found


def share_by_block(item: Dependency, gone: Tensor) -> Tensor:
    """Of the weights (rows, columns, …) that are gone, entry by entry."""
    assert item.pair.columns is not None
    gone = gone.reshape(*gone.shape[:2], -1).double().mean(2)
    groups = item.child_group[item.pair.rows], item.parent_group[item.pair.columns]
    rows, columns = item.values.shape
    parts = [
        gone[groups[0] == row][:, groups[1] == column].mean()
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(parts).reshape(rows, columns)


def test_what_is_said_to_be_gone_of_a_trimmed_network_is_gone(model: torch.nn.Module) -> None:
    found = made_up(model)
    found[2].values[:, 1] = 0  # a group of conv2 is read by nothing, and leaves
    result = trim(
        model, niwaki.models.example_inputs(model), dependencies=found, cut_off=CutOff(params=0.6)
    )
    assert result.plan.kept
    graph = niwaki.trace(model, niwaki.models.example_inputs(model))
    indices = graph.kept_indices(result.plan.kept)
    assert result.dependencies is not None
    maps = {item.child: item for item in result.dependencies.maps}
    assert list(maps) == ["conv2", "conv3", "fc1", "fc2"]
    for item in found[1:]:
        weight = item.pair.weight
        gone = ~result.blocks[weight].mask(graph.state[weight])
        for axis, kept in indices.get(weight, {}).items():
            left = torch.zeros(gone.shape[axis], dtype=torch.bool)
            left[kept] = True
            gone |= ~left.reshape([-1 if axis == other else 1 for other in range(gone.ndim)])
        torch.testing.assert_close(
            torch.tensor(maps[item.pair.child].gone),
            share_by_block(item, gone).float(),
            atol=1e-6,
            rtol=0,
        )


def test_what_is_said_to_be_gone_of_a_pruned_network_is_gone(model: torch.nn.Module) -> None:
    found = made_up(model)
    x = niwaki.models.example_inputs(model)
    graph = niwaki.trace(model, x)
    result = niwaki.prune(
        model, x, criterion=Given(unit_scores(graph, found)), budget=0.3, compensation="none"
    )
    indices = graph.kept_indices(result.plan.kept)
    partly = 0
    for item, drawn in zip(found, dependency_maps(found, units=result.plan).maps, strict=True):
        assert (drawn.parent, drawn.child) == (item.pair.parent, item.pair.child)
        if item.pair.columns is None:
            continue
        stays = torch.ones(graph.state[item.pair.weight].shape, dtype=torch.bool)
        for axis, kept in indices.get(item.pair.weight, {}).items():
            left = torch.zeros(stays.shape[axis], dtype=torch.bool)
            left[kept] = True
            stays &= left.reshape([-1 if axis == other else 1 for other in range(stays.ndim)])
        share = share_by_block(item, ~stays)
        partly += int(((share > 0) & (share < 1)).sum())
        torch.testing.assert_close(torch.tensor(drawn.gone), share.float(), atol=1e-6, rtol=0)
    assert partly
    assert all(drawn.gone == () for drawn in dependency_maps(found).maps)


def test_the_round_trip_keeps_four_digits_and_the_file_stays_small() -> None:
    generator = torch.Generator().manual_seed(0)
    values = tuple(tuple(row) for row in torch.rand(3, 5, generator=generator).double().tolist())
    maps = DependencyMaps(
        (DependencyMap("a", "ü", values, tuple((0.0, 1.0, 0.5, 0.0, 1.0) for _ in values)),)
    )
    again = DependencyMaps.from_json(maps.to_json())
    assert again.maps[0].child == "ü"
    assert torch.allclose(
        torch.tensor(again.maps[0].values), torch.tensor(values), atol=6e-5, rtol=0
    )
    assert again.maps[0].gone == maps.maps[0].gone
    assert DependencyMaps.from_json(again.to_json()) == again
    assert DependencyMaps.from_json(DependencyMaps(()).to_json()) == DependencyMaps(())
    full = DependencyMap(
        "a", "b", *(tuple((1 / 3,) * LARGEST for _ in range(LARGEST)) for _ in range(2))
    )
    most = DependencyMaps((full,) * (MOST // LARGEST**2))
    assert len(most.to_json()) < LIMIT
    with pytest.raises(RecordError, match="use coarser groups"):
        DependencyMaps((full,) * (MOST // LARGEST**2 + 1))


def test_many_groups_are_put_together(model: torch.nn.Module) -> None:
    found = made_up(model, groups=128)
    (wide,) = [item for item in found if item.pair.child == "fc1"]
    assert wide.values.shape == (128, 64)
    (drawn,) = [item for item in dependency_maps(found).maps if item.child == "fc1"]
    wanted = wide.values.reshape(64, 2, 64).mean(1)
    torch.testing.assert_close(torch.tensor(drawn.values).double(), wanted, atol=1e-6, rtol=0)
    many = dependency_maps(found * 200)  # 1000 pairs
    assert max(len(item.values) for item in many.maps) == 16


GOOD: dict[str, Any] = {
    "parent": "a",
    "child": "b",
    "values": [[0.5, 0], [1, 0.25]],
    "gone": [[0, 0], [1, 1]],
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON|nested too deeply"),
        ("[]", "has schema 'None'; this niwaki reads schema 1"),
        ({"schema": 2, "maps": []}, "has schema '2'"),
        ({"schema": True, "maps": []}, "has schema 'True'"),
        ({"schema": 1}, "lacks 'maps'"),
        ({"schema": 1, "maps": [], "more": 1}, "unknown keys 'more'"),
        ({"schema": 1, "maps": {"a": 1}}, "maps must be tuple; it is an object"),
        ({"schema": 1, "maps": [{**GOOD, "values": [[1], [1, 0]]}]}, "ragged"),
        (
            {"schema": 1, "maps": [{**GOOD, "gone": [[0, 0]]}]},
            "ragged: 'gone' must have 2 rows of 2",
        ),
        ({"schema": 1, "maps": [{**GOOD, "values": []}]}, "must have 1 to 64 rows and columns"),
        (
            {"schema": 1, "maps": [{**GOOD, "values": [[0.0] * 65], "gone": []}]},
            "must have 1 to 64 rows and columns",
        ),
        ({"schema": 1, "maps": [{**GOOD, "values": [[0, 1.5], [0, 0]]}]}, "'values' outside"),
        ({"schema": 1, "maps": [{**GOOD, "gone": [[0, -1], [0, 0]]}]}, "'gone' outside"),
        (
            {"schema": 1, "maps": [{**GOOD, "values": [[0, "1"], [0, 0]]}]},
            "must be float; it is a text",
        ),
        (
            {"schema": 1, "maps": [{**GOOD, "values": [[0, True], [0, 0]]}]},
            "must be float; it is true or false",
        ),
        ({"schema": 1, "maps": [{**GOOD, "values": [[0, float("nan")], [0, 0]]}]}, "must be float"),
        ({"schema": 1, "maps": [{**GOOD, "child": 3}]}, "child must be str"),
        (
            {"schema": 1, "maps": [{key: GOOD[key] for key in ("parent", "child", "values")}]},
            "lacks 'gone'",
        ),
    ],
)
def test_what_niwaki_did_not_write_is_refused_by_name(
    text: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "dependencies.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(RecordError, match=message) as refused:
        read_dependencies(path)
    assert str(path) in str(refused.value) or "the map of b on a" in str(refused.value)


def test_a_file_that_is_no_text_or_absurdly_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dependencies.json"
    assert read_dependencies(path) is None
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="cannot be read"):
        read_dependencies(path)
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(RecordError, match="no map is as large"):
        read_dependencies(path)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["niwaki", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, words


def test_the_command_line_writes_what_the_report_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("digits-cnn", "--data", "digits")
    mint = ("--criterion", "mint:groups=4,samples_per_class=20")
    runs = tmp_path / "runs"
    call(
        monkeypatch,
        "prune",
        *words,
        *mint,
        "--scope",
        "blocks",
        "--budget",
        "params=0.5",
        "--out",
        runs / "blocks",
    )
    call(
        monkeypatch,
        "prune",
        *words,
        *mint,
        "--ratio",
        0.3,
        "--compensation",
        "none",
        "--out",
        runs / "units",
    )
    call(monkeypatch, "score", *words, *mint, "--out", tmp_path / "scores.safetensors")
    call(
        monkeypatch,
        "prune",
        *words,
        "--criterion",
        tmp_path / "scores.safetensors",
        "--ratio",
        0.3,
        "--out",
        runs / "again",
    )
    call(monkeypatch, "prune", *words, "--criterion", "l1", "--ratio", 0.3, "--out", runs / "plain")
    assert not (runs / "plain" / "dependencies.json").exists()
    blocks, units, again = (
        read_dependencies(runs / name / "dependencies.json")
        for name in ("blocks", "units", "again")
    )
    scored = read_dependencies(tmp_path / "scores.dependencies.json")
    assert blocks is not None
    assert units is not None
    assert scored is not None
    assert [item.child for item in scored.maps] == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    assert [item.values for item in scored.maps] == [item.values for item in units.maps]
    assert [item.values for item in scored.maps[1:]] == [item.values for item in blocks.maps]
    assert all(item.gone == () for item in scored.maps)
    assert any(value == 1 for item in blocks.maps for row in item.gone for value in row)
    assert any(0 < value < 1 for item in units.maps for row in item.gone for value in row)
    assert again == units
    for name in ("units", "blocks"):
        record = json.loads((runs / name / "record.json").read_text())
        assert "Mint(groups=4" in record["settings"]["criterion"]
        assert record["seconds"]["score"] > 0.05
    niwaki.load(runs / "units")

    found, left_out = read_runs([runs])
    assert left_out == []
    assert {run.name: len(run.dependencies) for run in found} == {
        "again": 5,
        "blocks": 4,
        "plain": 0,
        "units": 5,
    }
    page = report_page(found)
    assert page.count("<figure class=map>") == 14
    assert "fc1 on conv3" in page

    call(
        monkeypatch,
        "finetune",
        runs / "units",
        "--data",
        "digits",
        "--epochs",
        1,
        "--out",
        tmp_path / "tuned",
    )
    assert read_dependencies(tmp_path / "tuned" / "dependencies.json") == units
    (runs / "units" / "dependencies.json").write_text("{")
    with pytest.raises(
        niwaki.NiwakiError, match=r"dependencies\.json was changed after it was saved"
    ):
        niwaki.load(runs / "units")
    (said,) = [run.problems for run in read_runs([runs])[0] if run.name == "units"]
    assert "dependencies.json cannot be read, so dependencies are not shown" in said[0]
