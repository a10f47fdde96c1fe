"""Networks that draw random numbers in evaluation: fewer channels would draw others, so what numbers
are drawn for stays whole, and the rest is pruned and proved.
"""

from __future__ import annotations

import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki

pytestmark = pytest.mark.usefixtures("quick_latency")


class Noisy(nn.Module):
    """Something random happens to the first layer's 40 channels."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.first, self.second, self.last = nn.Linear(6, 40), nn.Linear(40, 30), nn.Linear(30, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        match self.how:
            case "like":
                hidden = hidden + 0.1 * torch.randn_like(hidden)
            case "of its shape":
                hidden = hidden + 0.1 * torch.randn(hidden.shape)
            case "dropout":
                hidden = F.dropout(hidden, 0.5, training=True)
            case "in place":
                hidden = hidden * torch.empty_like(hidden).bernoulli_(0.5)
            case "by sample":
                hidden = hidden * (torch.rand(len(x), 1) < 0.9)
        answer: Tensor = self.last(torch.relu(self.second(hidden)))
        return answer


class Autoencoder(nn.Module):
    """A variational one: its code is drawn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.mean, self.spread = nn.Linear(6, 40), nn.Linear(40, 8), nn.Linear(40, 8)
        self.decoder, self.last = nn.Linear(8, 40), nn.Linear(40, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.encoder(x))
        mean = self.mean(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * self.spread(hidden))
        answer: Tensor = self.last(torch.relu(self.decoder(code)))
        return answer


@pytest.mark.parametrize("how", ["like", "of its shape", "dropout", "in place"])
@pytest.mark.parametrize("budget", ["channels=0.5", "macs=0.3"])
def test_what_numbers_are_drawn_for_stays_whole(how: str, budget: str) -> None:
    model, x = Noisy(how).eval(), torch.randn(4, 6)
    result = niwaki.prune(model, x, budget)
    assert set(result.plan.kept) == {"second"}
    reasons = [str(item.reason) for item in result.cut.graph.frozen if item.width == 40]
    assert reasons
    assert how == "of its shape" or any("drawn at random by" in reason for reason in reasons)
    torch.manual_seed(1)
    wanted = niwaki.shrink(result.cut)(x)
    torch.manual_seed(1)
    assert torch.equal(result.model(x), wanted)


def test_what_is_drawn_by_sample_fixes_no_channels() -> None:
    plan = niwaki.prune(Noisy("by sample").eval(), torch.randn(4, 6), "channels=0.5").plan
    assert {name: len(kept.units) for name, kept in plan.items()} == {"first": 20, "second": 15}


def test_dropout_in_training_fixes_nothing() -> None:
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 2))
    plan = niwaki.prune(model.eval(), torch.randn(4, 6), "channels=0.5").plan
    assert len(plan["0"].units) == 20


def test_a_variational_autoencoder_keeps_its_code_and_loses_the_rest() -> None:
    result = niwaki.prune(Autoencoder().eval(), torch.randn(4, 6), "channels=0.5")
    counts = {name: len(kept.units) for name, kept in result.plan.items()}
    assert counts == {"encoder": 20, "decoder": 20}
    assert within.tensor(result.model, "mean.weight").shape == (8, 20)
