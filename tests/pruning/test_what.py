"""Units, whole residual branches, or both out of one budget; blocks by MINT."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import within
from torch import nn
from typer.testing import CliRunner

import niwaki
from niwaki.cli.app import app
from niwaki.core.errors import BudgetError, NiwakiError, SettingError, UnknownNameError
from niwaki.methods.base import CRITERIA
from niwaki.methods.mint.criterion import Mint

pytestmark = pytest.mark.usefixtures("one_thread")

QUIET: dict[str, Any] = {"compensation": "none"}


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.second(self.first(x).relu())
        return out


def network(depth: int = 4) -> tuple[nn.Module, torch.Tensor]:
    """Blocks of which the later ones change their stream more."""
    torch.manual_seed(0)
    blocks = [Block(6, 8) for _ in range(depth)]
    for place, block in enumerate(blocks):
        block.second.weight.data.mul_(0.01 * 10**place)
        within.tensor(block, "second.bias").data.zero_()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return model.double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)


def test_a_share_of_the_branches_goes_least_influence_first() -> None:
    model, x = network()
    result = niwaki.prune(model, x, 0.5, what="branches", **QUIET)
    assert result.dropped == ("1", "2")
    assert list(result.influence) == ["1", "2", "3", "4"]
    assert result.plan.kept == {}
    assert result.record.settings["what"] == "branches"


@pytest.mark.parametrize("unit", ["params", "macs", "bytes"])
def test_branches_go_until_a_budget_is_met(unit: str) -> None:
    model, x = network()
    result = niwaki.prune(model, x, {unit: 0.3}, what="branches", **QUIET)
    count = getattr(niwaki, f"count_{unit}")
    of = (lambda m: count(m, x)) if unit == "macs" else count
    assert 1 <= len(result.dropped) < 4
    assert of(result.model) <= 0.7 * of(model)
    fewer = niwaki.prune(
        model, x, (len(result.dropped) - 1) / 4, what="branches", **QUIET
    )  # one branch less is not enough
    assert of(fewer.model) > 0.7 * of(model)


@pytest.mark.parametrize("budget", ["macs=0.5", "params=0.5", "macs=0.4,params=0.5"])
@pytest.mark.parametrize("scope", ["local", "global", "auto"])
def test_units_and_branches_out_of_one_budget(budget: str, scope: str) -> None:
    model, x = network()
    result = niwaki.prune(model, x, budget, what=("branches", "units"), scope=scope, **QUIET)
    for one in niwaki.core.budget.Budget.parse(budget).every:
        count = niwaki.count_params if one.unit == "params" else lambda m: niwaki.count_macs(m, x)
        assert count(result.model) <= (1 - one.amount) * count(model)
    assert "1" in result.dropped  # it does next to nothing
    assert result.proof.difference < 1e-9


def test_fewer_branches_go_where_units_do_it_better() -> None:
    model, x = network()
    both = niwaki.prune(model, x, "macs=0.5", what=("units", "branches"), **QUIET)
    units = niwaki.prune(model, x, "macs=0.5", **QUIET)
    branches = niwaki.prune(model, x, "macs=0.5", what="branches", **QUIET)

    def off(result: niwaki.Result) -> float:
        with torch.no_grad():
            return float((result.model(x) - model(x)).norm())

    assert off(both) <= min(off(units), off(branches)) * 1.0001


def test_branches_are_saved_and_loaded_with_units(tmp_path: Any) -> None:
    model, x = niwaki.models.build("resnet20").eval(), torch.randn(2, 3, 32, 32)
    result = niwaki.prune(model, x, "macs=0.5", what=("units", "branches"))
    niwaki.save(result, tmp_path / "both")
    again = niwaki.load(tmp_path / "both")
    with torch.no_grad():
        assert torch.equal(again(x), result.model(x))


def test_blocks_go_as_in_mint() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    batches = [torch.randn(64, 6)]
    criterion = "mint:groups=4,samples=64"
    result = niwaki.prune(
        model,
        torch.randn(2, 6),
        "params=0.5",
        what="blocks",
        criterion=criterion,
        calibration=batches,
    )
    assert 0.5 <= result.params_gone < 0.8
    assert result.blocks
    assert result.dependencies is not None
    mint = CRITERIA.build(criterion)
    assert isinstance(mint, Mint)
    trimmed = niwaki.trim(
        model,
        torch.randn(2, 6),
        cut_off=niwaki.methods.mint.blocks.CutOff(params=0.5, upper_limit=1.0),
        estimation=mint.estimation(),
        calibration=batches,
    )
    assert result.blocks == trimmed.blocks


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget": 0.5}, "share of the weights"),
        ({"compensation": "merge"}, "compensation says how units go"),
        ({"recovery": "refit"}, "recovery"),
        ({"form": "graph"}, "form"),
        ({"scope": "global"}, "scope"),
        ({"min_units": 3}, "min_units"),
    ],
)
def test_settings_that_say_nothing_about_blocks_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    model, x = network()
    given = {"budget": "params=0.5", "what": "blocks", "criterion": "mint", **settings}
    with pytest.raises(SettingError, match=said):
        niwaki.prune(model, x, calibration=[x], **given)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"what": "heads"}, UnknownNameError, "blocks, branches, units"),
        ({"what": ()}, SettingError, "what goes is"),
        ({"what": ("units", "blocks")}, SettingError, "prune the result again"),
        ({"what": ("units", "branches"), "budget": 0.5}, SettingError, "params, macs or bytes"),
        ({"what": "branches", "budget": "latency=0.5"}, SettingError, "params, macs or bytes"),
        ({"what": "branches", "budget": "macs=0.95"}, BudgetError, "at most"),
        ({"what": "branches", "only": "conv*"}, SettingError, "no branch is named like"),
        ({"what": "blocks", "compensation": "auto"}, SettingError, "criterion='mint'"),
        ({"what": ("units", "branches"), "recovery": "refit"}, SettingError, "where whole branch"),
    ],
)
def test_what_cannot_be_asked_is_told(
    settings: dict[str, Any], error: type[NiwakiError], said: str
) -> None:
    model, x = network()
    with pytest.raises(error, match=said):
        niwaki.prune(model, x, **{**QUIET, **settings})


def test_a_network_without_branches_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(BudgetError, match="no residual branch"):
        niwaki.prune(model, torch.randn(2, 4), "params=0.2", what="branches")


def test_a_branch_that_is_skipped_stays() -> None:
    model, x = network()
    result = niwaki.prune(model, x, 0.5, what="branches", skip="1.*", **QUIET)
    assert "1" not in result.dropped
    assert len(result.dropped) == 2


def test_branches_go_on_the_command_line_too(quick_latency: None) -> None:
    words = ["resnet20", "--budget", "macs=0.5", "--scope", "local:what=branches", "--json"]
    said = CliRunner().invoke(app, ["prune", *words])
    assert said.exit_code == 0, said.stderr
    record = json.loads(said.stdout)
    assert record["settings"]["what"] == "branches"
    assert record["after"]["macs"] <= 0.5 * record["before"]["macs"]


def test_a_graph_of_operators_is_judged_on_batches_of_its_size() -> None:
    model, x = network()
    batches = [torch.randn(size, 3, 8, 8, dtype=torch.float64) for size in (2, 5)]
    result = niwaki.prune(model, x, 0.3, form="graph", calibration=batches, compensation="none")
    assert result.record.after.scores["cosine"] > 0


@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        (0.5, {"what": "branches"}),
        ("params=0.3", {"what": "branches", "skip": "1.*"}),
        ("macs=0.5", {"what": ("units", "branches")}),
        ("macs=0.4,params=0.5", {"what": ("units", "branches"), "scope": "global"}),
    ],
)
def test_branches_are_foreseen_as_they_go(budget: Any, asked: dict[str, Any]) -> None:
    model, x = network()
    foreseen = niwaki.preview(model, x, budget, compensation="none", **asked)
    result = niwaki.prune(model, x, budget, **asked, **QUIET)
    assert set(foreseen.branches) == set(result.dropped)
    assert foreseen.branches.items() <= result.influence.items()
    assert dict(foreseen.plan.units) == dict(result.plan.units)
    for unit, (before, after) in foreseen.sizes.items():
        assert before == getattr(result.record.before, unit)
        assert after == getattr(result.record.after, unit)
    assert all(f"{name}  the branch would go" in str(foreseen) for name in result.dropped)


def test_blocks_are_not_foreseen_and_that_is_told() -> None:
    model, x = network()
    with pytest.raises(SettingError, match=r"not foreseen: call niwaki\.prune"):
        niwaki.preview(model, x, "params=0.5", what="blocks", criterion="mint", calibration=[x])


def test_a_dry_run_tells_of_branches(quick_latency: None) -> None:
    words = ["resnet20", "--budget", "macs=0.5", "--scope", "local:what=units+branches"]
    said = CliRunner().invoke(app, ["prune", *words, "--dry-run"])
    assert said.exit_code == 0, said.stderr
    assert "the branch would go" in said.stdout


def test_a_module_that_is_skipped_is_foreseen_to_stay() -> None:
    model, x = network()
    foreseen = niwaki.preview(model, x, 0.5, skip=[model.get_submodule("1")])
    result = niwaki.prune(model, x, 0.5, skip=[model.get_submodule("1")])
    assert dict(foreseen.plan.units) == dict(result.plan.units)


def test_a_recovery_of_a_network_without_branches_is_refused() -> None:
    model, x = network()
    result = niwaki.prune(model, x, 0.5, what="branches", **QUIET)
    seen = niwaki.Calibration.of([x])
    with pytest.raises(SettingError, match="they have other layers; train what is left"):
        niwaki.recover(result.cut, result.model, "refit", calibration=seen)
