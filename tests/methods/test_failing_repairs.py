"""A repair that fails leaves a cut that is plain, proved, and says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.graph import Group
from niwaki.methods.base import COMPENSATIONS
from niwaki.methods.base.compensation import Groupwise
from niwaki.methods.neuron_merging import Merge

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("name", ["moments", "reconstruct", "flap"])
def test_an_exception_in_a_repair_is_a_note(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("nothing to\n divide by")

    model, x = mlp(), torch.randn(4, 5)
    monkeypatch.setattr(type(COMPENSATIONS.build(name)), "apply", fails)
    result = niwaki.prune(model, x, compensation=name, calibration=[x])
    plain = niwaki.prune(model, x, compensation="none")
    assert result.notes == dict.fromkeys(
        ["0", "2"], "not repaired: ZeroDivisionError: nothing to divide by"
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(result.model.parameters(), plain.model.parameters(), strict=True)
    )


def test_one_group_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Merge.mix

    def mix(self: Merge, group: Group, *rest: Any) -> tuple[Mixing | None, str]:
        if group.name == "2":
            raise ArithmeticError("singular")
        out: tuple[Mixing | None, str] = whole(self, group, *rest)
        return out

    monkeypatch.setattr(Merge, "mix", mix)
    result = niwaki.prune(mlp(), torch.randn(4, 5), compensation="merge:threshold=0")
    assert "0" in result.cut.mixings
    assert "2" not in result.cut.mixings
    assert "not repaired: ArithmeticError: singular" in result.notes["2"]


@dataclass(frozen=True)
class Own(Groupwise):
    """A method of the user's own."""

    error: type[Exception] = ValueError

    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        raise self.error("mine")


def test_methods_of_ones_own_raise_what_they_raise() -> None:
    with pytest.raises(ValueError, match="mine"):
        niwaki.prune(mlp(), torch.randn(4, 5), compensation=Own())


def test_what_the_user_can_mend_is_raised() -> None:
    with pytest.raises(SettingError, match="calibration"):
        niwaki.prune(mlp(), torch.randn(4, 5), compensation="reconstruct")
