"""Paths that no tried input takes: what may run there keeps fitting, or is reached by changing an
answer that the code is given.
"""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.graph import Freeze
from niwaki.running.mentions import Mention, mentions
from niwaki.running.steering import Steered, turned


class Far(nn.Module):
    """Another body for inputs far longer than any that is tried."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.near = nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, width))
        self.far = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = self.near(h) if x.shape[1] < 500 else self.far(h)
        out: Tensor = self.last(torch.relu(h))
        return out


class InMethod(Far):
    """The same, decided in a method of its own."""

    def body(self, h: Tensor, steps: int) -> Tensor:
        if steps < 500:
            y: Tensor = self.near(h)
            return y
        out: Tensor = self.far(h)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.body(torch.relu(self.first(x)), x.shape[1])))
        return out


class Token(Far):
    """A token for places that long inputs lack."""

    def __init__(self) -> None:
        super().__init__()
        self.far = nn.Identity()  # type: ignore[assignment]  # it has no such body
        self.token = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.near(torch.relu(self.first(x))))
        if x.shape[1] >= 500:
            h = torch.cat([h, self.token.expand(len(h), 1, -1)], 1)
        out: Tensor = self.last(h)
        return out


LONG = torch.randn(1, 600, 5)


@pytest.mark.parametrize("kind", [Far, InMethod, Token])
def test_what_no_tried_input_reaches_still_runs(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    result = niwaki.prune(model, torch.randn(2, 4, 5), "params=0.1", measure=False)
    assert niwaki.count_params(result.model) < niwaki.count_params(model)
    assert result.model(LONG).shape == model(LONG).shape
    reasons = {frozen.reason.kind for frozen in niwaki.trace(model, torch.randn(2, 4, 5)).frozen}
    assert Freeze.UNREACHED in reasons


class Tasks(nn.Module):
    """One of several heads, as the caller says; they differ in size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.heads = nn.ModuleDict({"a": nn.Linear(8, 3), "b": nn.Linear(8, 7)})

    def forward(self, x: Tensor, task: str = "a") -> Tensor:
        out: Tensor = self.heads[task](self.body(x))
        return out


def test_the_heads_of_other_tasks_still_fit() -> None:
    model = Tasks().eval()
    result = niwaki.prune(model, torch.randn(2, 5), 0.5, measure=False)
    assert result.plan["body.0"].units != tuple(range(16))
    assert result.model(torch.randn(2, 5), "b").shape == (2, 7)
    masked = oracle.masked(result.cut.graph, result.plan, result.cut.mixings)
    x = torch.randn(4, 5)
    for task in "ab":
        assert torch.allclose(masked(x, task), result.model(x, task), atol=1e-5)


class Settled(nn.Module):
    """Code that this object's own settings rule out."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.early, self.how = early, "plain"
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)
        self.other = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        if self.how == "both":
            h = self.other(h)
        if self.early:
            y: Tensor = self.last(h)
            return y
        out: Tensor = self.last(self.other(h))
        return out


def test_code_that_settings_rule_out_holds_nothing_up() -> None:
    result = niwaki.prune(Settled(early=True).eval(), torch.randn(2, 5), 0.5, measure=False)
    assert len(result.plan["first"].units) == 6


class Picks(nn.Module):
    count: int
    layers: nn.ModuleList
    many: nn.Linear
    headed: bool
    heads: nn.ModuleDict

    def forward(self, x: Tensor, task: str) -> Any:
        for i in range(self.count):
            x = self.layers[i](x)
        if x.shape[0] > 3:
            x = self.many(x)
        return self.heads[task](x) if self.headed else x


def test_mentions_are_read_from_the_source() -> None:
    named = mentions(Picks)
    assert {"layers", "many", "count"} <= {mention.name for mention in named}
    assert Mention("layers", picked=True) not in named
    assert not any(mention.name == "heads" for mention in named)
    assert Mention("heads", picked=True) in mentions(Tasks)
    assert mentions(nn.Linear) == frozenset()


class ByMean(nn.Module):
    """Two readings of one tensor, as a value that no tried input has says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Linear(5, 12), nn.Linear(6, 3)

    def far(self, x: Tensor) -> bool:
        if self.how == "float":
            return float(x.mean()) > 1e3
        if self.how == "item":
            return bool(x.abs().sum().item() > 1e9)
        return bool((x > 1e6).any())

    def forward(self, x: Tensor) -> Tensor:
        near, far = torch.relu(self.first(x)).chunk(2, -1)
        out: Tensor = self.last(far if self.far(x) else near)
        return out


@pytest.mark.parametrize("how", ["float", "item", "any"])
def test_a_path_by_value_is_reached_by_another_answer(how: str) -> None:
    torch.manual_seed(0)
    model = ByMean(how).eval()
    x = torch.randn(3, 5)
    result = niwaki.prune(model, x, 0.3, measure=False, compensation="none")
    for factor in (1.0, 1e7):
        inputs = x.abs() * factor
        masked = oracle.masked(result.cut.graph, result.plan, {})
        assert torch.allclose(result.model(inputs), masked(inputs), rtol=1e-4)


def test_an_answer_is_changed_at_its_line_alone() -> None:
    model = ByMean("any").eval()
    x = torch.randn(2, 5)
    line = next(iter(niwaki.trace(model, x, probes=False).inference.tape.answers))
    plainly = model(x)
    with Steered({line: "not"}):
        turned_round = model(x)
    assert not torch.equal(plainly, turned_round)
    assert torch.equal(turned_round, model.last(torch.relu(model.first(x))[:, 6:]))
    with Steered({"elsewhere.py:1": "not"}):
        assert torch.equal(plainly, model(x))
    assert (turned(True, "not"), turned(0.5, "high"), turned(0.5, "low")) == (False, 1e4, -1e4)
