"""Recovery after the cut: against closed forms on small networks."""

from __future__ import annotations

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.recovery import recover


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3, stride=2, bias=False),
    ]
    return (
        nn.Sequential(*layers, nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, 3))
        .double()
        .eval()
    )


def cut(
    model: nn.Module, data: Tensor, compensation: str = "none"
) -> tuple[niwaki.Graph, niwaki.Plan, nn.Sequential]:
    graph = niwaki.trace(model, data[:2])
    plan = niwaki.Plan({"0": Kept(8, (0, 2, 3, 6, 7))})
    calibration = niwaki.Calibration.of([data])
    compensated = niwaki.compensate(niwaki.Cut(graph, plan), compensation, calibration=calibration)
    pruned = niwaki.shrink(compensated)
    assert isinstance(pruned, nn.Sequential)
    return graph, plan, pruned


def seen() -> Tensor:
    return torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_statistics_are_those_of_the_pruned_network_layer_by_layer() -> None:
    data, model = seen(), network()
    graph, plan, pruned = cut(model, data)
    said = recover(
        Cut(graph, plan),
        pruned,
        "batchnorm",
        calibration=niwaki.Calibration.of(list(data.split(25))),
    )
    assert said == "statistics of 2 normalisations counted anew over 60 inputs"
    before_norm = pruned[:4](data)
    torch.testing.assert_close(within.tensor(pruned, "4.running_mean"), before_norm.mean((0, 2, 3)))
    torch.testing.assert_close(within.tensor(pruned, "4.running_var"), before_norm.var((0, 2, 3)))


@pytest.mark.parametrize("compensation", ["none", "reconstruct"])
def test_refit_brings_the_outputs_nearer_to_the_originals(compensation: str) -> None:
    data, model = seen(), network()
    graph, plan, pruned = cut(model, data, compensation)
    before = (pruned(data) - model(data)).square().mean()
    shapes = {name: tensor.shape for name, tensor in pruned.state_dict().items()}
    said = recover(
        Cut(graph, plan), pruned, "refit", calibration=niwaki.Calibration.of(list(data.split(25)))
    )
    assert said.startswith("3 layers fitted to the original's over 60 inputs, 2 normalisations")
    assert (pruned(data) - model(data)).square().mean() < 0.7 * before
    assert shapes == {name: tensor.shape for name, tensor in pruned.state_dict().items()}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])
def test_lbfgs_brings_what_comes_behind_the_nonlinearities_nearer_than_the_closed_form(
    activation: nn.Module,
) -> None:
    data, model = seen(), network()
    model[2] = model[5] = activation
    other = torch.randn(
        200, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    errors = {}
    for recovery in ("refit", "lbfgs"):
        graph, plan, pruned = cut(model, data)
        said = recover(
            Cut(graph, plan),
            pruned,
            recovery,
            calibration=niwaki.Calibration.of(list(data.split(25))),
        )
        errors[recovery] = [
            (pruned[:depth](x) - model[:depth](x)).square().mean()
            for depth in (6, 8)
            for x in (data, other)
        ]
    assert said.startswith("3 layers fitted to the original's over 60 inputs, ")
    assert "2 of them further behind their non-linearities, 2 normalisations counted anew" in said
    assert all(new < old for new, old in zip(errors["lbfgs"], errors["refit"], strict=True)), errors


def test_lbfgs_takes_inputs_one_by_one_too() -> None:
    data = torch.randn(400, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
        .double()
        .eval()
    )
    graph = niwaki.trace(model, data[:2])
    plan = niwaki.Plan({"0": Kept(12, (0, 1, 2, 3, 4))})
    for batches in ([data], [data[:2], *data[2:].split(1)]):
        said = recover(
            Cut(graph, plan),
            niwaki.shrink(niwaki.Cut(graph, plan)),
            "lbfgs",
            calibration=niwaki.Calibration.of(batches),
        )
        assert said == (
            "3 layers fitted to the original's over 400 inputs, 1 of them further behind "
            "their non-linearities"
        )


def test_lbfgs_keeps_the_closed_form_where_what_is_held_out_does_not_gain() -> None:
    data = torch.randn(40, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3))
        .double()
        .eval()
    )
    graph = niwaki.trace(model, data[:2])
    plan = niwaki.Plan({"0": Kept(30, tuple(range(20)))})
    closed, pruned = niwaki.shrink(niwaki.Cut(graph, plan)), niwaki.shrink(niwaki.Cut(graph, plan))
    calibration = niwaki.Calibration.of([data])
    recover(Cut(graph, plan), closed, "refit:ridge=0", calibration=calibration)
    said = recover(
        Cut(graph, plan), pruned, "lbfgs:ridge=0,steps=200", calibration=calibration
    )  # as many inputs as numbers
    assert said.startswith("3 layers fitted to the original's over 40 inputs, 0 of them further")
    for name, tensor in closed.state_dict().items():
        torch.testing.assert_close(pruned.state_dict()[name], tensor)


def test_a_network_that_lost_nothing_stays_as_it_is() -> None:
    data, model = seen(), network()
    with torch.no_grad():
        (
            within.tensor(model, "0.weight")[1],
            within.tensor(model, "0.weight")[4],
            within.tensor(model, "0.weight")[5],
        ) = 0, 0, 0
        within.tensor(model, "1.bias")[[1, 4, 5]] = -1.0  # dead behind the ReLU
    graph, plan, pruned = cut(model, data)
    recover(
        Cut(graph, plan),
        pruned,
        "refit:ridge=0,places=1000,norms=false",
        calibration=niwaki.Calibration.of([data]),
    )
    torch.testing.assert_close(pruned(data), model(data), rtol=1e-6, atol=1e-6)


def test_bad_input() -> None:
    data, model = seen(), network()
    graph, plan, pruned = cut(model, data)
    with pytest.raises(
        SettingError, match="looks at what the network does with inputs; pass some as calibration="
    ):
        recover(Cut(graph, plan), pruned, "refit")
    broken = data.clone()
    broken[0, 0, 0, 0] = torch.nan
    for name in ("refit", "batchnorm", "lbfgs"):
        with pytest.raises(SettingError, match="NaN or infinite values; look for them"):
            recover(Cut(graph, plan), pruned, name, calibration=niwaki.Calibration.of([broken]))
    for words in ("steps=0", "rows=1"):
        with pytest.raises(
            SettingError, match="lbfgs:steps must be at least 1 and lbfgs:rows at least 5"
        ):
            recover(
                Cut(graph, plan),
                pruned,
                f"lbfgs:{words}",
                calibration=niwaki.Calibration.of([data]),
            )
    with pytest.raises(SettingError, match="lbfgs:ridge must be 0 or more"):
        recover(
            Cut(graph, plan), pruned, "lbfgs:ridge=-2", calibration=niwaki.Calibration.of([data])
        )
    with pytest.raises(SettingError, match="refit:ridge must be 0 or more"):
        recover(
            Cut(graph, plan), pruned, "refit:ridge=-2", calibration=niwaki.Calibration.of([data])
        )
