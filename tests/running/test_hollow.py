"""A run without its numbers sees the path of a real one, and ends where it would need them."""

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SurgeryError, TraceError
from niwaki.running import Op, record, run
from niwaki.running.hollow import HollowRun


class Net(nn.Module):
    """A bit of everything that lays out memory in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.table: dict[int, Tensor] = {}
        self.last = nn.Linear(8, 5)
        self.over = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu_()
        x = nn.functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        positions = self.table.setdefault(x.shape[1], torch.arange(x.shape[1]).float().cos())
        y: Tensor = self.over(self.last(x + positions[:, None])).softmax(1)
        return y


class Asking(nn.Module):
    """Looks at a number of what came of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if float(x.sum()) > 0 else x.tanh()


class Picking(nn.Module):
    """Reads places that values name."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x.argmax(1)]


def plainly(position: int, op: Op, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    return op.func(*args, **kwargs)


@pytest.mark.parametrize("size", [(2, 3, 8, 8), (3, 3, 12, 6)])
def test_shapes_and_layouts_are_those_of_a_real_run(size: tuple[int, ...]) -> None:
    model = Net().eval()
    tape = record(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(size)

    (hollow,) = run(model, tape, x, plainly, hollow=HollowRun())
    (real,) = run(model, tape, x, plainly)

    assert hollow.shape == real.shape
    assert hollow.stride() == real.stride()


def test_operators_of_training_are_seen() -> None:
    model, x = Net(), torch.randn(2, 3, 8, 8)

    hollow = record(model, x, training=True, hollow=HollowRun())
    real = record(model, x, training=True)

    assert [op.func for op in hollow.ops] == [op.func for op in real.ops]
    assert hollow.shapes == real.shapes


def test_a_table_that_hangs_on_sizes_alone_is_computed() -> None:
    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    tape = record(model, x)
    tables: list[Tensor] = []
    model.over.register_forward_hook(lambda *_: tables.extend(model.table.values()))

    run(model, tape, x, plainly, hollow=HollowRun())

    assert torch.equal(tables[0], torch.arange(16).float().cos())


@pytest.mark.parametrize("model", [Asking(), Picking()])
def test_it_ends_where_numbers_are_needed(model: nn.Module) -> None:
    x = torch.rand(3, 3)
    tape = record(model, x)

    with pytest.raises(TraceError):
        run(model, tape, x, plainly, hollow=HollowRun())


def test_sizes_that_do_not_fit_are_refused() -> None:
    model = Net().eval()
    tape = record(model, torch.randn(2, 3, 8, 8))

    with pytest.raises(TraceError):
        run(model, tape, torch.randn(2, 4, 8, 8), plainly, hollow=HollowRun())


class Switching(nn.Module):
    """Takes another way on large maps, and another in the name of a longer side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 4, 3, padding=1)
        self.other = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        y: Tensor = self.other(hidden) if min(x.shape[2:]) > 200 else self.last(hidden)
        return y


def test_a_path_of_large_inputs_alone_is_found_and_proved() -> None:
    result = niwaki.prune(Switching().eval(), torch.randn(1, 3, 200, 200), 0.5)

    smaller = result.model
    assert isinstance(smaller, Switching)
    assert smaller.other.in_channels == smaller.last.in_channels == 12
    x = torch.randn(1, 3, 240, 240)
    assert smaller(x).shape == (1, 4, 240, 240)
    assert any("another path" in words for words in result.proof.covers)


class Counting(nn.Module):
    """Its sizes hang on those of the example where the cut network is run on other ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        wrong = hidden.shape[1] < 48 and x.shape[2] != 200
        y: Tensor = self.last(hidden * 0.5 if wrong else hidden * 1.0)
        return y


def test_a_difference_on_other_sizes_alone_is_seen() -> None:
    graph = niwaki.trace(Counting().eval(), torch.randn(1, 3, 200, 200))
    assert graph.probes.small is not None
    cut = niwaki.select(niwaki.score(graph, "l2"), 0.5)

    with pytest.raises(SurgeryError, match="differs"):
        niwaki.check(cut, niwaki.shrink(cut))
