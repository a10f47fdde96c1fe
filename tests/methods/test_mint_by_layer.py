"""MINT's numbers by layer: groups of parents and children, samples of a pair, limits of a layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import niwaki
from niwaki.cli.app import app
from niwaki.cli.blocks import BlockWords, MintWords
from niwaki.core.errors import NiwakiError, SettingError
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.mint import Estimation, Mint, PairSettings, layer_dependencies
from niwaki.methods.mint.activations import Sampling, observe
from niwaki.methods.mint.blocks import CutOff, cut_blocks

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
COMMON = Estimation(4, sampling=Sampling(10, 40))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)
    ).eval()


def inputs(count: int = 90) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1))


def found(estimation: Estimation, labelled: bool = True) -> dict[str, Any]:
    graph = niwaki.trace(net(), inputs(2))
    x = inputs()
    batches: Any = [(x, torch.arange(90) % 4)] if labelled else [x]
    make = niwaki.Calibration.labelled if labelled else niwaki.Calibration.of
    evidence = niwaki.Evidence(graph, make(batches), torch.Generator().manual_seed(0))
    pairs = [pair for pair in layer_pairs(graph) if pair.columns is not None]
    return {item.pair.child: item for item in layer_dependencies(evidence, pairs, estimation)}


def test_parents_and_children_have_groups_of_their_own_by_layer() -> None:
    plain = found(COMMON)
    assert {name: tuple(item.values.shape) for name, item in plain.items()} == {
        "0": (4, 4),
        "2": (4, 4),
        "4": (4, 4),
    }
    own = {"2": PairSettings(6, 3), "4": PairSettings(child_groups=2)}
    by_layer = found(Estimation(4, sampling=Sampling(10, 40), by_layer=own))
    assert [tuple(item.values.shape) for item in by_layer.values()] == [(4, 4), (3, 6), (2, 4)]
    assert torch.equal(by_layer["0"].values, plain["0"].values)
    everywhere = found(Estimation(4, 2, Sampling(10, 40)))
    assert {tuple(item.values.shape) for item in everywhere.values()} == {(2, 4)}


def test_the_last_of_several_patterns_counts_and_an_unknown_one_is_named() -> None:
    estimation = Estimation(by_layer={"*": PairSettings(3), "2": PairSettings(5)})
    assert estimation.groups_of("0") == (3, 3)
    assert estimation.groups_of("2") == (5, 5)
    with pytest.raises(SettingError, match="by_layer names 'conv9', and no such layer"):
        found(Estimation(by_layer={"conv9": PairSettings(3)}))
    with pytest.raises(SettingError, match="groups must be at least 1; got 0"):
        PairSettings(0)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_pair_has_as_many_samples_as_were_asked(
    labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from niwaki.methods.mint import _layer_dependencies as module

    seen: dict[int, int] = {}
    watched: Callable[..., list[Tensor]] = observe

    def watching(evidence: Any, sites: Any, sampling: Sampling) -> list[Tensor]:
        values = watched(evidence, sites, sampling)
        seen[len(values[0])] = len(sites)
        return values

    monkeypatch.setattr(module, "observe", watching)
    own = {"2": PairSettings(per_class=15, samples=60)}
    found(Estimation(2, sampling=Sampling(10, 40), by_layer=own), labelled)
    assert seen == {40: 4, 60: 2}


def test_a_layer_has_a_limit_of_its_own() -> None:
    items = list(found(COMMON).values())
    state = dict(net().named_parameters())
    cut_off = CutOff(share=1.0, upper_limit=0.75, limits={"2": 0.5, "4": 0.25})
    plan = cut_blocks(items, state, cut_off)
    lost = {name: 1 - plan[name].mask(state[name]).double().mean() for name in plan}
    assert 0.5 < lost["0.weight"] <= 0.75
    assert 0.3 < lost["2.weight"] <= 0.5
    assert 0.0 < lost["4.weight"] <= 0.25
    with pytest.raises(SettingError, match="limits names 'conv5', and no such layer"):
        cut_blocks(items, state, CutOff(share=1.0, limits={"conv5": 0.4}))
    with pytest.raises(SettingError, match="the upper limit of '2' is a share"):
        CutOff(share=1.0, limits={"2": 1.4})
    with pytest.raises(NiwakiError, match="at most 75% of each layer, or its own limit,"):
        cut_blocks(items, state, CutOff(params=0.74, limits={"2": 0.5}))


def test_the_command_line_writes_numbers_by_layer() -> None:
    words = MintWords(groups="8,fc2=250x100", samples_per_class="20,fc2=30,conv*=40")
    method = words.criterion("mint")
    assert isinstance(method, Mint)
    assert (method.groups, method.child_groups, method.samples_per_class) == (8, None, 20)
    assert method.by_layer == {
        "fc2": PairSettings(250, 100, 30),
        "conv*": PairSettings(per_class=40),
    }
    both = MintWords(groups="250x100").criterion("mint")
    assert isinstance(both, Mint)
    assert (both.groups, both.child_groups) == (250, 100)
    (cut_off,) = BlockWords(None, "0.3", "0.75,conv[5-8]=0.45").all()
    assert (cut_off.upper_limit, cut_off.limits) == (0.75, {"conv[5-8]": 0.45})
    for given in ("8,9", "8,fc2=many", "axb"):
        with pytest.raises(SettingError, match="8,fc2=250x100"):
            MintWords(groups=given).criterion("mint")


def test_niwaki_score_takes_them(tmp_path: Path) -> None:
    out = tmp_path / "scores.safetensors"
    words = ["score", "digits-cnn", "--data", "digits", "--out", str(out), "--samples-per-class"]
    result = CliRunner().invoke(app, [*words, "20", "--groups", "4,fc1=3x5"])
    assert result.exit_code == 0, result.output
    graph = niwaki.trace(niwaki.models.build("digits-cnn"), torch.randn(2, 1, 8, 8))
    scores = niwaki.io.scores.load_scores(out, graph)
    shapes = {item.pair.child: tuple(item.values.shape) for item in scores.dependencies}
    assert (shapes["fc1"], shapes["conv2"]) == ((5, 3), (4, 4))
