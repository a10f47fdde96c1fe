"""What only another size shows wrong costs its own group, not the whole network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import niwaki


class Mixing(nn.Module):
    """In the way of MAnet's attention over positions: what comes out is read as channels in the
    order in which it lies in memory, which is that of the channels for a single position alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 12, 3, padding=1)
        self.query, self.key = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1)
        self.mixed, self.last = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.before(x).relu(), 4)
        alike = self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        y = self.mixed(x)
        places = y.flatten(2).transpose(1, 2)
        z = (alike.softmax(2) @ places).reshape(len(x), places.shape[2], *x.shape[2:])
        out: Tensor = self.last((y + z).relu())
        return out


def test_the_group_is_left_whole_and_the_others_are_cut() -> None:
    torch.manual_seed(0)
    model = Mixing().eval()
    result = niwaki.prune(model, torch.randn(2, 3, 4, 4), 0.5, compensation="none")
    small: Any = result.model
    assert small.before.weight.shape[0] == 6
    assert small.query.weight.shape[0] == 3
    assert small.mixed.weight.shape[0] == 8
    assert list(result.left_whole) == ["mixed"]
    for side in (4, 8, 12):
        assert small(torch.randn(3, 3, side, side)).shape == (3, 4, side // 4, side // 4)
