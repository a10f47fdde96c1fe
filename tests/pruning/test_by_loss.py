"""The default division, and that it is never worse than equal shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.methods.distortion import quick
from niwaki.pruning import by_loss
from niwaki.pruning.allocation import with_losses

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
SEEN = [torch.randn(100, 6, generator=torch.Generator().manual_seed(1)) for _ in range(3)]


class Unlike(nn.Module):
    """Two layers that cost the same, of which one hardly matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.much, self.more = nn.Linear(6, 32), nn.Linear(32, 3)
        self.little, self.less = nn.Linear(6, 32), nn.Linear(32, 3)
        with torch.no_grad():
            self.less.weight.mul_(1e-2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.more(torch.tanh(self.much(x)))
        rest: Tensor = self.less(torch.tanh(self.little(x)))
        return answer + rest


def pruned(budget: Any = "macs=0.5", model: nn.Module | None = None, **asked: Any) -> niwaki.Result:
    model = (model or Unlike()).eval()
    return niwaki.prune(model, X, budget, **asked)


def off(result: niwaki.Result) -> float:
    unseen = torch.randn(500, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return float((result.model(unseen) - Unlike().eval()(unseen)).square().mean())


@pytest.mark.parametrize("calibration", [None, SEEN])
@pytest.mark.parametrize("budget", ["macs=0.5", "params=0.5", "macs=0.5,params=0.4", "bytes=0.5"])
def test_the_layer_that_matters_little_goes_first(budget: str, calibration: Any) -> None:
    result = pruned(budget, calibration=calibration)
    equal = pruned(budget, calibration=calibration, scope="local")
    assert result.record.settings["scope"] == "quick"
    assert any(note.startswith("divided by loss: ") for note in result.record.notes)
    kept = {name: len(entry.units) for name, entry in result.plan.items()}
    assert kept["little"] < 8
    assert kept["much"] > 24
    assert off(result) < 0.1 * off(equal)


def test_channels_and_what_else_asks_for_it_are_equal_shares() -> None:
    for result in (pruned(0.5), pruned("channels=0.5"), pruned(quality="fast")):
        assert result.record.settings["scope"] == "local"
    assert pruned(uniform=True).record.settings["scope"] == "local"
    counts = {len(entry.units) for entry in pruned(0.5).plan.values()}
    assert counts == {16}


def test_limits_hold_in_the_default() -> None:
    result = pruned("macs=0.3", at_most=0.5, shares={"much": 0.25})
    assert result.record.settings["scope"] == "quick"
    assert len(result.plan["much"].units) == 24
    assert len(result.plan["little"].units) >= 16


@pytest.mark.parametrize("calibration", [None, SEEN])
@pytest.mark.parametrize("scope", ["quick", "auto"])
def test_a_division_that_answers_worse_gives_way_to_equal_shares(
    scope: Any, calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(curves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What matters much as if it mattered little."""
        return dict(zip(curves, reversed(list(curves.values())), strict=True))

    first, second = quick, with_losses

    def wrong(*args: Any) -> Any:
        known = first(*args)
        return replace(known, curves=turned(known.curves))

    def wrong_too(*args: Any) -> Any:
        scores = second(*args)
        return replace(scores, curves=turned(scores.curves))

    monkeypatch.setattr(by_loss, "quick", wrong)
    monkeypatch.setattr(by_loss, "with_losses", wrong_too)
    result = pruned(scope=scope, calibration=calibration)
    equal = pruned(scope="local", calibration=calibration)
    assert result.plan == equal.plan
    assert result.record.settings["scope"] == "local"
    assert any(
        note.startswith("equal shares: divided by loss, on ") for note in result.record.notes
    )
    asked: Any = {"scope": scope, "calibration": calibration}
    foreseen = niwaki.preview(Unlike().eval(), X, "macs=0.5", **asked)
    assert {row.group: row.kept for row in foreseen.rows} == {
        name: len(kept.units) for name, kept in equal.plan.items()
    }


@pytest.mark.parametrize("calibration", [None, SEEN])
def test_a_group_that_a_division_keeps_whole_is_cut_in_the_equal_shares_beside_it(
    calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quick

    def wrong(*args: Any) -> Any:
        """As if all depended on the layer that hardly matters."""
        known = first(*args)
        return replace(known, curves={**known.curves, "little": 1e9 * known.curves["little"]})

    monkeypatch.setattr(by_loss, "quick", wrong)
    result = pruned("macs=0.4", calibration=calibration)
    assert result.plan == pruned("macs=0.4", scope="local", calibration=calibration).plan
    assert set(result.plan.kept) == {"much", "little"}


def test_an_answer_without_a_derivative_is_cut_in_equal_shares_and_said() -> None:
    class Classes(Unlike):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1)

    result = pruned(model=Classes())
    assert result.record.settings["scope"] == "local"
    said = "equal shares: what the answer loses could not be told: none of its outputs has a"
    assert any(note.startswith(said) for note in result.record.notes)


def test_a_measured_budget_is_divided_by_loss_too() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip
    result = niwaki.prune(model, torch.randn(2, 3, 24, 24), "memory=0.3")
    assert result.record.settings["scope"] in ("quick", "local")
    said = [note for note in result.record.notes if note.startswith(("divided", "equal shares"))]
    assert len(said) == 1
