"""Integers that modules keep in objects of their own follow, each for a reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracle
import pytest
import torch
import within
from torch import Tensor, nn

import niwaki

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


@dataclass
class Settings:
    width: int
    heads: int


@dataclass(frozen=True)
class Frozen:
    width: int
    heads: int


class Plain:
    def __init__(self, width: int, heads: int) -> None:
        self.width, self.heads = width, heads


class FromSettings(nn.Module):
    """Heads with sizes from an object."""

    def __init__(self, settings: Any, read: Callable[[Any], tuple[int, int]]) -> None:
        super().__init__()
        self.settings, self.read = settings, read
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        width, heads = self.read(self.settings)
        y = torch.relu(self.up(x)).view(-1, heads, width // heads)
        out: Tensor = self.down(y.flip(1).reshape(-1, width))
        return out


def by_name(settings: Any) -> tuple[int, int]:
    return settings.width, settings.heads


def by_key(settings: Any) -> tuple[int, int]:
    return settings["width"], settings["heads"]


CASES = {
    "dataclass": (Settings(16, 4), by_name),
    "frozen dataclass": (Frozen(16, 4), by_name),
    "namespace": (SimpleNamespace(width=16, heads=4), by_name),
    "class": (Plain(16, 4), by_name),
    "dict": ({"width": 16, "heads": 4, "name": "net"}, by_key),
    "nested": (SimpleNamespace(net={"width": 16, "heads": 4}), lambda s: by_key(s.net)),
    "tuple in a dict": ({"sizes": (16, 4)}, lambda s: s["sizes"]),
    "list in a class": (SimpleNamespace(sizes=[16, 4]), lambda s: tuple(s.sizes)),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_in_settings_follow(name: str, tmp_path: Path) -> None:
    settings, read = CASES[name]
    model, x = FromSettings(settings, read).eval(), torch.randn(2, 6)
    result = niwaki.prune(model, x, compensation="none")
    assert read(settings) == (16, 4)
    assert all(type(number) is int for number in read(settings))
    width, heads = read(result.model.settings)
    assert (width, heads) == (within.size(result.model, "up.out_features"), 4) == (8, 4)
    full = oracle.masked(niwaki.trace(model, x), result.plan, {})
    other = torch.randn(5, 6)
    assert oracle.distance(oracle.outputs(full, other), oracle.outputs(result.model, other)) < 1e-5
    loaded = niwaki.load(niwaki.save(result, tmp_path / "net"), model=model)
    assert read(loaded.settings) == (width, heads)
    assert torch.equal(loaded(other), result.model(other))


class Counting(nn.Module):
    """Settings that forward writes into: what it writes stays."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"calls": 0, "width": 16}
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.state["calls"] += 1
        out: Tensor = self.down(torch.relu(self.up(x)).view(-1, self.state["width"]))
        return out


def test_settings_that_forward_writes_are_left_as_found() -> None:
    model = Counting().eval()
    result = niwaki.prune(model, torch.randn(2, 6), compensation="none")
    assert model.state == {"calls": 0, "width": 16}
    assert type(model.state["width"]) is int
    assert (
        within.part(result.model, "state", dict)["width"]
        == within.size(result.model, "up.out_features")
        == 8
    )


class Shared(nn.Module):
    """Two parts that hold one object."""

    def __init__(self) -> None:
        super().__init__()
        settings = Settings(16, 4)
        self.first = FromSettings(settings, by_name)
        self.second = FromSettings(settings, by_name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x) + self.second(x)
        return out


def test_shared_settings_follow_where_all_agree() -> None:
    result = niwaki.prune(Shared().eval(), torch.randn(2, 6), compensation="none")
    first, second = (
        within.part(result.model, f"{name}.settings", Settings) for name in ("first", "second")
    )
    assert first is second
    assert within.size(result.model, "first.settings.width") == 8
    assert not result.left_whole


def enlarged(x: Tensor, *, planes: int, stride: int) -> Tensor:
    """A shortcut without weights: every so manieth pixel, and channels of zeros behind."""
    x = x[..., ::stride, ::stride]
    zeros = torch.zeros(len(x), planes - x.shape[1], *x.shape[2:], dtype=x.dtype)
    return torch.cat([x, zeros], 1)


class WithShortcut(nn.Module):
    def __init__(self, shortcut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(10, 24, 3, padding=1, stride=2), shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.conv(x) + self.shortcut(x)).relu()
        return out


def test_arguments_of_a_partial_function_follow() -> None:
    torch.manual_seed(0)
    partial = functools.partial(enlarged, planes=24, stride=2)
    model = nn.Sequential(
        nn.Conv2d(3, 10, 3), WithShortcut(partial), nn.Flatten(), nn.Linear(24 * 9, 4)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    small: Any = niwaki.prune(model, x, 0.5, compensation="none").model
    assert small[1].conv.weight.shape == (12, 5, 3, 3)
    assert small[1].shortcut.keywords == {"planes": 12, "stride": 2}
    assert partial.keywords == {"planes": 24, "stride": 2}
