"""Moments without data: Mehler's formula against sampling and closed forms, and what is said of the
layers of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.prior import Prior


def correlated(channels: int) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return Gaussian.of(
        torch.randn(channels, generator=generator, dtype=torch.float64), root @ root.T / channels
    )


@pytest.mark.parametrize(
    "function", [torch.relu, F.leaky_relu, F.gelu, F.silu, F.hardswish, torch.tanh]
)
def test_mehlers_formula_is_what_sampling_finds(function: Callable[[Tensor], Tensor]) -> None:
    given = correlated(5)
    made = given.mapped(function)
    assert made is not None
    root = torch.linalg.cholesky(given.covariance)
    generator = torch.Generator().manual_seed(1)
    samples = function(
        given.mean + torch.randn(400_000, 5, generator=generator, dtype=torch.float64) @ root.T
    )
    torch.testing.assert_close(made.mean, samples.mean(0), atol=6e-3, rtol=0)
    torch.testing.assert_close(made.covariance, torch.cov(samples.T), atol=1.5e-2, rtol=0)


def test_relu_of_a_centred_pair_is_the_arc_cosine_kernel() -> None:
    rho = torch.tensor([-0.9, -0.3, 0.0, 0.5, 0.8], dtype=torch.float64)
    for value in rho.tolist():
        pair = Gaussian.of(
            torch.zeros(2, dtype=torch.float64),
            torch.tensor([[1, value], [value, 1]], dtype=torch.float64),
        )
        made = pair.mapped(torch.relu)
        assert made is not None
        product = (math.sqrt(1 - value**2) + value * (math.pi - math.acos(value))) / (2 * math.pi)
        # 24 terms of the series, and a kink under the quadrature
        assert float(made.covariance[0, 1]) == pytest.approx(product - 1 / (2 * math.pi), abs=3e-3)


def test_a_covariance_stays_one_through_any_function() -> None:
    made = correlated(9).mapped(torch.relu)
    assert made is not None
    assert float(torch.linalg.eigvalsh(made.covariance).min()) > -1e-12


def sampled(model: nn.Sequential, at: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        out: Tensor = model[:at](
            torch.randn(20_000, *shape, generator=generator, dtype=torch.float64)
        )
        return out


def test_two_layers_of_white_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(30, 8), nn.GELU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)
    ).double()
    graph = niwaki.trace(model, torch.randn(2, 30, dtype=torch.float64))
    found = derive(graph, ["0", "2"], Prior())
    for name, at, tolerance in (("0", 2, 1e-2), ("2", 4, 2e-2)):
        (moments,) = found[name].values()
        units = sampled(model, at, (30,))
        torch.testing.assert_close(moments.mean, units.mean(0), atol=tolerance, rtol=0)
        torch.testing.assert_close(moments.covariance, torch.cov(units.T), atol=tolerance, rtol=0)


def test_a_convolution_of_white_images_and_its_normalisation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)
    ).double()
    with torch.no_grad():
        model.train()(torch.randn(4000, 3, 6, 6, dtype=torch.float64))
        for _ in range(60):
            model(torch.randn(500, 3, 6, 6, dtype=torch.float64))
        within.tensor(model, "1.weight").uniform_(-1, 1)
        within.tensor(model, "1.bias").uniform_(-1, 1)
    graph = niwaki.trace(model.eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64))
    (moments,) = derive(graph, ["0"], Prior(white=1.0))["0"].values()
    units = sampled(model, 3, (3, 6, 6)).movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(moments.mean, units.mean(0), atol=2e-2, rtol=0)
    torch.testing.assert_close(moments.covariance, torch.cov(units.T), atol=3e-2, rtol=0)


def test_units_that_say_the_same_are_put_in_for_each_other_and_a_network_without_norms_is_repaired() -> (
    None
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 8), nn.GELU(), nn.Linear(8, 3)).double().eval()
    with torch.no_grad():
        within.tensor(model, "0.weight")[6:] = within.tensor(model, "0.weight")[:2]
        within.tensor(model, "0.bias")[6:] = within.tensor(model, "0.bias")[:2]
    x = torch.randn(5, 20, dtype=torch.float64)
    graph = niwaki.trace(model, x)
    plan = niwaki.Plan({"0": Kept(8, tuple(range(6)))})
    fitted = niwaki.compensate(niwaki.Cut(graph, plan), "moments:ridge=0")
    torch.testing.assert_close(
        niwaki.shrink(niwaki.Cut(graph, plan, fitted.mixings))(x), model(x), rtol=1e-6, atol=1e-6
    )
    assert fitted.residuals["0"] < 1e-6
    assert "merged" not in fitted.notes["0"]  # GELU: no multiple of a unit stays one


def test_settings_out_of_range() -> None:
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 4)
    )
    for spec, said in (
        ("moments:blend=2", "moments:blend must be from 0 to 1"),
        ("moments:reach=0", "reach must be above 0"),
    ):
        with pytest.raises(SettingError, match=said):
            niwaki.compensate(niwaki.Cut(graph, niwaki.Plan({"0": Kept(4, (0, 1))})), spec)


class CountsAndLooksUp(nn.Module):
    """Writes into its buffers in every run, and reads a table by a buffer of indices."""

    places: Tensor
    average: Tensor
    runs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 10), nn.Linear(10, 3)
        self.table = nn.Parameter(torch.randn(4, 10))
        self.register_buffer("places", torch.tensor([3, 1]))
        self.register_buffer("average", torch.randn(10))
        self.register_buffer("runs", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.average.mul_(0.9)
        self.runs += 1
        out: Tensor = self.outer(
            torch.relu(self.inner(x) + self.table[self.places].mean(0) - self.average)
        )
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_run_writes_into_is_not_the_models_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = CountsAndLooksUp().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = niwaki.prune(model, torch.randn(2, 6, dtype=dtype), compensation="moments")
    assert niwaki.count_params(result.model) < niwaki.count_params(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
