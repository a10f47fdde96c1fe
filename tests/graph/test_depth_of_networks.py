"""A network may be deeper than Python's stack."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import niwaki

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
DEPTH = 1200


class Deep(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.enter, self.leave = nn.Linear(3, 4), nn.Linear(4, 2)
        self.scales = nn.ParameterList([torch.ones(4) for _ in range(DEPTH)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = first = self.enter(x)
        for scale in self.scales:
            if self.kind == "sum":
                x = x + first * scale
            elif self.kind == "product":
                x = x * scale
            else:
                x = torch.cat([x[:, :2], (x * scale)[:, 2:]], 1)
        out: torch.Tensor = self.leave(x)
        return out


@pytest.mark.parametrize("kind", ["sum", "product", "cat"])
def test_a_deep_network_is_read(kind: str) -> None:
    graph = niwaki.trace(Deep(kind).eval(), torch.randn(2, 3))
    assert (
        sum(group.width for group in graph.groups) + sum(frozen.width for frozen in graph.frozen)
        >= 4
    )
    assert graph.state["scales.0"].shape == (4,)
    if kind == "sum":
        assert [group.width for group in graph.groups] == [4]
