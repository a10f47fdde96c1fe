"""Fast, default and best, for those who do not want to choose."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import niwaki
from niwaki.cli.app import app
from niwaki.core.errors import SettingError, UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
SEEN = [torch.randn(64, 3, 10, 10, generator=torch.Generator().manual_seed(1))]


def settings(network: nn.Module, **asked: Any) -> dict[str, Any]:
    result = niwaki.prune(network, X, "macs=0.5", **asked)
    assert result.record.after.macs <= 0.5 * result.record.before.macs
    used = result.record.settings
    named = {
        key: used.get(key) for key in ("quality", "criterion", "compensation", "recovery", "scope")
    }
    return {key: value for key, value in named.items() if value is not None}


def test_each_quality_stands_for_methods(network: nn.Module) -> None:
    default = {"criterion": "l2", "compensation": "auto", "scope": "quick"}
    assert settings(network) == default
    assert settings(network, quality="fast") == {
        "quality": "fast", **default, "compensation": "none", "scope": "local",
    }  # fmt: skip
    best = {"quality": "best", "criterion": "auto", "compensation": "auto", "scope": "auto"}
    assert settings(network, quality="best") == best
    assert settings(network, quality="best", calibration=SEEN) == {**best, "recovery": ["lbfgs"]}


def test_what_is_stated_wins(network: nn.Module) -> None:
    assert settings(
        network, quality="best", criterion="l1", compensation="merge", recovery=(), scope="local",
        calibration=SEEN,
    ) == {"quality": "best", "criterion": "l1", "compensation": "merge", "scope": "local"}  # fmt: skip
    chosen = niwaki.Selection(scope="global")
    assert settings(network, quality="best", selection=chosen)["scope"] == "global"
    assert settings(network, quality="best", uniform=True)["scope"] == "local"
    assert settings(network, quality="fast", compensation="moments")["compensation"] == "moments"


def test_every_quality_is_proved_on_other_inputs_too(network: nn.Module) -> None:
    for quality in ("fast", "default"):
        covers = niwaki.prune(network, X, quality=quality).proof.covers
        assert any(words.startswith("a batch of") for words in covers)


def test_best_answers_nearest_to_the_original(network: nn.Module) -> None:
    def off(**asked: Any) -> float:
        result = niwaki.prune(network, X, "macs=0.5", **asked)
        unseen = torch.randn(256, 3, 10, 10, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            return float((result.model(unseen) - network(unseen)).square().mean())

    best = off(quality="best", calibration=SEEN)
    assert best < off(calibration=SEEN)
    assert best < 0.5 * off(quality="fast")


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("what", ["units", "branches", ("units", "branches")])
def test_best_does_what_else_is_asked(form: Any, what: Any) -> None:
    model, x = niwaki.models.build("resnet20").eval(), torch.randn(2, 3, 32, 32)
    seen = [torch.randn(8, 3, 32, 32)]
    result = niwaki.prune(
        model, x, "macs=0.3", quality="best", what=what, form=form, calibration=seen
    )
    assert result.record.after.macs <= 0.7 * result.record.before.macs


def test_a_preview_is_of_the_same_quality(network: nn.Module) -> None:
    foreseen = niwaki.preview(network, X, "macs=0.5", quality="best", calibration=SEEN)
    result = niwaki.prune(network, X, "macs=0.5", quality="best", calibration=SEEN)
    assert dict(foreseen.plan.units) == dict(result.plan.units)
    assert "* criterion: reconstruct, as there are calibration inputs" in str(foreseen)


def test_what_is_no_quality_is_told(network: nn.Module) -> None:
    with pytest.raises(UnknownNameError, match="best"):
        niwaki.prune(network, X, quality="bset")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="quality says how units go"):
        niwaki.prune(
            network, X, "params=0.5", quality="best", what="blocks", criterion="mint",
            calibration=SEEN,
        )  # fmt: skip


def test_the_command_line_has_it_too(quick_latency: None) -> None:
    words = ["digits-cnn", "--data", "digits", "--budget", "macs=0.5", "--json"]

    def used(*more: str) -> dict[str, Any]:
        said = CliRunner().invoke(app, ["prune", *words, *more])
        assert said.exit_code == 0, said.output
        found: dict[str, Any] = json.loads(said.stdout)["settings"]
        return found

    best = used("--quality", "best", "--calibration", "100")
    assert (best["criterion"], best["scope"], best["recovery"]) == ("auto", "auto", ["lbfgs"])
    stated = used("--quality", "best", "--scope", "local:min_units=2", "--criterion", "l1")
    assert (stated["criterion"], stated["scope"], stated["min_units"]) == ("l1", "local", 2)
    assert used("--quality", "fast")["compensation"] == "none"
