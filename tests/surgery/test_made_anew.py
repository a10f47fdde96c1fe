"""A layer that keeps sizes by name, and works with what it made of them once, as einops' do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.running.settings import made_anew, state_of


class Split(nn.Module):
    """(batch, tokens, parts·heads·width) → parts × (batch, heads, tokens, width)."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        self.lengths = lengths
        self._known = tuple(lengths.items())  # what forward reads

    def __getstate__(self) -> dict[str, Any]:
        return {"lengths": self.lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Split.__init__(self, **state["lengths"])

    def forward(self, x: Tensor) -> Tensor:
        known = dict(self._known)
        x = x.reshape(*x.shape[:2], known["parts"], known["heads"], -1)
        return x.permute(2, 0, 3, 1, 4)


class Attention(nn.Module):
    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(20, 3 * heads * width)
        self.split = Split(parts=3, heads=heads)
        self.out = nn.Linear(heads * width, 20)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.qkv(x))
        y = (q @ k.transpose(-1, -2) * 0.3).softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("heads", "width"), [(4, 12), (6, 8), (2, 10)])
def test_heads_that_a_layer_keeps_by_name_follow(heads: int, width: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Attention(heads, width), Attention(heads, width), nn.Linear(20, 7)).eval()
    result = niwaki.prune(model, torch.randn(2, 9, 20), 0.5)
    small: Any = result.model
    assert small[0].split.lengths == {"parts": 3, "heads": heads // 2}
    assert small[0].split._known == (("parts", 3), ("heads", heads // 2))
    assert model[0].split.lengths == {"parts": 3, "heads": heads}  # type: ignore[union-attr]
    x = torch.randn(5, 4, 20)
    again = pickle.loads(pickle.dumps(small))
    assert torch.equal(again(x), small(x))


def test_only_classes_that_say_so_are_made_anew() -> None:
    assert state_of(nn.Linear(2, 2)) is None
    assert state_of(nn.Sequential(Split(parts=3, heads=2))) is None
    layer = Split(parts=3, heads=2).eval()
    layer.lengths["heads"] = 1
    made_anew(layer)
    assert layer._known == (("parts", 3), ("heads", 1))
    assert layer.training is False
