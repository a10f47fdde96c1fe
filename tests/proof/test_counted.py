"""Numbers that a model's code computes from its counts of channels, and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.graph import Freeze

Step = Callable[[Tensor], Tensor]


class Maps(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.first, self.last, self.step = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 4, 1), step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.step(torch.relu(self.first(x)) + 0.1))
        return out


# what the step is on the kept channels alone is what the pruned network must compute
STEPS: dict[str, Step] = {
    "root": lambda x: F.normalize(x, dim=1) * x.shape[1] ** 0.5,
    "root of the size": lambda x: x.size(1) ** -0.5 * x,
    "mean by hand": lambda x: x - x.sum(1, keepdim=True) / x.shape[1],
    "mean by a reciprocal": lambda x: x * (1 / x.shape[1]),
    "count added": lambda x: x + x.shape[1],
    "twice the root": lambda x: F.normalize(x, dim=1) * (2 * x.shape[1] ** 0.5),
    "half of them": lambda x: x / (x.shape[1] // 2),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("budget", [0.25, 0.5])
def test_the_number_follows_and_the_record_says_so(name: str, budget: float) -> None:
    torch.manual_seed(0)
    model, x = Maps(STEPS[name]).eval(), torch.randn(2, 3, 8, 8)
    result = niwaki.prune(model, x, budget=budget, compensation="none")
    kept = list(result.plan["first"].units)
    assert len(kept) == round(32 * (1 - budget))
    maps = torch.relu(model.first(x)[:, kept]) + 0.1
    by_hand = F.conv2d(STEPS[name](maps), model.last.weight[:, kept], model.last.bias)
    assert torch.allclose(by_hand, result.model(x), atol=1e-5)
    assert any(f"computed from {len(kept)} channels" in note for note in result.record.notes)


@pytest.mark.parametrize("number", [32**0.5, 32, 1 / 32, 16])
def test_a_number_that_only_looks_like_a_count_stays(number: float) -> None:
    torch.manual_seed(0)
    model, x = Maps(lambda x: x * number).eval(), torch.randn(2, 3, 8, 8)
    result = niwaki.prune(model, x, compensation="none")
    kept = list(result.plan["first"].units)
    maps = torch.relu(model.first(x)[:, kept]) + 0.1
    by_hand = F.conv2d(maps * number, model.last.weight[:, kept], model.last.bias)
    assert torch.allclose(by_hand, result.model(x), rtol=1e-4, atol=1e-5)
    assert not any("computed from" in note for note in result.record.notes)


def test_other_functions_of_a_count_are_refused() -> None:
    model = Maps(lambda x: x * (x.shape[1] ** 3 + 7)).eval()
    with pytest.raises(niwaki.NiwakiError, match="differs from the masked original"):
        niwaki.prune(model, torch.randn(2, 3, 8, 8), compensation="none")


def sines(steps: int, width: int) -> Tensor:
    angles = torch.arange(steps)[:, None] / 100 ** (torch.arange(width // 2) * 2 / width)
    return torch.cat([angles.sin(), angles.cos()], 1)


def woven(steps: int, width: int) -> Tensor:
    return torch.stack(sines(steps, width).chunk(2, 1), 2).flatten(1)


def ramp(steps: int, width: int) -> Tensor:
    return torch.linspace(0, 1, width).expand(steps, -1)


class Placed(nn.Module):
    def __init__(self, positions: Callable[[int, int], Tensor] | None) -> None:
        super().__init__()
        self.positions, self.first, self.last = positions, nn.Linear(5, 16), nn.Linear(16, 3)
        self.heads = nn.MultiheadAttention(16, 4, batch_first=True)
        self.inner, self.outer = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.positions is not None:
            x = x + self.positions(x.shape[1], x.shape[2])
        x = x + self.heads(x, x, x, need_weights=False)[0]
        out: Tensor = self.last(x + self.outer(torch.relu(self.inner(x))))
        return out


@pytest.mark.parametrize("positions", [sines, woven, ramp])
@pytest.mark.parametrize("form", ["module", "graph"])
def test_positions_are_named_as_what_keeps_a_stream(
    positions: Callable[[int, int], Tensor], form: Literal["module", "graph"]
) -> None:
    torch.manual_seed(0)
    model, x = Placed(positions).eval(), torch.randn(2, 6, 5)
    graph = niwaki.trace(model, x)
    kinds = {item.reason.kind for item in graph.frozen if item.layer == "first"}
    assert Freeze.POSITIONS in kinds
    result = niwaki.prune(model, x, compensation="none", form=form)
    (note,) = (note for note in result.record.notes if note.startswith("first and"))
    width = 8 if positions is woven else 16  # pairs of a sine and a cosine
    assert f"keep {width} channels, joined with positions" in note
    whole = [note for note in result.notes.values() if note.startswith("left whole")]
    assert bool(whole) == (form == "module")
    assert all("joined with positions" in note for note in whole)


def test_without_positions_nothing_is_said_of_them() -> None:
    torch.manual_seed(0)
    model, x = Placed(None).eval(), torch.randn(2, 6, 5)
    result = niwaki.prune(model, x, compensation="none")
    assert niwaki.count_params(result.model) < 0.3 * niwaki.count_params(model)
    assert not any("positions" in note for note in result.record.notes)
