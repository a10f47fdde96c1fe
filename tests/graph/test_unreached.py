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
    result = niwaki.prune(model, torch.randn(2, 4, 5), "params=0.1")
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
    result = niwaki.prune(model, torch.randn(2, 5), 0.5)
    assert result.plan["body.0"].units != tuple(range(16))
    assert result.model(torch.randn(2, 5), "b").shape == (2, 7)
    masked = oracle.masked(result.cut.graph, result.plan, result.cut.mixings)
    x = torch.randn(4, 5)
    for task in "ab":
        assert torch.allclose(masked(x, task), result.model(x, task), atol=1e-5)


class ByName(nn.Module):
    """The head of a task is found by its name, in several ways; the heads are of two widths."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.body = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU())
        self.head_a, self.head_b = nn.Linear(16, 3), nn.Linear(16, 7)

    def forward(self, x: Tensor, task: str = "a") -> Tensor:
        h = self.body(x)
        if self.how == "getattr":
            return getattr(self, f"head_{task}")(h)  # type: ignore[no-any-return]
        if self.how == "submodule":
            return self.get_submodule("head_" + task)(h)  # type: ignore[no-any-return]
        if self.how == "modules":
            return self._modules["head_" + task](h)  # type: ignore[misc, no-any-return]
        return getattr(self, task if task.startswith("head") else "head_" + task)(h)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["getattr", "submodule", "modules", "any"])
def test_heads_that_are_found_by_name_still_fit(how: str) -> None:
    torch.manual_seed(0)
    result = niwaki.prune(ByName(how).eval(), torch.randn(2, 5), 0.5)
    assert len(result.plan["body.0"].units) == 10
    masked = oracle.masked(result.cut.graph, result.plan, result.cut.mixings)
    x = torch.randn(4, 5)
    for task in "ab":
        assert torch.allclose(masked(x, task), result.model(x, task), atol=1e-5)


class Held(nn.Module):
    """Layers of which a caller says how many run, held in several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        layers = [nn.Linear(16, 16) for _ in range(3)]
        self.layers = nn.Sequential(*layers) if how == "sequential" else nn.ModuleList(layers)
        self.inner = nn.Module()
        if how == "inner":
            self.inner.layers, self.layers = self.layers, nn.ModuleList()

    def forward(self, x: Tensor, depth: int = 1) -> Tensor:
        h = torch.relu(self.first(x))
        if self.how == "sequential":
            h = self.layers[depth - 1](h)
        elif self.how == "inner":
            h = self.inner.layers[depth - 1](h)  # type: ignore[index, operator]
        elif self.how == "counted":
            for place in range(depth):
                h = self.layers[place](h)
        elif self.how == "another name":
            layers = self.layers
            h = layers[depth - 1](h)
        else:
            for place, layer in enumerate(self.layers):
                if place >= depth:
                    break
                h = layer(h)
        return self.last(torch.relu(h))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["sequential", "inner", "counted", "another name", "break"])
def test_layers_that_only_other_arguments_reach_still_fit(how: str) -> None:
    torch.manual_seed(0)
    model = Held(how).eval()
    graph = niwaki.trace(model, torch.randn(2, 5))
    reasons = {frozen.reason.kind for frozen in graph.frozen}
    assert reasons & {Freeze.UNREACHED, Freeze.TWIN}
    assert not graph.groups


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
    result = niwaki.prune(Settled(early=True).eval(), torch.randn(2, 5), 0.5)
    assert len(result.plan["first"].units) == 6


class Picks(nn.Module):
    count: int
    layers: nn.ModuleList
    chain: nn.ModuleList
    counted: nn.ModuleList
    many: nn.Linear
    heads: nn.ModuleDict

    def __init__(self, headed: bool) -> None:
        super().__init__()
        self.headed = headed

    def forward(self, x: Tensor, task: str) -> Any:
        for i in range(self.count):
            x = self.layers[i](x)
        for layer in self.chain:
            x = layer(x)
        for place in range(len(x)):
            x = self.counted[place](x)
        if x.shape[0] > 3:
            x = self.many(x)
        return self.heads[task](x) if self.headed else x


def test_mentions_are_read_from_the_source() -> None:
    named = mentions(Picks(False))
    assert {"layers", "many", "count"} <= {mention.name for mention in named}
    assert Mention("layers", picked=True) not in named
    assert Mention("chain", picked=True) not in named
    assert Mention("counted", picked=True) in named
    assert not any(mention.name == "heads" for mention in named)
    assert Mention("heads", picked=True) in mentions(Picks(True))
    assert Mention("heads", picked=True) in mentions(Tasks())
    assert Mention("head_*") in mentions(ByName("getattr"))
    assert Mention("head_*") not in mentions(ByName("other"))
    assert mentions(nn.Linear(2, 3)) == frozenset()


class Choosing(nn.Module):
    """Its settings choose between sides, of which one has another way by value or in training."""

    heads: nn.ModuleList
    other: nn.Linear
    aside: nn.Linear
    tail: nn.Linear
    plain: nn.Linear

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.extra = how, None if how == "none" else 2

    def forward(self, x: Tensor, k: int) -> Tensor:
        if self.how in ("picked", "both") and self.extra is not None:
            x = self.heads[k](x)
        elif self.how != "none":
            x = self.other(x)
        if self.training:
            x = self.aside(x)
        return self.tail(x) if isinstance(self.extra, int) else self.plain(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "there", "absent"),
    [
        ("picked", {"heads", "tail", "aside"}, {"other", "plain"}),
        ("else", {"other", "tail", "aside"}, {"heads", "plain"}),
        ("none", {"plain", "aside"}, {"heads", "other", "tail"}),
    ],
)
def test_of_a_test_of_settings_the_chosen_side_counts(
    how: str, there: set[str], absent: set[str]
) -> None:
    names = {mention.name for mention in mentions(Choosing(how))}
    assert there <= names
    assert not absent & names


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
    result = niwaki.prune(model, x, 0.3, compensation="none")
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


class Near(Far):
    """The same with a limit that tried inputs pass."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = self.near(h) if x.shape[1] < 6 else self.far(h)
        return self.last(torch.relu(h))  # type: ignore[no-any-return]  # torch types it so


class InTraining(Far):
    """The same in training."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = self.far(h) if self.training else self.near(h)
        return self.last(torch.relu(h))  # type: ignore[no-any-return]  # torch types it so


class Sometimes(Far):
    """The same by a value."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = self.far(h) if bool(x.abs().amax() > 1e5) else self.near(h)
        return self.last(torch.relu(h))  # type: ignore[no-any-return]  # torch types it so


@pytest.mark.parametrize("kind", [Near, InTraining, Sometimes])
def test_what_only_the_examples_path_runs_is_cut_although_another_path_does_not_read_it(
    kind: type[nn.Module],
) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(2, 4, 5)
    result = niwaki.prune(model, x, 0.5, compensation="none")
    assert {name: len(units) for name, units in result.plan.kept.items()} == {
        "first": 6,
        "near.0": 10,
        "near.2": 6,
    }
    masked = oracle.masked(result.cut.graph, result.plan, {})
    for other in (x, torch.randn(3, 9, 5), 1e6 * x):
        assert torch.allclose(result.model(other), masked(other), rtol=1e-4, atol=1e-5)
    result.model.train()(x).sum().backward()


def test_a_graph_can_be_gone_through_group_by_group() -> None:
    graph = niwaki.trace(Far().eval(), torch.randn(2, 4, 5))
    assert list(graph) == list(graph.groups)
