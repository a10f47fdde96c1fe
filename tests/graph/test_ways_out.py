"""What cannot be pruned as it stands is refused, or left, with what would help."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn.utils import parametrize

import niwaki
from niwaki.core.errors import BudgetError

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def chain(norm: Callable[[nn.Module], nn.Module], *, all_of_them: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 16, 5), nn.Conv1d(16, 16, 5), nn.Conv1d(16, 16, 3), nn.Conv1d(16, 1, 1)]
    normed = [
        norm(layer) if all_of_them or place == 2 else layer for place, layer in enumerate(layers)
    ]
    return nn.Sequential(*(part for layer in normed for part in (layer, nn.ReLU()))).eval()


class Tanh(nn.Module):
    """A parametrisation of somebody's own, that needs all channels of a row."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.tanh(weight) / weight.shape[1]


def own(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", nn.Sequential(Tanh(), nn.Softmax(1)))
    return layer


def test_parametrised_weights_name_the_way_out() -> None:
    x = torch.randn(2, 1, 40)
    with pytest.raises(BudgetError, match=r"weight of 0, 2, 4 .*remove_parametrizations\(layer"):
        niwaki.prune(chain(own), x)
    undone = chain(own)
    for layer in undone:
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    result = niwaki.prune(undone, x, compensation="none")
    assert result.record.after.params < 0.5 * result.record.before.params


def test_a_parametrised_layer_is_said_where_the_others_go_on() -> None:
    model = chain(own, all_of_them=False)
    result = niwaki.prune(model, torch.randn(2, 1, 40), compensation="none")
    assert any("the weight of 4 is computed" in note for note in result.record.notes)
    assert result.record.after.params < result.record.before.params


class Stateful(nn.Module):
    """A recurrent layer that goes on from where it was."""

    def __init__(self, cell: Callable[..., nn.RNNBase], layers: int, kept: str) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 12), nn.Linear(12, 3)
        self.rnn, self.kept = cell(12, 12, layers, batch_first=True), kept
        state = torch.zeros(layers, 1, 12)
        if kept == "buffer":
            self.register_buffer("state", state)
        else:
            self.state = (state, state.clone()) if cell is nn.LSTM else state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.rnn(self.enter(x), self.state)
        self.state = state
        out: torch.Tensor = self.leave(y)
        return out


@pytest.mark.parametrize(("cell", "layers"), [(nn.LSTM, 1), (nn.GRU, 2), (nn.RNN, 1)])
def test_state_in_plain_tensors_is_named(cell: type[nn.RNNBase], layers: int) -> None:
    model, x = Stateful(cell, layers, "attribute").eval(), torch.randn(1, 4, 5)
    assert "the model keeps state outside of its parameters" in str(niwaki.trace(model, x))
    with pytest.raises(BudgetError, match=r"the model keeps state outside.*register_buffer"):
        niwaki.prune(model, x, budget="params=0.6")


@pytest.mark.parametrize(("cell", "layers"), [(nn.GRU, 1), (nn.RNN, 2)])
def test_state_in_a_buffer_is_cut(cell: type[nn.RNNBase], layers: int) -> None:
    model, x = Stateful(cell, layers, "buffer").eval(), torch.randn(1, 4, 5)
    result = niwaki.prune(model, x, compensation="none")
    assert result.model.state.shape == (layers, 1, within.size(result.model, "rnn.hidden_size"))
    assert within.size(result.model, "rnn.hidden_size") < 12
    assert "outside of its parameters" not in str(niwaki.trace(model, x))
