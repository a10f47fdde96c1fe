"""Trimming of blocks: what is cut, that it stays cut, and that the compact network is the masked
one.
"""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import within
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import niwaki
from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.errors import BudgetError, SettingError, SurgeryError
from niwaki.graph.pairs import LayerPair, layer_pairs
from niwaki.io.blocks import kept_weights, opened, put_back, take_out
from niwaki.io.standalone import whole_weight
from niwaki.methods.mint._layer_dependencies import Dependency, Estimation, contiguous_groups
from niwaki.methods.mint.activations import Sampling
from niwaki.methods.mint.blocks import CutOff, cut_blocks, grid
from niwaki.pruning.trimming import Masks, scope, trim, without_idle
from niwaki.surgery import (
    BlockConv2d,
    BlockLinear,
    as_blocks,
    as_dense,
    stored_bytes,
    with_blocks,
    without_blocks,
)

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Net(nn.Module):
    """Two convolutions with BatchNorm, a flatten, and two Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1, stride=2), nn.BatchNorm2d(12)
        self.fc1, self.fc2 = nn.Linear(12 * 4, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.fc2(F.relu(self.fc1(F.max_pool2d(x, 2).flatten(1))))
        return out


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net().eval()


def images(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def dependency(pair: LayerPair, values: Tensor) -> Dependency:
    none = torch.zeros(0, dtype=torch.int64)
    children, parents = pair.writes.count, pair.reads.count
    return Dependency(
        pair,
        values.double(),
        contiguous_groups(children, len(values)),
        contiguous_groups(parents, values.shape[1]),
        none,
        none,
    )


def made_up(model: nn.Module, groups: int = 4, seed: int = 0) -> list[Dependency]:
    generator = torch.Generator().manual_seed(seed)
    pairs = [
        pair for pair in layer_pairs(niwaki.trace(model, images(2))) if pair.columns is not None
    ]
    return [
        dependency(
            pair,
            torch.rand(
                min(groups, pair.writes.count), min(groups, pair.reads.count), generator=generator
            ),
        )
        for pair in pairs
    ]


def state(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def test_everything_up_to_the_cut_off_goes_and_nothing_else() -> None:
    model = net()
    found = made_up(model)
    values = torch.cat([item.values.flatten() for item in found]).unique()
    plan = cut_blocks(found, state(model), CutOff(share=0.5, upper_limit=1))
    cut_off = values[round(0.5 * (len(values) - 1))]
    for item in found:
        columns = item.pair.columns
        assert columns is not None
        stays = {(row, column) for row, column in (item.values > cut_off).nonzero().tolist()}
        assert set(plan[item.pair.weight].kept) == stays
        mask = plan[item.pair.weight].mask(state(model)[item.pair.weight])
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                group = (
                    int(item.child_group[item.pair.rows[row]]),
                    int(item.parent_group[columns[column]]),
                )
                assert (
                    bool(mask[row, column].all())
                    == bool(mask[row, column].any())
                    == (group in stays)
                )


def test_the_cut_off_counts_different_values_once() -> None:
    model = net()
    found = made_up(model)[:1]
    (item,) = found
    item.values.copy_(
        torch.tensor(
            [[0.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3], [0.4, 0.4, 0.4, 0.4]]
        )
    )
    plan = cut_blocks(
        found, state(model), CutOff(share=0.25, upper_limit=1)
    )  # the values are 0, .1, .2, .3, .4
    assert len(plan[item.pair.weight].kept) == 16 - 6 - 2


def test_a_layer_stops_at_its_upper_limit_and_the_others_go_on() -> None:
    model = net()
    found = made_up(model)
    found[0].values.mul_(1e-3)  # the first layer would lose everything
    plan = cut_blocks(found, state(model), CutOff(share=0.6, upper_limit=0.75))
    first, second = (
        1 - plan[item.pair.weight].mask(state(model)[item.pair.weight]).double().mean()
        for item in found[:2]
    )
    assert first == 0.75
    assert 0.2 < second <= 0.75
    kept = found[0].values.flatten()[
        [4 * row + column for row, column in plan[found[0].pair.weight].kept]
    ]
    assert kept.min() > found[0].values.flatten().sort().values[11]


def test_fed_groups_keep_their_strongest_block() -> None:
    model = net()
    found = made_up(model)
    plan = cut_blocks(found, state(model), CutOff(share=1.0, upper_limit=1, fed=True))
    for item in found:
        strongest = {(row, int(item.values[row].argmax())) for row in range(len(item.values))}
        assert set(plan[item.pair.weight].kept) == strongest
    assert not any(
        layer.kept
        for layer in cut_blocks(found, state(model), CutOff(share=1.0, upper_limit=1)).values()
    )
    with pytest.raises(BudgetError, match="and a block left to every group"):
        cut_blocks(found, state(model), CutOff(params=0.99, upper_limit=1, fed=True))


def test_equal_dependencies_lose_their_smallest_weights_first() -> None:
    model = net()
    found = made_up(model)[:1]
    found[0].values.zero_()
    weight = state(model)[found[0].pair.weight]
    with torch.no_grad():
        weight[:3] *= 10  # the first group of rows
    plan = cut_blocks(found, state(model), CutOff(share=0.0, upper_limit=0.75))
    assert set(plan[found[0].pair.weight].kept) == {(0, 0), (0, 1), (0, 2), (0, 3)}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_a_share_of_the_weights_is_met(share: float) -> None:
    model = net()
    found = made_up(model)
    plan = cut_blocks(found, state(model), CutOff(params=share, upper_limit=1))
    gone = Masks(plan, state(model)).gone
    blocks = sum(item.values.numel() for item in found)
    assert share <= gone <= min(1, share + 4 / blocks)


def test_a_share_that_the_limits_do_not_allow_is_refused_with_what_can_go() -> None:
    model = net()
    with pytest.raises(
        BudgetError,
        match=r"cannot remove 90.00% of the weights: with at most 50% .*raise the upper",
    ):
        cut_blocks(made_up(model), state(model), CutOff(params=0.9, upper_limit=0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of them"),
        ({"share": 0.5, "params": 0.5}, "give one of them"),
        ({"share": 1.5}, "the cut-off is a share in"),
        ({"params": 0.5, "upper_limit": -1}, "the upper limit is a share in"),
    ],
)
def test_a_cut_off_that_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CutOff(**arguments)


def test_a_grid_of_cut_offs_has_both_ends() -> None:
    assert grid("0.1:0.5:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert grid("0:1:0.3") == (0.0, 0.3, 0.6, 0.9)
    assert grid("0.7") == (0.7,)
    for wrong in ("a", "0.5:0.1:0.1", "0:1:0", "0:1", "0:2:1"):
        with pytest.raises(SettingError, match="grid"):
            grid(wrong)


def test_a_plan_of_blocks_is_json_and_damage_is_refused() -> None:
    model = net()
    plan = cut_blocks(made_up(model), state(model), CutOff(share=0.5))
    assert BlockPlan.from_json(plan.to_json()) == plan
    for wrong, message in (
        ("{", "not JSON"),
        ("{}", "no schema 1"),
        (plan.to_json().replace('"rows"', '"lines"'), "cannot be read"),
        (plan.to_json().replace("[[0,", "[[99,", 1), "are not blocks of its rows"),
    ):
        if wrong != plan.to_json():
            with pytest.raises(SettingError, match=message):
                BlockPlan.from_json(wrong)


def random_blocks(generator: torch.Generator, rows: int, columns: int) -> LayerBlocks:
    row_groups, column_groups = (
        int(torch.randint(1, n + 1, (1,), generator=generator)) for n in (rows, columns)
    )
    kept = torch.rand(row_groups, column_groups, generator=generator) < torch.rand(
        (), generator=generator
    )
    sides = []
    for size, groups in ((rows, row_groups), (columns, column_groups)):
        side = contiguous_groups(size, groups)
        if (
            groups > 1 and torch.rand((), generator=generator) < 0.2
        ):  # indices that belong to no group always stay
            side = torch.where(side == groups - 1, -1, side)
        if (
            torch.rand((), generator=generator) < 0.3
        ):  # channels behind a flatten need not lie together
            side = side[torch.randperm(size, generator=generator)]
        sides.append(tuple(side.tolist()))
    row_groups, column_groups = (max(side) for side in sides)
    left = tuple(
        (r, c) for r, c in kept.nonzero().tolist() if r <= row_groups and c <= column_groups
    )
    return LayerBlocks(sides[0], sides[1], left)


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_layer_of_blocks_is_the_masked_layer(seed: int, conv: bool, bias: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (int(n) for n in torch.randint(1, 12, (2,), generator=generator))
    if conv:
        layer: Any = nn.Conv2d(columns, rows, 3, stride=2, padding=1, dilation=2, bias=bias)
        x = torch.randn(2, columns, 9, 7, generator=generator, dtype=torch.float64)
    else:
        layer = nn.Linear(columns, rows, bias=bias)
        x = torch.randn(2, 3, columns, generator=generator, dtype=torch.float64)
    layer = layer.double()
    blocks = random_blocks(generator, rows, columns)
    masked = copy.deepcopy(layer)
    mask = blocks.mask(layer.weight)
    with torch.no_grad():
        masked.weight.mul_(mask)
    made = as_blocks(layer, blocks)
    assert made.weight.numel() == int(mask.sum())
    wanted = masked(x)
    for dense in (False, True):
        made.dense = dense
        torch.testing.assert_close(made(x), wanted)
        with torch.no_grad():
            torch.testing.assert_close(made(x), wanted)
    back = as_dense(made)
    assert torch.equal(back.weight, masked.weight)
    assert torch.equal(
        whole_weight(made.weight.detach(), vars(blocks), list(layer.weight.shape)), masked.weight
    )
    torch.testing.assert_close(back(x), wanted)
    # and it learns what the masked layer learns
    for dense in (False, True) if made.weight.numel() else ():
        made.dense, made.weight.grad, masked.weight.grad = dense, None, None
        made(x).square().sum().backward()
        masked(x).square().sum().backward()
        learned = copy.deepcopy(made)
        assert made.weight.grad is not None
        learned.weight.data = made.weight.grad
        torch.testing.assert_close(learned.dense_weight(), masked.weight.grad * mask)


def test_a_dense_product_follows_the_weights() -> None:
    layer = as_blocks(
        nn.Linear(6, 4), LayerBlocks((0, 0, 1, 1), (0, 0, 0, 1, 1, 1), ((0, 1), (1, 0)))
    )
    x, layer.dense = torch.randn(3, 6), True
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x) - layer.bias, 2 * (before - layer.bias))
        layer.load_state_dict(
            {key: torch.zeros_like(value) for key, value in layer.state_dict().items()}
        )
        assert bool((layer(x) == 0).all())


def test_only_what_is_left_is_stored() -> None:
    layer = nn.Linear(100, 60)
    blocks = LayerBlocks(
        tuple(contiguous_groups(60, 6).tolist()),
        tuple(contiguous_groups(100, 10).tolist()),
        ((0, 0), (3, 9), (3, 2)),
    )
    made = as_blocks(layer, blocks)
    assert made.weight.numel() == 3 * 10 * 10
    assert made.index_bytes == 2 * (6 + 10) + 4 * 3
    assert stored_bytes(nn.Sequential(made)) == 4 * (300 + 60) + 44
    assert set(made.state_dict()) == {"weight", "bias"}


def test_layers_without_a_form_of_blocks_are_refused() -> None:
    blocks = LayerBlocks((0,) * 4, (0,) * 2, ())
    for layer in (nn.Conv2d(4, 4, 1, groups=2), nn.ConvTranspose2d(2, 4, 1), nn.Conv1d(2, 4, 1)):
        with pytest.raises(SurgeryError, match="has no form of blocks"):
            as_blocks(layer, blocks)


def test_a_model_goes_to_blocks_and_back() -> None:
    model = net()
    plan = cut_blocks(made_up(model), state(model), CutOff(share=0.5))
    masked = copy.deepcopy(model)
    Masks(plan, state(model))(masked)
    layers = {name.removesuffix(".weight"): blocks for name, blocks in plan.items()}
    compact = with_blocks(masked, layers)
    assert isinstance(compact.conv2, BlockConv2d)
    assert isinstance(compact.fc1, BlockLinear)
    dense, found = without_blocks(compact)
    assert found == layers
    assert all(
        torch.equal(a, b)
        for a, b in zip(dense.state_dict().values(), masked.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_the_compact_network_is_the_masked_one(share: float) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    result = trim(
        model, images(2), dependencies=made_up(model), cut_off=CutOff(params=share, upper_limit=1)
    )
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
    )
    x = images(5, 3)
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), result.masked(x), rtol=1e-4, atol=1e-5)
    assert result.params_gone >= share
    masks = Masks(result.blocks, state(model))
    full = copy.deepcopy(model)
    masks(full)
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), full(x), rtol=1e-4, atol=1e-5)
    zeros = sum(int((full.get_parameter(name) == 0).sum()) for name in result.blocks)
    sizes = sum(full.get_parameter(name).numel() for name in result.blocks)
    assert zeros / sizes == pytest.approx(result.params_gone) == pytest.approx(masks.gone)
    assert niwaki.count_params(result.model) <= niwaki.count_params(model) - zeros
    assert result.record.after.bytes < result.record.before.bytes
    assert result.record.after.params == niwaki.count_params(result.model)
    assert result.record.settings["granularity"] == "block"


def test_channels_whose_blocks_are_all_gone_leave_and_no_others() -> None:
    model = net()
    found = made_up(model, groups=4)
    for item in found:
        item.values.fill_(1)
    found[1].values[:, 2] = 0  # nothing in fc1 reads conv2's third group: channels 6, 7, 8
    found[0].values[1] = 0  # and conv2's second group reads nothing: channels 3, 4, 5 are constants
    result = trim(model, images(2), dependencies=found, cut_off=CutOff(share=0.0, upper_limit=1))
    assert result.plan.kept == {"conv2": (0, 1, 2, 9, 10, 11)}
    assert within.size(result.model, "conv2.out_channels") == 6
    assert within.size(result.model, "bn2.num_features") == 6
    assert within.size(result.model, "fc1.in_features") == 24
    assert (
        "3 channels left that nothing reads any more, and 3 that read nothing"
        in result.record.notes[1]
    )
    with torch.no_grad():
        torch.testing.assert_close(
            result.model(images(4, 1)), result.masked(images(4, 1)), rtol=1e-4, atol=1e-5
        )


def test_a_layer_that_loses_everything_keeps_one_channel_to_run() -> None:
    model = net()
    found = made_up(model)
    for item in found:
        item.values.fill_(0)
    plan = cut_blocks(found, state(model), CutOff(share=0.0, upper_limit=1))
    assert all(not blocks.kept for blocks in plan.values())
    lean = without_idle(niwaki.trace(model, images(2)), plan)
    assert {name: len(kept.units) for name, kept in lean.units.items()} == {
        "conv1": 1,
        "conv2": 1,
        "fc1": 1,
    }
    dead = "none of its channels depends on the input any more, or none is read, so nothing of the "
    dead += "input gets through it; cut less, or with fed=true, which keeps a block for every group"
    assert lean.stays == tuple(f"{name}: {dead}" for name in ("conv1", "conv2", "fc1"))
    result = trim(model, images(2), dependencies=found, cut_off=CutOff(share=0.0, upper_limit=1))
    with torch.no_grad():
        torch.testing.assert_close(result.model(images(3)), result.masked(images(3)))


def test_a_stream_that_another_layer_reads_whole_stays() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.head = (
                nn.Linear(4, 8),
                nn.Linear(8, 6),
                nn.Linear(6, 8),
                nn.Linear(8, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            out: Tensor = self.head(F.relu(x + self.b(F.relu(self.a(F.relu(x))))))
            return out

    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(2, 4)
    pairs = [pair for pair in layer_pairs(niwaki.trace(model, x)) if pair.child in ("a", "b")]
    found = [dependency(pair, torch.zeros(2, 2)) for pair in pairs]
    result = trim(
        model, x, dependencies=found, cut_off=CutOff(share=0.0, upper_limit=1), only=["a", "b"]
    )
    assert "stem" not in result.plan  # head reads it, and is out of scope
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), result.masked(x))


def test_masks_hold_through_training() -> None:
    model = net()
    held: list[float] = []

    def retrain(masked: nn.Module, hold: Any) -> None:
        optimizer = torch.optim.Adam(masked.parameters(), lr=0.01, weight_decay=0.1)
        for seed in range(5):
            optimizer.zero_grad()
            F.cross_entropy(masked(images(8, seed)), torch.arange(8) % 5).backward()
            optimizer.step()
            hold(masked)
            held.append(sum(float(masked.get_parameter(name).count_nonzero()) for name in names))

    found = made_up(model)
    names = [item.pair.weight for item in found]
    result = trim(
        model,
        images(2),
        dependencies=found,
        cut_off=CutOff(params=0.6, upper_limit=1),
        retrain=retrain,
    )
    sizes = sum(state(model)[name].numel() for name in names)
    assert all(count <= sizes * (1 - result.params_gone) + 1e-9 for count in held)
    assert not torch.equal(
        within.tensor(result, "masked.fc2.bias"), within.tensor(model, "fc2.bias")
    )
    with torch.no_grad():
        torch.testing.assert_close(
            result.model(images(4, 1)), result.masked(images(4, 1)), rtol=1e-4, atol=1e-5
        )


def test_scope_is_by_the_childs_name() -> None:
    pairs = layer_pairs(niwaki.trace(net(), images(2)))
    assert [pair.child for pair in scope(pairs)] == ["conv2", "fc1", "fc2"]
    assert [pair.child for pair in scope(pairs, only="fc*", skip="fc2")] == ["fc1"]
    with pytest.raises(
        SettingError, match="no layer is named like 'conv9'; there are: conv1, conv2"
    ):
        scope(pairs, only="conv9")
    with pytest.raises(SettingError, match="no layer is left to trim"):
        scope(pairs, only="conv1")


def test_trimming_estimates_what_it_is_not_given() -> None:
    calibration = niwaki.Calibration.labelled(
        [(images(60, seed), torch.arange(60) % 5) for seed in range(2)]
    )
    result = trim(
        net(),
        images(2),
        calibration=calibration,
        estimation=Estimation(3, sampling=Sampling(20)),
        cut_off=CutOff(params=0.5),
        evaluate=[(images(10), torch.arange(10) % 5)],
    )
    assert result.record.before.accuracy is not None
    assert "score" in result.record.seconds
    assert any("groups of" in note for note in result.record.notes)
    for weight, (full, left) in result.stored.items():
        assert 0 < left < full, weight
    with pytest.raises(SettingError, match="pass some as calibration="):
        trim(net(), images(2), cut_off=CutOff(params=0.5))


def test_a_tied_weight_is_cut_but_keeps_its_form() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.c = nn.Linear(6, 6)
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))
            return out

    model, x = Tied().eval(), torch.randn(2, 4)
    pairs = scope(layer_pairs(niwaki.trace(model, x)), only="b")
    found = [dependency(pairs[0], torch.eye(2))]
    result = trim(model, x, dependencies=found, cut_off=CutOff(share=0.0, upper_limit=1), only="b")
    assert type(result.model.b) is nn.Linear
    b, c = (within.tensor(result.model, f"{name}.weight") for name in ("b", "c"))
    assert b is c
    assert int((result.model.b.weight == 0).sum()) == 18


def test_a_network_that_differs_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    monkeypatch.setattr(
        "niwaki.surgery.block_layers.BlockLinear.forward",
        lambda self, x: x.new_ones(len(x), self.out_features),
    )
    with pytest.raises(SurgeryError, match="differs from the masked original"):
        trim(model, images(2), dependencies=made_up(model), cut_off=CutOff(share=0.5))


def test_a_trimmed_network_is_saved_with_its_blocks_only_and_loaded_again(tmp_path: Path) -> None:
    model = niwaki.models.build("digits-cnn").eval()
    x = niwaki.models.example_inputs(model)
    pairs = scope(layer_pairs(niwaki.trace(model, x)))
    generator = torch.Generator().manual_seed(0)
    found = [dependency(pair, torch.rand(4, 4, generator=generator)) for pair in pairs]
    found[0].values[:, 1] = 0  # a group of conv1 leaves
    result = trim(model, x, dependencies=found, cut_off=CutOff(params=0.8, upper_limit=1))
    niwaki.save(result, tmp_path / "out")
    again = niwaki.load(tmp_path / "out")
    assert isinstance(again.conv2, BlockConv2d)
    assert again.conv2.blocks == within.layer(result.model, "conv2").blocks
    with torch.no_grad():
        assert torch.equal(again(x), result.model(x))
    left = sum(parameter.nbytes for parameter in result.model.parameters())
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < left + 8000
    (tmp_path / "out" / "blocks.json").unlink()
    with pytest.raises(niwaki.NiwakiError, match=r"blocks\.json is missing"):
        niwaki.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": {}}, "does not fit the weights of 0"),
        ({"shapes": {"0": [4, 7]}}, "has another shape than its blocks"),
        ({"layers": {}, "dense": ["9"]}, "is of another network"),
        ({"schema": 2}, "has no schema 1"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    model = with_blocks(
        nn.Sequential(nn.Linear(6, 4)),
        {"0": LayerBlocks((0, 0, 1, 1), (0, 0, 0, 1, 1, 1), ((0, 1),))},
    )
    ordinary, text = take_out(model)
    assert text is not None
    tensors = kept_weights(model)
    assert torch.equal(opened(text, tensors, "x")["0.weight"], within.tensor(ordinary, "0.weight"))
    wrong = json.dumps({**json.loads(text), **change})
    read = opened if message != "is of another network" else put_back
    with pytest.raises(niwaki.NiwakiError, match=message):
        read(*((wrong, tensors, "x") if read is opened else (ordinary, wrong, "x")))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
)
@pytest.mark.parametrize("retrained", [False, True])
def test_a_network_under_weight_norm_is_trimmed_saved_and_loaded(
    norm: Any, retrained: bool, tmp_path: Path
) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        layers = norm(nn.Linear(6, 16)), nn.ReLU(), norm(nn.Linear(16, 16)), nn.ReLU()
        return nn.Sequential(*layers, nn.Linear(16, 3)).eval()

    def retrain(model: nn.Module, hold: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        hold(model)

    model, x = build(), torch.randn(2, 6)
    trimmed = niwaki.trim(
        model,
        x,
        cut_off=CutOff(params=0.5),
        estimation=Estimation(4, sampling=Sampling(samples=64)),
        calibration=[torch.randn(64, 6)],
        retrain=retrain if retrained else None,
    )
    assert any("are ordinary weights now" in note for note in trimmed.record.notes)
    niwaki.save(trimmed, tmp_path / "trimmed")
    again = niwaki.load(tmp_path / "trimmed", model=build())
    assert torch.equal(again(x), trimmed.model(x))
    alone = runpy.run_path(str(next((tmp_path / "trimmed").glob("*.py"))))
    dense = alone["load_pruned"](str(tmp_path / "trimmed"), build())
    torch.testing.assert_close(dense(x), trimmed.model(x))
