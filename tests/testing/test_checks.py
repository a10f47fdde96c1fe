"""Every method of niwaki keeps the contracts that others may hold theirs to, and each rule finds a
method that breaks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.mixing import Mixing
from niwaki.graph import Group
from niwaki.methods.base import COMPENSATIONS, CRITERIA
from niwaki.testing import check_compensation, check_criterion, check_trace

SMALL = {"mint": "mint:groups=2,samples_per_class=4,samples=16", "hessian": "hessian:draws=2"}


@pytest.mark.parametrize("name", list(CRITERIA))
def test_criteria_keep_it(name: str) -> None:
    check_criterion(SMALL.get(name, name))


@pytest.mark.parametrize("name", list(COMPENSATIONS))
def test_compensations_keep_it(name: str) -> None:
    check_compensation(name)


def largest(group: Group, evidence: niwaki.Evidence) -> Tensor:
    return group.rows(evidence.state).abs().amax(1)


def test_a_function_is_a_criterion() -> None:
    check_criterion(largest)


def too_few(group: Group, evidence: niwaki.Evidence) -> Tensor:
    return torch.ones(1)


def not_a_number(group: Group, evidence: niwaki.Evidence) -> Tensor:
    return torch.full((group.width,), torch.nan)


def by_chance(group: Group, evidence: niwaki.Evidence) -> Tensor:
    return torch.rand(group.width)


def writing(group: Group, evidence: niwaki.Evidence) -> Tensor:
    next(evidence.graph.model.parameters()).data.add_(1)
    return largest(group, evidence)


def failing(group: Group, evidence: niwaki.Evidence) -> Tensor:
    raise KeyError("weight")


def forgetful(group: Group, evidence: niwaki.Evidence) -> Tensor:
    assert evidence.calibration is not None
    return largest(group, evidence)


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (too_few, "none of the networks"),  # refused already, in one line
        (not_a_number, "not finite"),
        (by_chance, "evidence.generator"),
        (writing, "changed the model's"),
        (failing, "KeyError"),
        (forgetful, "without calibration inputs"),
    ],
)
def test_a_criterion_that_breaks_a_rule_is_told(function: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_criterion(function)


@dataclass(frozen=True)
class Doubling(niwaki.Groupwise):
    """Kept units count double; each fault is one of a careless author."""

    fault: str = ""

    def mix(
        self, group: Group, units: Sequence[int], state: Mapping[str, Tensor]
    ) -> tuple[Mixing | None, str]:
        matrix = 2 * Mixing.selecting(group.width, units).matrix
        if self.fault == "shape":
            matrix = matrix.T
        if self.fault == "infinite":
            matrix = matrix / 0
        if self.fault == "chance":
            matrix = matrix + torch.rand(())
        if self.fault == "writes":
            state[group.of_role(niwaki.graph.Role.CONSUMER)[0].tensor].data.mul_(2)
        if self.fault == "fails":
            raise ZeroDivisionError
        return Mixing(matrix), "doubled"


def test_a_compensation_of_ones_own_keeps_it() -> None:
    check_compensation(Doubling())


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "its matrix"),
        ("infinite", "not finite"),
        ("chance", "evidence.generator"),
        ("writes", "changed the model's"),
        ("fails", "ZeroDivisionError"),
    ],
)
def test_a_compensation_that_breaks_a_rule_is_told(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_compensation(Doubling(fault))


def test_each_group_of_a_network_is_tried() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 2))
    assert check_trace(model, torch.randn(3, 4)) == {"0": "proved", "2": "proved"}


def test_a_network_that_cannot_be_cut_is_told() -> None:
    with pytest.raises(AssertionError, match="nothing of this network can be cut"):
        check_trace(nn.Linear(4, 2), torch.randn(3, 4))
