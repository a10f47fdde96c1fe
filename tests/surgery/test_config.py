"""What a config states after the cut: only what builds a network that computes the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import within
from torch import nn

import niwaki

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Attention(nn.Module):
    """Heads of a fixed width, or of what the width leaves for each; weights as small as a new
    network's, so that its outputs hardly show how they are shared out.
    """

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.heads, self.width = config.heads, config.hidden // config.heads
        self.enter = nn.Linear(6, config.hidden)
        self.q, self.k, self.v = (nn.Linear(config.hidden, config.hidden) for _ in range(3))
        self.leave = nn.Linear(config.hidden, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        shape = (*h.shape[:-1], self.heads, self.width)
        q, k, v = (layer(h).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = (q @ k.transpose(2, 3) / 4).softmax(-1)
        out: torch.Tensor = self.leave((scores @ v).transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_config_never_states_another_network(heads: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Attention(SimpleNamespace(hidden=32, heads=heads)).to(dtype).eval()
    x = torch.randn(3, 5, 6, dtype=dtype)
    result = niwaki.prune(model, x, compensation="none")
    small = result.model
    said = any("config cannot state" in note for note in result.record.notes)
    again = (
        None if said else Attention(within.part(small, "config", SimpleNamespace)).to(dtype).eval()
    )
    assert model.config == SimpleNamespace(hidden=32, heads=heads)
    if again is None:
        assert small.config == model.config
        return
    for parameter in small.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), small(x))
    assert (again.heads, again.width) == (small.heads, small.width)
