"""Half of the query and key dimensions of every head, in networks whose heads need no more.

The queries of each head are made to lie in a space of half as many dimensions, another in each, so
that nothing need be lost; what a network puts out afterwards is held against the original.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import niwaki
from niwaki.graph.heads import head_products, of_heads
from niwaki.graph.operators import NotLinearError

WIDTH, HEADS, SIZE = 24, 3, 8


class Attention(nn.Module):
    """Separate projections, and the scale computed from the size that queries have."""

    def __init__(self, keys: int = HEADS, bias: bool = True) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, HEADS * SIZE, bias=bias)
        self.k, self.v = nn.Linear(WIDTH, keys * SIZE, bias=bias), nn.Linear(WIDTH, keys * SIZE)
        self.o = nn.Linear(HEADS * SIZE, WIDTH)
        self.heads, self.keys = HEADS, keys

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            layer(x).unflatten(-1, (self.keys, -1)).transpose(1, 2) for layer in (self.k, self.v)
        )
        return q, k, v

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.o(self.look(*self.parts(x)).transpose(1, 2).flatten(2))
        return y


class ByAttribute(Attention):
    """The scale is computed from a size that the module states and reshapes by."""

    head_dim = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = SIZE

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, _ = x.shape
        q, k = (
            layer(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k)
        )
        return q * self.head_dim**-0.5, k, super().parts(x)[2]

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).softmax(-1) @ v


class TorchKernel(Attention):
    """torch divides by the root of the size that it is given."""

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class FixedScale(Attention):
    """The scale is a number, whatever the sizes."""

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True)


class SharedKeys(Attention):
    """All heads look by one key and value each, repeated."""

    def __init__(self) -> None:
        super().__init__(keys=1)

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().look(q, *(x.repeat_interleave(self.heads, 1) for x in (k, v)))


class WithoutBias(Attention):
    """Projections of queries and keys without a constant."""

    def __init__(self) -> None:
        super().__init__(bias=False)


class Fused(nn.Module):
    """One projection makes queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y: Tensor = self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class Rotary(Attention):
    """Queries and keys are turned by their place, pair by pair."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        angles = torch.arange(x.shape[1])[:, None] * 0.1 ** torch.arange(SIZE // 2)

        def rotated(y: Tensor) -> Tensor:
            a, b = y.chunk(2, -1)
            cos, sin = angles.cos(), angles.sin()
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

        return rotated(q), rotated(k), v


class NormedQueries(Attention):
    """Queries are normalised before they meet the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(SIZE)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return self.norm(q), k, v


class NormedForTorch(NormedQueries, TorchKernel):
    """The same before torch's attention, which divides by the root of their size."""


class Squared(Attention):
    """The keys are read once more beside the product."""

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().look(q, k, v) * (1 + k.square().sum(-1, keepdim=True))


def network(kind: type[Attention]) -> nn.Sequential:
    """Queries of each head in half of its dimensions."""
    torch.manual_seed(0)
    layer = kind()
    model = nn.Sequential(nn.Linear(5, WIDTH), layer, nn.Linear(WIDTH, 3)).eval()
    with torch.no_grad():
        for head in range(HEADS):
            space = torch.randn(SIZE, SIZE // 2)
            rows = slice(head * SIZE, (head + 1) * SIZE)
            layer.q.weight[rows] = space @ torch.randn(SIZE // 2, WIDTH) / 4
            if layer.q.bias is not None:
                layer.q.bias[rows] = space @ torch.randn(SIZE // 2)
    return model


def attention(model: nn.Module) -> Attention:
    """The middle layer of a network."""
    layer = model.get_submodule("1")
    assert isinstance(layer, Attention)
    return layer


def inputs(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, 5, generator=torch.Generator().manual_seed(seed))


def dimensions(model: nn.Module) -> str:
    """The group of query and key dimensions."""
    graph = niwaki.trace(model, inputs(2))
    return next(group.name for group in graph if {*group.layers} == {"1.q", "1.k"})


@torch.no_grad()
def off(model: nn.Module, smaller: nn.Module) -> float:
    """The largest difference of an output, as a share of the largest output."""
    x = inputs(16, 3)
    wanted, actual = model(x), smaller(x)
    return float((wanted - actual).abs().max() / wanted.abs().max())


KINDS = [Attention, ByAttribute, TorchKernel, FixedScale, WithoutBias]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("repair", ["moments", "reconstruct"])
def test_half_of_the_dimensions_cost_nothing_where_heads_need_no_more(
    kind: type[Attention], repair: str
) -> None:
    model = network(kind)
    calibration = None if repair == "moments" else [inputs(64, 2)]
    result = niwaki.prune(
        model,
        inputs(2),
        budget=0.5,
        only=dimensions(model),
        compensation=repair,
        calibration=calibration,
    )
    smaller = attention(result.model)
    assert smaller.q.weight.shape == (HEADS * SIZE // 2, WIDTH)
    assert smaller.k.weight.shape == (HEADS * SIZE // 2, WIDTH)
    assert smaller.v.weight.shape == (HEADS * SIZE, WIDTH)
    assert off(model, result.model) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_repair_it_is_the_mask_with_the_scale_as_it_was(kind: type[Attention]) -> None:
    model = network(kind)
    result = niwaki.prune(model, inputs(2), 0.5, only=dimensions(model), compensation="none")
    kept = result.cut.plan.kept[dimensions(model)]
    masked = network(kind)
    gone = [unit for unit in range(SIZE) if unit not in kept]
    rows = [head * SIZE + unit for head in range(HEADS) for unit in gone]
    with torch.no_grad():
        attention(masked).q.weight[rows] = 0
        if attention(masked).q.bias is not None:
            attention(masked).q.bias[rows] = 0
    assert off(masked, result.model) < 1e-5
    assert not any("more than a mask" in note for note in result.record.notes)


def test_heads_that_share_keys_share_a_basis() -> None:
    """Three heads whose queries lie in the same half of the dimensions."""
    model = network(SharedKeys)
    with torch.no_grad():
        q = attention(model).q
        space = torch.linalg.qr(torch.randn(SIZE, SIZE // 2)).Q
        for head in range(HEADS):
            rows = slice(head * SIZE, (head + 1) * SIZE)
            q.weight[rows] = space @ torch.randn(SIZE // 2, WIDTH) / 4
            q.bias[rows] = space @ torch.randn(SIZE // 2)
    name = dimensions(model)
    result = niwaki.prune(model, inputs(2), 0.5, only=name, compensation="moments")
    assert attention(result.model).k.weight.shape == (SIZE // 2, WIDTH)
    assert off(model, result.model) < 1e-3


def test_of_a_fused_projection_queries_and_keys_are_turned_and_values_go_plainly() -> None:
    """The values that go are made to be zero, so that only the products could lose."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, WIDTH), Fused(), nn.Linear(WIDTH, 3)).eval()
    qkv = model.get_submodule("1.qkv")
    assert isinstance(qkv, nn.Linear)
    with torch.no_grad():
        rows = qkv.weight.view(3, HEADS, SIZE, WIDTH)
        bias = qkv.bias.view(3, HEADS, SIZE)
        space = torch.linalg.qr(torch.randn(HEADS, SIZE, SIZE // 2)).Q
        rows[0] = space @ space.mT @ rows[0]
        bias[0] = (space @ space.mT @ bias[0][..., None])[..., 0]
        rows[2, :, ::2] = bias[2, :, ::2] = 0
        rows[2, :, 1::2] *= 9  # so that the norms of the weights keep the others
    result = niwaki.prune(model, inputs(2), 0.5, only="1.qkv#2", compensation="moments")
    assert [*result.cut.plan.kept["1.qkv#2"]] == [1, 3, 5, 7]
    assert "1.o.weight reads go as they are" in result.cut.notes["1.qkv#2"]
    assert off(model, result.model) < 1e-3


def test_torchs_scale_keeps_dimensions_that_no_weight_could_make_up_for() -> None:
    graph = niwaki.trace(network(NormedForTorch), inputs(2))
    assert not any(of_heads(graph, group.name) for group in graph)
    assert any("sets the scale of" in str(item.reason) for item in graph.frozen)


def test_the_network_that_was_given_stays_as_it_was() -> None:
    model = network(Attention)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    niwaki.prune(model, inputs(2), 0.5, only=dimensions(model), compensation="moments")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_pruned_network_is_saved_and_loaded(tmp_path: Path) -> None:
    model = network(Attention)
    result = niwaki.prune(model, inputs(2), 0.5, only=dimensions(model), compensation="moments")
    niwaki.save(result, tmp_path / "smaller")
    again = niwaki.load(tmp_path / "smaller", model=network(Attention))
    assert torch.equal(again(inputs(4)), result.model(inputs(4)))


def test_a_normalisation_between_projection_and_product_is_said() -> None:
    model = network(NormedQueries)
    graph = niwaki.trace(model, inputs(2))
    name = next(group.name for group in graph if "1.k" in group.layers and group.width == SIZE)
    with pytest.raises(NotLinearError, match="comes between a projection and its product"):
        head_products(graph, name)
    result = niwaki.prune(model, inputs(2), 0.5, only=name, compensation="moments")
    note = result.cut.notes[name]
    assert note.startswith("the dimensions of its heads go as they are: ")


def test_keys_that_something_else_reads_are_left_as_they_are() -> None:
    model = network(Squared)
    name = dimensions(model)
    result = niwaki.prune(model, inputs(2), 0.5, only=name, compensation="moments")
    assert "the dimensions of its heads go as they are" in result.cut.notes[name]


def test_rotary_positions_keep_the_dimensions() -> None:
    """Pairs of them go through tables of angles that have as many columns, and no basis but their
    own commutes with the turning.
    """
    model = network(Rotary)
    graph = niwaki.trace(model, inputs(2))
    assert not any(of_heads(graph, group.name) for group in graph)
    frozen = [str(item.reason) for item in graph.frozen if item.layer == "1.k"]
    assert any("positions" in reason for reason in frozen)
