"""What no recorded operator reads is never cut, and is said."""

from __future__ import annotations

import pytest
import torch
import within
from proving import proved
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import BudgetError
from niwaki.graph import Freeze


class Positions(nn.Module):
    """A stream with learned positions, of which the example reads some."""

    def __init__(self, most: int = 20, width: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.place = nn.Parameter(torch.randn(most, width))

    def table(self, steps: int) -> Tensor:
        return self.place[:steps]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.gelu(self.first(x) + self.table(x.shape[1])))
        return out


class FromTheEnd(Positions):
    def table(self, steps: int) -> Tensor:
        return self.place[-steps:]


class Middle(Positions):
    def table(self, steps: int) -> Tensor:
        return self.place.narrow(0, 3, steps)


class FirstPart(Positions):
    def table(self, steps: int) -> Tensor:
        out: Tensor = self.place.split([steps, 20 - steps])[0]
        return out


class Grid(Positions):
    """Rows and columns of a map, of which the example has fewer."""

    def table(self, steps: int) -> Tensor:
        return self.place.view(4, 5, -1)[: steps // 3, :3].flatten(0, 1)


class ByIndex(Positions):
    def table(self, steps: int) -> Tensor:
        return self.place[torch.arange(steps) + 2]


class ByLookUp(Positions):
    def table(self, steps: int) -> Tensor:
        return F.embedding(torch.arange(steps), self.place)


class ByGather(Positions):
    def table(self, steps: int) -> Tensor:
        return self.place.gather(0, torch.arange(steps)[:, None].expand(-1, self.place.shape[1]))


class Stored(Positions):
    """Positions and the scale of every one, in a buffer."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(20, 1) + 0.5)

    def table(self, steps: int) -> Tensor:
        return self.place[:steps] * self.scale[:steps]


KINDS = [Positions, FromTheEnd, Middle, FirstPart, Grid, ByIndex, ByLookUp, ByGather, Stored]


@pytest.mark.parametrize("kind", KINDS)
def test_positions_beyond_the_example_stay_and_the_stream_is_cut(kind: type[Positions]) -> None:
    torch.manual_seed(0)
    small = proved(kind(), torch.randn(2, 6, 5)).model
    assert small.place.shape == (20, 6)


def test_a_shorter_example_prunes_to_a_network_that_takes_longer_inputs() -> None:
    torch.manual_seed(0)
    model, longer = Positions().eval(), torch.randn(2, 17, 5)
    short = niwaki.prune(model, torch.randn(2, 6, 5), compensation="none")
    long = niwaki.prune(model, longer, compensation="none")
    assert torch.allclose(short.model(longer), long.model(longer), atol=1e-6)


class Biased(nn.Module):
    """Attention with a learned number for every head and pair of places."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 16) for _ in range(3))
        self.last, self.table = nn.Linear(16, 4), nn.Parameter(torch.randn(4, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        q, k, v = (f(x).view(n, steps, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        near = (q @ k.transpose(-1, -2) * 0.5 + self.table[:, :steps, :steps]).softmax(-1)
        out: Tensor = self.last((near @ v).transpose(1, 2).reshape(n, steps, -1))
        return out


def test_pairs_of_places_beyond_the_example_stay_and_heads_go() -> None:
    torch.manual_seed(0)
    small = proved(Biased(), torch.randn(2, 6, 8)).model
    assert small.table.shape == (2, 9, 9)


class Aside(nn.Module):
    """A head whose result is dropped, as training alone uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aside, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        self.aside(x).relu()
        out: Tensor = self.head(x)
        return out


def test_units_without_a_reader_stay_and_the_reason_is_data() -> None:
    torch.manual_seed(0)
    graph = niwaki.trace(Aside().eval(), torch.randn(3, 4))
    assert [group.name for group in graph.groups] == ["body"]
    (reason,) = (item.reason for item in graph.frozen if item.layer == "aside")
    assert reason.kind is Freeze.UNREAD
    assert "no operator reads it on the example inputs" in str(graph)
    small = proved(Aside(), torch.randn(3, 4)).model
    assert within.tensor(small, "aside.weight").shape == (6, 4)


class Stages(nn.Module):
    """Layers of which the forward calls some."""

    def __init__(self, called: int) -> None:
        super().__init__()
        self.called = called
        self.stages = nn.ModuleList(nn.Linear(n, 2 * n) for n in (4, 8, 16, 32))
        self.head = nn.Linear(4 * 2**called, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages[: self.called]:
            x = torch.relu(stage(x))
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize("called", [1, 2, 3])
def test_parameters_that_are_never_read_are_listed_once(called: int) -> None:
    model, x = Stages(called).eval(), torch.randn(2, 4)
    graph = niwaki.trace(model, x)
    names = [f"stages.{i}.{kind}" for i in range(called, 4) for kind in ("weight", "bias")]
    assert list(graph.unread.names) == names
    assert graph.unread.entries == sum(model.state_dict()[name].numel() for name in names)
    assert str(graph).count("are never read") == 1
    notes = proved(model, x).record.notes
    assert [str(graph.unread)] == [note for note in notes if "are never read" in note]


def test_a_budget_in_parameters_that_cannot_be_met_names_the_unread_share() -> None:
    model, x = Stages(2).eval(), torch.randn(2, 4)
    for unit in ("params", "bytes"):
        with pytest.raises(BudgetError, match=r"92%\) are never read.*stages\.2\.weight"):
            niwaki.prune(model, x, budget=f"{unit}=0.5", compensation="none")
    with pytest.raises(BudgetError, match=r"can go$"):
        niwaki.prune(model, x, budget="macs=0.99", compensation="none")


def test_nothing_is_said_where_all_is_read() -> None:
    graph = niwaki.trace(Stages(4).eval(), torch.randn(2, 4))
    assert not graph.unread
    assert "never read" not in str(graph)
