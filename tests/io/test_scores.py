"""Scores in files, the dependency map, and what the command line makes of MINT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

import niwaki
from niwaki.cli.app import app
from niwaki.core.errors import CheckpointError, NiwakiError
from niwaki.graph.pairs import layer_pairs
from niwaki.io.scores import Scores, load_scores, save_scores
from niwaki.methods.mint._layer_dependencies import Dependency, contiguous_groups
from niwaki.methods.mint.blocks import CutOff, cut_blocks
from niwaki.report.dependency_map import draw_dependencies
from niwaki.surgery import BlockSparse

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def graph_and_dependencies() -> tuple[niwaki.Graph, list[Dependency]]:
    model = niwaki.models.build("digits-cnn").eval()
    graph = niwaki.trace(model, niwaki.models.example_inputs(model))
    generator = torch.Generator().manual_seed(0)
    found = []
    for pair in layer_pairs(graph):
        children, parents = (contiguous_groups(site.count, 4) for site in (pair.writes, pair.reads))
        values = torch.rand(4, 4, generator=generator, dtype=torch.float64)
        found.append(
            Dependency(
                pair,
                values,
                children,
                parents,
                torch.tensor([1]),
                torch.zeros(0, dtype=torch.int64),
            )
        )
    return graph, found


def test_scores_come_back_as_they_were(tmp_path: Path) -> None:
    graph, found = graph_and_dependencies()
    units = {group.name: torch.rand(group.width, dtype=torch.float64) for group in graph.groups}
    save_scores(
        Scores("mint:groups=4", units, found, {"data": "digits"}), tmp_path / "s.safetensors"
    )
    again = load_scores(tmp_path / "s.safetensors", graph)
    assert again.criterion == "mint:groups=4"
    assert again.settings == {"data": "digits"}
    assert all(torch.equal(again.units[name], values) for name, values in units.items())
    for before, after in zip(found, again.dependencies, strict=True):
        assert before.pair.name == after.pair.name
        for part in ("values", "child_group", "parent_group", "dead_children", "dead_parents"):
            first: Tensor = getattr(before, part)
            assert torch.equal(first, getattr(after, part))


def test_scores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    graph, found = graph_and_dependencies()
    path = tmp_path / "s.safetensors"
    with pytest.raises(CheckpointError, match="no such file; niwaki score writes one"):
        load_scores(path, graph)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a whole file of scores"):
        load_scores(path, graph)
    units = {group.name: torch.rand(group.width) for group in graph.groups}
    save_scores(
        Scores("l1", {name: values for name, values in units.items() if name != "fc1"}), path
    )
    with pytest.raises(CheckpointError, match="of another network: the two differ at group 'fc1'"):
        load_scores(path, graph)
    found[1].child_group[-1] = 9
    save_scores(Scores("mint", units, found), path)
    with pytest.raises(
        CheckpointError, match="of another network: the two differ at conv1 -> conv2"
    ):
        load_scores(path, graph)
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(CheckpointError, match="holds no scores that this niwaki reads"):
        load_scores(path, graph)


def test_a_dependency_map_is_drawn_with_and_without_cuts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    graph, found = graph_and_dependencies()
    plan = cut_blocks(found[1:], graph.state, CutOff(share=0.4))
    plain = draw_dependencies(found[1], tmp_path / "a" / "plain.svg")
    crossed = draw_dependencies(found[1], tmp_path / "crossed.svg", plan[found[1].pair.weight])
    gone = 16 - len(plan[found[1].pair.weight].kept)
    assert gone > 0
    assert crossed.read_text().count("#b3432b") == 2 * gone
    assert plain.read_text().count("#b3432b") == 0


def niwaki_cli(*words: Any) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, NiwakiError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


MODEL = ("digits-cnn", "--data", "digits")
MINT = ("--criterion", "mint:groups=4,samples_per_class=20")


def test_scores_of_one_run_serve_units_blocks_and_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    said = niwaki_cli(
        "score",
        *MODEL,
        *MINT,
        "--keep",
        tmp_path / "layers",
        "--pictures",
        tmp_path / "maps",
        "--out",
        path,
    )
    assert "conv2" in said
    assert len(list((tmp_path / "layers").glob("*.json"))) == 5
    assert {file.name for file in (tmp_path / "maps").glob("*")} >= {"conv2.png", "fc2.png"}
    common = (*MODEL, "--criterion", path)
    unit = json.loads(
        niwaki_cli("prune", *common, "--ratio", 0.3, "--json").partition("{")[2].join(("{", ""))
    )
    assert (
        unit["settings"]["criterion"].startswith("mint:")
        or "mint" in unit["settings"]["criterion"].lower()
    )
    assert unit["after"]["params"] < unit["before"]["params"]
    niwaki_cli(
        "prune",
        *common,
        "--scope",
        "blocks",
        "--budget",
        "params=0.6",
        "--out",
        tmp_path / "out",
    )
    loaded = niwaki.load(tmp_path / "out")
    assert any(isinstance(module, BlockSparse) for module in loaded.modules())
    table = niwaki_cli("prune", *common, "--scope", "blocks:cut_off=0.2:0.6:0.2,upper_limit=0.9")
    assert all(f"{share} " in table for share in ("0.2", "0.4", "0.6")), table


def test_mint_draws_from_the_training_split_by_itself() -> None:
    said = niwaki_cli("prune", *MODEL, *MINT, "--ratio", 0.25, "--only", "conv2")
    assert "parameters" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--criterion", "l1:groups=4"), "unknown setting of criterion 'l1' 'groups'"),
        (("--criterion", "l1:engine=ray"), "unknown setting of criterion 'l1' 'engine'"),
        ((*MINT, "--scope", "blocks:upper=0.5"), "unknown setting of scope 'blocks' 'upper'"),
        ((*MINT, "--scope", "blocks:fed=perhaps"), "blocks:fed must be bool"),
        ((*MINT, "--scope", "blocks", "--dry-run"), "--dry-run foresees whole channels"),
        ((*MINT, "--scope", "blocks:cut_off=0.5", "--ratio", 0.5), "both say how much goes"),
        (
            (*MINT, "--scope", "blocks", "--budget", "macs=0.5"),
            "blocks go by a share of the weights",
        ),
        ((*MINT, "--scope", "blocks:cut_off=a:b"), "grid is written from:to:step"),
        ((*MINT, "--scope", "blocks", "--ratio", 0.9), "at most 75% of each layer"),
        ((*MINT, "--data", "digits:split=train"), "mint draws from the training split"),
        (("--scope", "blocks"), "only mint says which blocks go"),
        (("--criterion", "nowhere.safetensors"), "no such file; niwaki score writes one"),
    ],
)
def test_words_that_mean_nothing_together_are_refused(words: tuple[Any, ...], message: str) -> None:
    assert message in niwaki_cli("prune", *MODEL, *words)


def test_blocks_need_scores_of_mint(tmp_path: Path) -> None:
    niwaki_cli("score", *MODEL, "--criterion", "l1", "--out", tmp_path / "l1.safetensors")
    said = niwaki_cli(
        "prune", *MODEL, "--criterion", tmp_path / "l1.safetensors", "--scope", "blocks"
    )
    assert "blocks need those of mint" in said
