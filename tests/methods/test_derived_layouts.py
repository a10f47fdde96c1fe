"""Moments without data: wherever the channels stand on an axis, one function is repaired in one
way; and functions that are not defined for all numbers give no NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.gaussian import BLOCK, Gaussian, bounds
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.data_free.products import through, through_groups
from niwaki.methods.data_free.propagate import walk

HEIGHT, WIDTH, CHANNELS = 2, 3, 6


class Flattened(nn.Module):
    """A convolution, then a flatten in some order of channels, rows and columns, then two layers
    that make up for the order.
    """

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.conv, self.a = nn.Conv2d(3, CHANNELS, 3), nn.Linear(CHANNELS * HEIGHT * WIDTH, 9)
        self.b = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).permute(0, *self.order).reshape(len(x), -1)
        out: Tensor = self.b(torch.relu(self.a(x)))
        return out


def flattened(order: tuple[int, ...]) -> Flattened:
    torch.manual_seed(0)
    model = Flattened(order).double().eval()
    with torch.no_grad():
        within.tensor(model, "conv.bias").normal_()
        weight = model.a.weight.view(9, CHANNELS, HEIGHT, WIDTH).permute(0, *order)
        model.a.weight.copy_(weight.reshape(9, -1))
    return model


@pytest.mark.parametrize("order", [(2, 3, 1), (3, 2, 1), (2, 1, 3), (3, 1, 2), (1, 3, 2)])
def test_a_flatten_in_any_order_is_repaired_alike(order: tuple[int, ...]) -> None:
    x = torch.randn(4, 3, HEIGHT + 2, WIDTH + 2, dtype=torch.float64)
    outputs = []
    for model in (flattened((1, 2, 3)), flattened(order)):
        result = niwaki.prune(model, x, compensation="moments")
        outputs.append(result.model(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)


class Parts(nn.Module):
    """Channels that are split, turned over and joined again before they are read."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(7, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        if self.how == "chunks":
            x = torch.cat(x.chunk(2, 1), 1)
        elif self.how == "heads":
            x = x.view(-1, 3, 4).transpose(1, 2).transpose(1, 2).reshape(-1, 12)
        elif self.how == "axes":
            x = x[:, None, :, None].squeeze(3).squeeze(1)
        out: Tensor = self.b(x)
        return out


def read_last(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last axis where the last layer reads it."""
    graph = niwaki.trace(model, torch.randn(2, 7, dtype=torch.float64))
    ops = graph.inference.tape.ops
    position = max(at for at, op in enumerate(ops) if op.layer == "b" and op.name[-1] != "t")
    slot = 1 if ops[position].name == "aten.addmm" else 0
    found: list[Gaussian] = []

    def take(_: int, laid: Laid | None) -> None:
        assert laid is not None
        here = laid.on(-1, 12)
        assert here is not None
        found.append(laid.of.pick(here[0]))

    walk(graph, Prior(), {position: slot}, take)
    return found[0].mean, found[0].covariance


@pytest.mark.parametrize("how", ["chunks", "heads", "axes"])
def test_views_leave_the_moments_as_they_are(how: str) -> None:
    models = []
    for way in ("as they are", how):
        torch.manual_seed(0)
        models.append(Parts(way).double().eval())
    (mean, covariance), (other_mean, other_covariance) = map(read_last, models)
    torch.testing.assert_close(other_mean, mean)
    torch.testing.assert_close(other_covariance, covariance)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "root": lambda x: (x.square().mean((2, 3)) + 1e-6).sqrt(),
    "logarithm": lambda x: torch.log(x.square().mean((2, 3)) + 1e-6),
    "power": lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "arc sine": lambda x: torch.asin(torch.tanh(x).mean((2, 3))),
    "reciprocal root": lambda x: torch.rsqrt(x.square().mean((2, 3)) + 1e-3),
    "exponential": lambda x: torch.exp(torch.exp(x.mean((2, 3)) * 30)).clamp(max=5.0),
}


class Pooled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a = how, nn.Conv2d(3, 8, 3)
        self.c, self.d = nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = POOLS[self.how](torch.relu(self.a(x)))
        out: Tensor = self.d(torch.relu(self.c(pooled)))
        return out


@pytest.mark.parametrize("how", POOLS)
def test_functions_with_a_domain_leave_no_group_whole(how: str) -> None:
    torch.manual_seed(0)
    model, x = Pooled(how).eval(), torch.randn(2, 3, 8, 8)
    sizes = {}
    for method in ("none", "moments", "auto"):
        result = niwaki.prune(model, x, compensation=method)
        assert not [note for note in result.notes.values() if note.startswith("left whole")]
        sizes[method] = niwaki.count_params(result.model)
        assert bool(torch.isfinite(result.model(x)).all())
    assert len(set(sizes.values())) == 1


@pytest.mark.parametrize(
    ("function", "least"),
    [(torch.sqrt, 0.0), (torch.log, -20.0), (torch.asin, -1.6), (lambda x: x**0.3, 0.0)],
)
def test_values_outside_a_domain_are_held_at_its_edge(
    function: Callable[[Tensor], Tensor], least: float
) -> None:
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.4]], dtype=torch.float64)
    made = Gaussian.of(torch.tensor([0.2, 0.5], dtype=torch.float64), covariance).mapped(function)
    assert made is not None
    assert made.finite
    assert bool((made.mean > least).all())
    assert float(torch.linalg.eigvalsh(made.covariance).min()) > -1e-9


def test_a_function_of_none_of_the_values_is_not_known() -> None:
    one = torch.eye(1, dtype=torch.float64)
    assert Gaussian.of(torch.tensor([-50.0]).double(), one).mapped(torch.log) is None


@pytest.mark.parametrize("channels", [1, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_blocks_cover_all_channels_and_are_of_bounded_size(channels: int) -> None:
    spans = bounds(channels)
    assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, channels)
    assert max(stop - start for start, stop in spans) <= BLOCK


def test_of_a_wide_layer_each_block_is_what_it_is_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(BLOCK + 300, 20, 1, generator=generator)
    given = Gaussian.white(20)
    made = through(given, weight, torch.ones(1, 1).double(), None)
    whole = (weight[:, :, 0] @ weight[:, :, 0].T).double()
    for block, (start, stop) in zip(made.blocks, made.spans, strict=True):
        torch.testing.assert_close(
            block.double(), whole[start:stop, start:stop], rtol=1e-4, atol=1e-3
        )
    assert len(made.blocks) == 2


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_grouped_convolution_is_a_whole_one_with_zeros(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    given = Gaussian.of(root[0], root @ root.T)
    inner = 6 // groups
    weight = torch.randn(12, inner, 4, generator=generator, dtype=torch.float64)
    table = torch.zeros(12, 6, 4, dtype=torch.float64)
    for out in range(12):
        first = out // (12 // groups) * inner
        table[out, first : first + inner] = weight[out]
    correlation = Prior().correlation((2, 2))
    whole = through(given, table, correlation, None)
    made = through_groups(given, weight, groups, correlation, None)
    torch.testing.assert_close(made.covariance, whole.covariance)
    torch.testing.assert_close(made.mean, whole.mean)


@pytest.mark.parametrize("offset", [0.0, 3.0, -2.0])
def test_example_inputs_of_their_own_mean_and_scale_are_believed(offset: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    root = torch.randn(5, 5, dtype=torch.float64)
    x = offset + torch.randn(4000, 5, dtype=torch.float64) @ root
    graph = niwaki.trace(model, x)
    (moments,) = derive(graph, ["0"], Prior())["0"].values()
    units = torch.relu(model[0](x)).detach()
    torch.testing.assert_close(moments.mean, units.mean(0), atol=0.05, rtol=0.05)
    torch.testing.assert_close(moments.covariance, torch.cov(units.T), atol=0.15, rtol=0.05)


@pytest.mark.parametrize("x", [torch.zeros(99, 5), torch.ones(99, 5), torch.randn(3, 5)])
def test_few_or_constant_example_inputs_say_nothing(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    (moments,) = derive(niwaki.trace(model, x), ["0"], Prior())["0"].values()
    (white,) = derive(niwaki.trace(model, torch.randn(2, 5)), ["0"], Prior())["0"].values()
    torch.testing.assert_close(moments.covariance, white.covariance)
