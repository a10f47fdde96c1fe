"""MINT on networks: which layers are pairs, what is watched, how scores come about, and the same
numbers from all workers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import within
import zoo
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.work import Workers
from niwaki.graph.pairs import find_pair, layer_pairs
from niwaki.methods.mint import _layer_dependencies
from niwaki.methods.mint._layer_dependencies import (
    Dependency,
    Estimation,
    contiguous_groups,
    layer_dependencies,
)
from niwaki.methods.mint.activations import Sampling, observe
from niwaki.methods.mint.criterion import Mint, unit_scores
from niwaki.methods.mint.mutual_information import conditional_mutual_information

pytestmark = pytest.mark.usefixtures("one_thread")


class Small(nn.Module):
    """Convolution, BatchNorm, ReLU, pooling, a second one, a flatten, two Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.pool = nn.Conv2d(6, 9, 3, padding=1), nn.MaxPool2d(4)
        self.fc1, self.fc2 = nn.Linear(9 * 4, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.fc2(torch.relu(self.fc1(x.flatten(1))))
        return out


def small() -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


def images(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def labelled(number: int = 120, classes: int = 4, batch: int = 32) -> niwaki.Calibration:
    x, y = images(number), torch.arange(number) % classes
    return niwaki.Calibration.labelled(
        [(x[i : i + batch], y[i : i + batch]) for i in range(0, number, batch)]
    )


def evidence(
    calibration: niwaki.Calibration | None, model: nn.Module | None = None, seed: int = 0
) -> niwaki.Evidence:
    graph = niwaki.trace(model or small(), images(2, 9))
    return niwaki.Evidence(graph, calibration, torch.Generator().manual_seed(seed))


def test_pairs_of_a_chain_and_what_is_watched() -> None:
    pairs = layer_pairs(evidence(None).graph)
    assert [pair.name for pair in pairs] == [
        "input -> conv1",
        "conv1 -> conv2",
        "conv2 -> fc1",
        "fc1 -> fc2",
    ]
    assert [pair.reads.count for pair in pairs] == [
        64,
        6,
        9,
        10,
    ]  # an image is its pixels; a flatten, its channels
    assert [pair.writes.count for pair in pairs] == [6, 9, 10, 4]
    assert pairs[0].columns is None
    assert pairs[2].columns is not None
    assert pairs[2].columns.tolist() == [unit for unit in range(9) for _ in range(4)]


def test_a_residual_stream_is_one_parent_and_the_branch_a_child_of_it() -> None:
    model = zoo.build("IdentityShortcut")
    pairs = layer_pairs(niwaki.trace(model, zoo.inputs(model, 1)))
    names = {pair.child: pair.parent for pair in pairs}
    assert names["block.conv1"] == "stem"
    assert names["block.conv2"] == "block.conv1"
    (stream,) = [pair for pair in pairs if pair.child == "block.conv2"]
    assert set(stream.child_units) == {"stem"}


def test_a_concatenation_is_two_parents_side_by_side() -> None:
    model = zoo.build("ConcatThenConv")
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    (pair,) = [pair for pair in layer_pairs(graph) if len(pair.parent_units) == 2]
    first, second = (units.tolist() for units in pair.parent_units.values())
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(pair.reads.count))


def test_activations_are_those_that_the_consumers_read() -> None:
    model = small()
    found = evidence(niwaki.Calibration.of([images(5), images(7, 1)]), model)
    pairs = layer_pairs(found.graph)
    sites = [site for pair in pairs for site in (pair.reads, pair.writes)]
    values = observe(found, sites, Sampling(samples=12))
    x = torch.cat([images(5), images(7, 1)])
    order = torch.cdist(values[0], x.mean(1).flatten(1)).argmin(1)  # the draw's order
    x = x[order]
    with torch.no_grad():
        one = torch.relu(model.bn1(model.conv1(x)))
        two = model.pool(torch.relu(model.conv2(one)))
        three = torch.relu(model.fc1(two.flatten(1)))
        wanted = [
            x.mean(1).flatten(1),
            one.mean((2, 3)),
            one.mean((2, 3)),
            two.mean((2, 3)),
            two.mean((2, 3)),
            three,
        ]
        wanted += [three, model.fc2(three)]
    assert sorted(order.tolist()) == list(range(12))
    for value, expected in zip(values, wanted, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_tokens_are_averaged_like_places() -> None:
    model = zoo.build("FusedQkv")
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    found = niwaki.Evidence(graph, zoo.calibration(model))
    pairs = layer_pairs(graph)
    assert pairs
    (values, *_) = observe(found, [pairs[0].reads], Sampling(samples=4))
    assert values.shape == (4, pairs[0].reads.count)


class Counting:
    """A loader that shuffles anew each time and remembers what it gave."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.passes = x, y, 0

    def __call__(self) -> list[tuple[Tensor, Tensor]]:
        self.passes += 1
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.passes))
        return [(self.x[part], self.y[part]) for part in order.split(16)]


def test_draws_are_balanced_over_the_classes_with_replacement_from_a_loader_that_shuffles() -> None:
    x = images(60)
    y = torch.tensor([0] * 40 + [1] * 12 + [2] * 6 + [3] * 2)
    loader = Counting(x, y)
    found = evidence(niwaki.Calibration.labelled(loader))
    (values,) = observe(found, [layer_pairs(found.graph)[0].reads], Sampling(per_class=20))
    assert loader.passes == 2
    origin = torch.cdist(values, x.mean(1).flatten(1)).argmin(1)
    assert Counter(y[origin].tolist()) == {0: 20, 1: 20, 2: 20, 3: 20}
    assert len(set(origin[y[origin] == 0].tolist())) > 10
    assert set(origin[y[origin] == 3].tolist()) == {58, 59}


def test_without_class_numbers_draws_are_plain() -> None:
    x = images(50)
    found = evidence(niwaki.Calibration.of(list(x.split(8))))
    (values,) = observe(found, [layer_pairs(found.graph)[0].reads], Sampling(samples=30))
    origin = torch.cdist(values, x.mean(1).flatten(1)).argmin(1).tolist()
    assert len(set(origin)) == len(origin) == 30


def test_rows_of_parent_and_child_come_from_the_same_inputs() -> None:
    """The published code draws twice; then nothing depends on anything."""
    found = evidence(labelled(400))
    pair = layer_pairs(found.graph)[1]
    parent, child = observe(found, [pair.reads, pair.writes], Sampling(per_class=100))
    assert len(parent) == len(child) == 400
    joint = conditional_mutual_information(child, parent, parent[:, :0])
    torn = conditional_mutual_information(child.roll(1, 0), parent, parent[:, :0])
    assert joint > torn + 0.1


def test_groups_that_do_not_divide_a_layer_are_uneven_and_said_so() -> None:
    assert contiguous_groups(9, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert contiguous_groups(3, 8).tolist() == [0, 1, 2]
    found = layer_dependencies(
        evidence(labelled()),
        layer_pairs(niwaki.trace(small(), images(2)))[1:2],
        Estimation(4, sampling=Sampling(20)),
    )
    assert found[0].values.shape == (4, 4)
    assert any("9 units in 4 groups of 2 or 3" in remark for remark in found[0].remarks)


def dead() -> nn.Module:
    model = small()
    with torch.no_grad():
        within.tensor(model, "bn1.bias")[4:] = -100  # two channels of conv1 that ReLU always closes
    return model


def test_dead_units_score_zero_and_are_said_to_be_dead() -> None:
    said: list[str] = []
    graph = niwaki.trace(dead(), images(2))
    scores = niwaki.score(
        graph, "mint:groups=3,samples_per_class=30", calibration=labelled(), say=said.append
    )
    assert scores["conv1"][4:].tolist() == [0, 0]
    assert bool((scores["conv1"][:4] > 0).all())
    assert any("conv1: 2 dead units" in remark and "4, 5" in remark for remark in said)
    result = niwaki.prune(
        dead(),
        images(2),
        criterion="mint:groups=3,samples_per_class=30",
        budget=0.1,
        calibration=labelled(),
        only="conv1",
    )
    assert result.plan["conv1"].units == (0, 1, 2, 3, 4) or result.plan["conv1"].units == (
        0,
        1,
        2,
        3,
        5,
    )
    assert any("dead" in note for note in result.record.notes)


def test_a_warning_is_given_where_nobody_listens() -> None:
    with pytest.warns(UserWarning, match="2 dead units"):
        niwaki.score(
            niwaki.trace(dead(), images(2)),
            "mint:groups=3,samples_per_class=30",
            calibration=labelled(),
        )


def test_units_that_are_not_finite_are_dead_and_a_layer_of_them_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    graph = niwaki.trace(model, x[:2])
    with torch.no_grad():
        within.tensor(model, "0.weight")[2] = 3e38  # overflows
    found = niwaki.Evidence(graph, niwaki.Calibration.of([x]), say=lambda remark: None)
    (pair,) = [pair for pair in layer_pairs(graph) if pair.child == "0"]
    (dependency,) = layer_dependencies(found, [pair], Estimation(2))
    assert 2 in dependency.dead_children
    broken = niwaki.Evidence(graph, niwaki.Calibration.of([x * float("nan")]))
    with pytest.raises(SettingError, match="no unit of 0 has finite activations"):
        layer_dependencies(broken, [pair], Estimation(2))


@pytest.mark.parametrize(
    ("calibration", "settings", "message"),
    [
        (None, "", "pass some as calibration="),
        (niwaki.Calibration.of([images(4)]), "", "4 samples cannot be split in three"),
        (labelled(40, 3), "", "class 3 has no calibration input, and 250 of each of 4 classes"),
        (labelled(), "groups=0", "groups must be at least 1"),
        (labelled(), "samples_per_class=0", "per_class must be at least 1"),
        (labelled(), "workers=0", "workers must be at least 1"),
        (labelled(), "engine=slurm", "is one of local, ray"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(calibration: Any, settings: str, message: str) -> None:
    graph = niwaki.trace(small(), images(2))
    with pytest.raises(SettingError, match=message):
        niwaki.score(graph, f"mint:{settings}" if settings else "mint", calibration=calibration)


def test_a_layer_pair_that_shares_no_edge_is_refused() -> None:
    graph = niwaki.trace(small(), images(2))
    assert find_pair(graph, "conv1", "conv2").name == "conv1 -> conv2"
    with pytest.raises(
        SettingError, match="'conv1' and 'fc2' share no edge: fc2 reads what fc1 writes"
    ):
        find_pair(graph, "conv1", "fc2")
    with pytest.raises(UnknownNameError, match="did you mean 'fc2'"):
        find_pair(graph, "conv1", "fc3")


def test_class_numbers_for_some_batches_only_are_refused() -> None:
    calibration = niwaki.Calibration(
        lambda: [(images(4), torch.zeros(4, dtype=torch.int64)), (images(4), None)]
    )
    with pytest.raises(
        SettingError, match="some calibration batches have class numbers and some have none"
    ):
        layer_dependencies(evidence(calibration), layer_pairs(evidence(None).graph), Estimation())


def test_a_loader_that_gives_less_the_second_time_is_refused() -> None:
    passes: list[int] = []

    def batches() -> list[Any]:
        passes.append(0)
        return [(images(8), None)] * (3 if len(passes) == 1 else 1)

    with pytest.raises(SettingError, match="gave fewer inputs the second time"):
        layer_dependencies(
            evidence(niwaki.Calibration(batches)), layer_pairs(evidence(None).graph), Estimation()
        )


def by_hand(values: list[list[float]]) -> tuple[niwaki.Graph, Dependency]:
    graph = niwaki.trace(small(), images(2))
    pair = layer_pairs(graph)[1]  # conv1 (6) -> conv2 (9)
    none = torch.zeros(0, dtype=torch.int64)
    matrix = torch.tensor(values, dtype=torch.float64)
    return graph, Dependency(
        pair,
        matrix,
        contiguous_groups(9, len(matrix)),
        contiguous_groups(6, matrix.shape[1]),
        none,
        torch.tensor([5]),
    )


def test_a_units_score_is_the_mean_of_its_blocks_and_weights_order_its_group() -> None:
    graph, dependency = by_hand([[0.2, 0.0, 0.6], [0.4, 0.0, 0.0]])
    scores = unit_scores(graph, [dependency])
    assert scores["conv1"].tolist() == pytest.approx([0.3, 0.3, 0.0, 0.0, 0.3, 0.0], abs=2e-6)
    assert scores["conv1"][5] == 0  # dead
    norms = graph["conv1"].rows(graph.state).norm(dim=1)
    for first, second in ((0, 1), (2, 3)):
        assert (scores["conv1"][first] > scores["conv1"][second]) == (norms[first] > norms[second])
    # nothing in these pairs reads conv2: it scores by what it owes to conv1
    assert scores["conv2"].tolist() == pytest.approx([0.8 / 3] * 5 + [0.4 / 3] * 4, abs=2e-6)
    assert scores["fc1"].tolist() == [0] * 10


def test_mint_finds_the_channels_that_are_read() -> None:
    """Half of the hidden units reach the output: these are worth more than those whose columns are
    zero.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6)).eval()
    with torch.no_grad():
        within.tensor(model, "2.weight")[:, 6:] = 0
        within.tensor(model, "0.weight").copy_(torch.randn(12, 8))
    x = torch.randn(900, 8, generator=torch.Generator().manual_seed(1))
    graph = niwaki.trace(model, x[:2])
    scores = niwaki.score(
        graph, "mint:groups=2,samples=900", calibration=niwaki.Calibration.of(list(x.split(100)))
    )
    assert scores["0"][:6].min() > scores["0"][6:].max()


def same(first: list[Dependency], second: list[Dependency]) -> bool:
    return all(torch.equal(a.values, b.values) for a, b in zip(first, second, strict=True))


def run(workers: Workers, folder: Path | None = None, seed: int = 0) -> list[Dependency]:
    found = evidence(labelled(), seed=seed)
    return layer_dependencies(
        found,
        layer_pairs(found.graph),
        Estimation(3, sampling=Sampling(25), workers=workers, folder=folder),
    )


def test_finished_layers_are_kept_and_an_interrupted_scoring_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(Workers())
    real = _layer_dependencies.estimate_piece
    done: list[int] = []

    def interrupted(*piece: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*piece)

    monkeypatch.setattr(_layer_dependencies, "estimate_piece", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(Workers(), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2

    def counted(*piece: Any) -> Any:
        done.append(1)
        return real(*piece)

    monkeypatch.setattr(_layer_dependencies, "estimate_piece", counted)
    assert same(run(Workers(), tmp_path), whole)
    assert len(done) == 4  # two before, two after
    assert not same(
        run(Workers(), tmp_path, seed=1), whole
    )  # what is kept is kept by all that it depends on
    assert len(done) == 8


def test_a_damaged_kept_layer_is_named(tmp_path: Path) -> None:
    run(Workers(), tmp_path)
    path = sorted(tmp_path.glob("*.json"))[0]
    path.write_text("{")
    with pytest.raises(SettingError, match=f"{path.name} is damaged"):
        run(Workers(), tmp_path)


def test_settings_are_read_from_the_notation() -> None:
    mint = niwaki.methods.base.CRITERIA.build(
        "mint:groups=50,samples_per_class=250,resampling=once,workers=2"
    )
    assert mint == Mint(50, 250, resampling="once", workers=2)
