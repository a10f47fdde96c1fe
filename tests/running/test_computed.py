"""Weights that layers compute from other tensors are cut as what they come out as, and computed
again afterwards; masks become values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune

import niwaki
from niwaki.running.computed import computed_weights, with_plain_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread", "quick_latency"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
]

Norm = Callable[[nn.Module], nn.Module]
NORMS: list[Norm] = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    utils.weight_norm,
    utils.spectral_norm,
]
IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def normed(norm: Norm) -> nn.Sequential:
    model = plain()
    for place in (0, 2, 6):
        norm(model[place])
    with torch.no_grad():
        model.train()(IMAGE)  # spectral norms have looked at their weights
    return model.eval()


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    after = model.state_dict()
    return all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: f"{norm.__module__}.{norm.__name__}")
@pytest.mark.parametrize("compensation", ["none", "moments"])
def test_normed_weights_are_cut_as_what_they_come_out_as(norm: Norm, compensation: str) -> None:
    model = normed(norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = niwaki.prune(model, IMAGE, compensation=compensation, probes=False)
    assert unchanged(model, before)
    assert niwaki.count_params(result.model) < 0.4 * niwaki.count_params(model)
    assert result.model.state_dict().keys() >= before.keys()
    full = oracle.masked(niwaki.trace(model, IMAGE, probes=False), result.plan, result.cut.mixings)
    other = torch.randn(3, 3, 9, 9)
    gap = oracle.distance(oracle.outputs(full, other), oracle.outputs(result.model, other))
    assert gap < 1e-5


def test_a_normed_network_is_saved_loaded_and_trained(tmp_path: Path) -> None:
    for place, norm in enumerate(NORMS):
        model = normed(norm)
        result = niwaki.prune(model, IMAGE, compensation="none", probes=False)
        again = niwaki.load(niwaki.save(result, tmp_path / str(place)), model=normed(norm))
        assert torch.equal(again.eval()(IMAGE), result.model.eval()(IMAGE))
        trained = result.model.train()
        trained(IMAGE).square().sum().backward()
        assert all(p.grad is not None for p in trained.parameters())


def test_a_row_of_zeros_stays_zero() -> None:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(8, 3)),
    ).eval()  # fmt: skip
    weight = torch.zeros(3, 8)
    weight[:, :2] = 1  # of columns that go, once those of the layer before have small weights
    model[4].weight = weight
    with torch.no_grad():
        within.tensor(model, "2.weight")[:2] = 1e-3 * torch.randn(2, 8)
    result = niwaki.prune(model, torch.randn(4, 6), compensation="none", budget=0.5)
    assert bool(result.model(torch.randn(4, 6)).isfinite().all())


@pytest.mark.parametrize(
    "mask",
    [
        lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, dim=0),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
        lambda layer: prune.random_unstructured(layer, "bias", 2),
    ],
    ids=["rows", "entries", "bias"],
)
def test_masks_become_values(mask: Norm) -> None:
    model = plain()
    mask(model[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = niwaki.prune(model, IMAGE, compensation="none", criterion="l1")
    assert unchanged(model, before)
    assert prune.is_pruned(model)
    assert not prune.is_pruned(result.model)
    assert any("masks of torch.nn.utils.prune on 0." in note for note in result.record.notes)


def test_units_that_a_mask_silences_go_exactly() -> None:
    model = plain()
    for place in (0, 2, 6):
        prune.ln_structured(model[place], "weight", 0.5, 2, dim=0)
        silent = within.tensor(model, f"{place}.weight_mask").flatten(1).sum(1) == 0
        with torch.no_grad():
            within.tensor(model, f"{place}.bias")[silent] = 0
    result = niwaki.prune(model, IMAGE, compensation="none", criterion="l1")
    assert within.size(result.model, "0.out_channels") == 4
    other = torch.randn(5, 3, 9, 9)
    assert torch.allclose(result.model(other), model(other), atol=1e-6)


def test_the_class_of_a_parametrised_layer_is_left_alone() -> None:
    """Torch takes the weight from a class that copies share."""
    model = normed(parametrizations.weight_norm)
    twin = with_plain_weights(model, computed_weights(model))
    assert type(within.layer(twin, "0")) is nn.Conv2d
    assert parametrize.is_parametrized(model[0], "weight")
    assert torch.allclose(twin(IMAGE), model(IMAGE), atol=1e-6)


def test_an_optimiser_goes_on_with_normed_weights() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = normed(parametrizations.weight_norm)
    optimizer = torch.optim.Adam(model.parameters())
    model(IMAGE).sum().backward()
    optimizer.step()
    result = niwaki.prune(model, IMAGE, compensation="none", probes=False)
    dropped = result.hand_over(optimizer)
    assert any("original1" in line for line in dropped)
    result.model(IMAGE).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("recovery", ["batchnorm", "refit"])
def test_recoveries_mend_normed_weights(recovery: str) -> None:
    model = plain()
    model.insert(1, nn.BatchNorm2d(8))
    parametrizations.weight_norm(model[0])
    parametrizations.weight_norm(model[3])
    batches = [torch.randn(8, 3, 9, 9) for _ in range(2)]
    result = niwaki.prune(
        model.eval(), IMAGE, compensation="none", recovery=recovery, calibration=batches,
        probes=False,
    )  # fmt: skip
    assert parametrize.is_parametrized(within.layer(result.model, "0"), "weight")
    assert bool(result.model(IMAGE).isfinite().all())
