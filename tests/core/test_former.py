"""Whoever writes a keyword of an earlier version is told what has taken its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import niwaki
from niwaki.core.errors import SettingError

X = torch.randn(3, 4)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("verb", "former", "said"),
    [
        (niwaki.prune, {"data": []}, r"prune has no data= any more: give .* evaluate="),
        (niwaki.prune, {"measure": False}, r"prune has no measure= .* result\.untimed\(\)"),
        (niwaki.preview, {"data": []}, r"preview has no data="),
        (niwaki.trim, {"data": []}, r"trim has no data= .* evaluate="),
        (niwaki.sensitivity, {"data": []}, r"sensitivity has no data= .* evaluate="),
    ],
)
def test_a_former_keyword_names_the_new_one(
    verb: Callable[..., Any], former: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        verb(network(), X, **former)
