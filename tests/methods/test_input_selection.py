"""Channels chosen where a stream is read: the cut network computes what the original does with
those columns at zero.
"""

from __future__ import annotations

import copy

import pytest
import torch
import within
import zoo
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import BudgetError, SettingError
from niwaki.methods.input_selection import SelectedInputs, entrances, select_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


class PreActivated(nn.Module):
    """Two branches that each normalise a stream before they read it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3)
        self.norm1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1, bias=False)
        self.norm3, self.out = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv1(self.norm1(x).relu())
        x = x + self.conv2(self.norm2(x).relu())
        out: Tensor = self.out(self.norm3(x).relu().mean((2, 3)))
        return out


def network() -> PreActivated:
    torch.manual_seed(0)
    model = PreActivated().double().eval()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2, model.norm3):
            for name in ("weight", "bias", "running_mean"):
                within.tensor(norm, name).copy_(torch.randn(6))
            within.tensor(norm, "running_var").copy_(torch.rand(6) + 0.5)
    return model


INPUTS = torch.randn(3, 1, 7, 7, dtype=torch.float64)


def test_entrances_are_the_normalisations_of_streams() -> None:
    found = entrances(niwaki.trace(network(), INPUTS))
    assert [entrance.layer for entrance in found] == ["norm1", "norm2"]
    assert [entrance.weights for entrance in found] == [
        (("conv1.weight", 1),),
        (("conv2.weight", 1),),
    ]


def test_the_least_scales_of_all_entrances_go_and_the_stream_stays() -> None:
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = select_inputs(niwaki.trace(model, INPUTS), 0.5)
    scales = (
        torch.cat([within.tensor(model, "norm1.weight"), within.tensor(model, "norm2.weight")])
        .detach()
        .abs()
    )
    going = scales.argsort()[:6].tolist()
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for unit in going:
            conv = masked.conv1 if unit < 6 else masked.conv2
            conv.weight[:, unit % 6] = 0
    torch.testing.assert_close(smaller(INPUTS), masked(INPUTS), rtol=1e-12, atol=1e-12)
    kept1, kept2 = (len(within.tensor(smaller, f"norm{i}.index")) for i in (1, 2))
    assert kept1 + kept2 == 6
    assert within.tensor(smaller, "conv1.weight").shape == (6, kept1, 3, 3)
    assert within.size(smaller, "conv1.in_channels") == kept1
    assert within.size(smaller, "norm1.layer.num_features") == kept1
    assert within.tensor(smaller, "stem.weight").shape == within.tensor(model, "stem.weight").shape
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_it_can_be_trained_saved_and_traced_again() -> None:
    smaller = select_inputs(niwaki.trace(network(), INPUTS), 0.4)
    smaller.train()(INPUTS).sum().backward()
    smaller.eval()
    again = select_inputs(niwaki.trace(network(), INPUTS), 0.4)
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(again.eval()(INPUTS), smaller(INPUTS))
    assert niwaki.trace(smaller, INPUTS).groups is not None


def test_an_entrance_keeps_one_channel() -> None:
    model = network()
    with torch.no_grad():
        within.tensor(model, "norm1.weight").mul_(1e-6)
    smaller = select_inputs(niwaki.trace(model, INPUTS), 0.5)
    assert isinstance(smaller.norm1, SelectedInputs)
    assert smaller.norm1.index.tolist() == [
        int(within.tensor(model, "norm1.weight").abs().argmax())
    ]


def test_a_pre_activation_network_of_the_zoo_and_networks_without_entrances() -> None:
    model = zoo.build("PreActivation", torch.float64)
    inputs = zoo.inputs(model, 1)
    graph = niwaki.trace(model, inputs)
    assert [entrance.layer for entrance in entrances(graph)] == ["bn1"]
    assert select_inputs(graph, 0.5)(inputs).shape == model(inputs).shape
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(SettingError, match="bn-scale"):
        select_inputs(niwaki.trace(plain, torch.randn(2, 3)), 0.5)
    with pytest.raises(BudgetError, match=r"\[0, 1\)"):
        select_inputs(graph, 1.0)
