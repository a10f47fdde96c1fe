"""What only another size shows wrong costs its own group, not the whole network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import niwaki


class Mixing(nn.Module):
    """Attention over positions whose result is read as channels, in the order in which it lies in
    memory: which channel is which hangs on the number of positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before, self.mixed = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.mixed(self.before(x).relu()), 4)
        places = x.flatten(2).transpose(1, 2)
        y = places.reshape(len(x), 8, *x.shape[2:])
        out: Tensor = self.last((x + y).relu())
        return out


def test_the_group_is_left_whole_and_the_others_are_cut() -> None:
    torch.manual_seed(0)
    model = Mixing().eval()
    result = niwaki.prune(model, torch.randn(2, 3, 4, 4), 0.5, compensation="none")
    small: Any = result.model
    assert small.before.weight.shape[0] == 6
    assert small.mixed.weight.shape[0] == 8
    for side in (4, 8, 12):
        assert small(torch.randn(3, 3, side, side)).shape == (3, 4, side // 4, side // 4)
