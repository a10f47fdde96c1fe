"""SSL and GReg against their formulas, to exact zeros, and on networks where the answer is known."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import within
import zoo
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.methods.base.penalty import PENALTIES
from niwaki.methods.greg import GReg
from niwaki.methods.ssl import SSL
from niwaki.training import TrainSettings, fit

pytestmark = pytest.mark.usefixtures("one_thread")


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    ).double()


INPUTS = torch.randn(2, 2, 6, 6, dtype=torch.float64)


def sums(model: nn.Module, kind: str) -> float:
    """A plain reading of the formula, group by group."""
    first, second, last = (within.tensor(model, f"{i}.weight").detach() for i in (0, 2, 5))
    total = 0.0
    if kind == "filters":
        for weight in (first, second):
            total += sum(float(weight[n].square().sum().sqrt()) for n in range(len(weight)))
    elif kind == "channels":
        total += sum(float(second[:, c].square().sum().sqrt()) for c in range(3))
        total += sum(float(last[:, 9 * c : 9 * c + 9].square().sum().sqrt()) for c in range(4))
    else:
        for c in range(3):
            for k in range(2):
                for at in range(2):
                    total += float(second[:, c, k, at].square().sum().sqrt())
        total += sum(float(last[:, c].square().sum().sqrt()) for c in range(36))
    return total


@pytest.mark.parametrize("kind", ["filters", "channels", "shapes"])
def test_ssl_is_the_sum_of_norms_and_its_proximal_step_the_block_threshold(
    kind: Literal["filters", "channels", "shapes"],
) -> None:
    model = cnn()
    penalty = SSL(0.3, kind).over(niwaki.trace(model, INPUTS))
    assert float(penalty(model).detach()) == pytest.approx(0.3 * sums(model, kind), rel=1e-10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    penalty(model).backward()
    slopes = [parameter.grad for parameter in model.parameters()]
    penalty.proximal(0.02)(model)
    # (1 - t/‖w‖)·w, where a group stays: its gradient is reg·w/‖w‖, so that is w - lr·gradient
    for old, slope, parameter in zip(before, slopes, model.parameters(), strict=True):
        if slope is None:
            assert torch.equal(old, parameter)
        else:
            torch.testing.assert_close(
                parameter.detach(), old - 0.02 * slope, rtol=1e-10, atol=1e-12
            )
    penalty.proximal(1e6)(model)
    assert float(penalty(model).detach()) == 0


def test_the_worked_example() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            within.tensor(layer, "weight").copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    graph = niwaki.trace(model, torch.randn(1, 2, dtype=torch.float64))
    filters, channels = (SSL(1.0, kind).over(graph) for kind in ("filters", "channels"))
    assert float(filters(model).detach()) == 6
    assert float(channels(model).detach()) == pytest.approx(3 + 17**0.5)
    filters.proximal(1.0)(model)
    torch.testing.assert_close(
        within.tensor(model, "0.weight").detach(), torch.tensor([[2.4, 3.2], [0, 0]]).double()
    )


def test_depth_takes_all_weights_of_a_branch_as_one_group() -> None:
    model = zoo.build("IdentityShortcut", torch.float64)
    penalty = SSL(1.0, "depth").over(niwaki.trace(model, zoo.inputs(model, 1)))
    names = ("block.conv1.weight", "block.conv2.weight")
    weights = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    assert float(penalty(model).detach()) == pytest.approx(float(weights.norm()), rel=1e-12)
    penalty.proximal(float(weights.norm()) / 2)(model)
    left = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    torch.testing.assert_close(left, weights / 2, rtol=1e-10, atol=1e-12)
    plain = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(SettingError, match="residual branches"):
        SSL(1.0, "depth").over(niwaki.trace(plain, torch.randn(1, 2)))


def test_ssl_leaves_the_filters_that_matter() -> None:
    """Only units 0 and 3 of the hidden layer have a say: the filters of the others end at zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        within.tensor(model, "0.bias").add_(1)
        within.tensor(model, "2.weight").mul_(3)[:, [1, 2, 4]] = 0
    inputs = torch.randn(64, 3, dtype=torch.float64)
    wanted = model(inputs).detach()
    step = SSL(0.02).over(niwaki.trace(model, inputs)).proximal(0.1)
    for _ in range(600):
        loss = F.mse_loss(model(inputs), wanted)
        (slope,) = torch.autograd.grad(loss, [within.tensor(model, "0.weight")])
        within.tensor(model, "0.weight").data -= 0.1 * slope
        step(model)
    norms = within.tensor(model, "0.weight").detach().norm(dim=1)
    assert norms.nonzero()[:, 0].tolist() == [0, 3]


def test_a_network_trained_by_fit_has_exact_zeros() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.manual_seed(0)
    inputs = torch.randn(64, 3)
    labels = (inputs[:, 0] > 0).long()
    step = SSL(0.02, "channels").over(niwaki.trace(model, inputs)).proximal(0.2)
    settings = TrainSettings(
        epochs=30, lr=0.2, momentum=0, nesterov=False, weight_decay=0, schedule="constant"
    )
    history = fit(
        model, lambda epoch: [(inputs, labels)], settings=settings, after_step=step, progress=False
    )
    zero = int((within.tensor(model, "2.weight").detach().norm(dim=0) == 0).sum())
    assert 0 < zero < 8
    assert history.epochs[-1].accuracy > 0.9


def test_greg_is_a_growing_decay_of_the_units_that_go() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        within.tensor(model, "0.weight").copy_(torch.tensor([[3.0, 4.0], [1.0, -1.0]]))
    penalty = GReg(0.1, every=2, ceiling=0.35).over(niwaki.trace(model, torch.randn(1, 2).double()))
    assert penalty.plan.kept == {"0": (0,)}
    with torch.no_grad():
        assert [float(penalty(model)) for _ in range(9)] == pytest.approx([0.1] * 9)  # no step
    values = [float(penalty(model).detach()) for _ in range(9)]
    assert values == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.35, 0.35, 0.35])
    model.zero_grad()
    penalty(model).backward()
    assert model[0].weight.grad is not None
    torch.testing.assert_close(
        model[0].weight.grad, 0.35 * torch.tensor([[0, 0], [1.0, -1]]).double()
    )


def test_greg_presses_what_it_chose_to_nothing_and_the_cut_costs_next_to_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)).double()
    inputs = torch.randn(64, 3, dtype=torch.float64)
    labels = (inputs[:, 0] > inputs[:, 1]).long()
    graph = niwaki.trace(model, inputs)
    penalty = GReg(0.05, share=0.5, every=5, ceiling=5.0).over(graph)
    settings = TrainSettings(
        epochs=400, lr=0.1, momentum=0, nesterov=False, weight_decay=0, schedule="constant"
    )
    history = fit(
        model,
        lambda epoch: [(inputs, labels)],
        settings=settings,
        penalty=penalty,
        progress=False,
    )
    assert history.epochs[-1].accuracy > 0.95
    smaller = niwaki.shrink(niwaki.Cut(niwaki.trace(model, inputs), penalty.plan))
    torch.testing.assert_close(smaller(inputs), model(inputs), atol=0.05, rtol=0)
    assert within.tensor(smaller, "0.weight").shape == (3, 3)


@pytest.mark.parametrize("spec", ["greg:share=1", "greg:every=0", "greg:ceiling=0", "ssl:reg=-1"])
def test_settings_are_checked(spec: str) -> None:
    with pytest.raises(SettingError):
        PENALTIES.build(spec)


def test_kinds_are_listed() -> None:
    with pytest.raises(UnknownNameError, match="channels, depth, filters, shapes"):
        SSL(1.0, "rows")  # type: ignore[arg-type]  # refused
    graph = niwaki.trace(nn.Linear(2, 2), torch.randn(1, 2))
    for name in ("ssl", "greg"):
        with pytest.raises(SettingError, match="group of channels"):
            PENALTIES.build(name).over(graph)


def test_batch_normalised_mlps_are_slimmed() -> None:
    """Network Slimming's MLP: a scale behind every hidden neuron is what penalty and score see."""
    torch.manual_seed(0)
    layers = [
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, nn.Linear(5, 2)).eval()
    inputs = torch.randn(8, 4)
    with torch.no_grad():
        for norm in (model[1], model[4]):
            within.tensor(norm, "weight").copy_(
                torch.linspace(-1, 2, len(within.tensor(norm, "weight")))
            )
    graph = niwaki.trace(model, inputs)
    penalty = PENALTIES.build("l1:reg=0.5").over(graph)
    by_hand = 0.5 * sum(within.tensor(norm, "weight").abs().sum() for norm in (model[1], model[4]))
    torch.testing.assert_close(penalty(model), by_hand)
    result = niwaki.prune(model, inputs, criterion="bn-scale", budget=0.4, compensation="none")
    for name, norm in (("0", model[1]), ("3", model[4])):
        kept: Tensor = within.tensor(norm, "weight").detach().abs()
        best = sorted(kept.argsort(descending=True, stable=True)[: round(0.6 * len(kept))].tolist())
        assert list(result.plan.kept[name]) == best
