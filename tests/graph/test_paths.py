"""Other paths than the example's: code that runs only in training, for other values, for other
lengths, and experts that no token reached.
"""

from __future__ import annotations

import copy

import oracle
import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import NiwakiError


class Side(nn.Module):
    """A head that runs in training alone, in three forms."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.low, self.high = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 10)
        self.side = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10))
        self.convolution = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = torch.relu(self.low(x))
        y: Tensor = self.head(torch.relu(self.high(x)).mean((2, 3)))
        if not self.training:
            return y
        pooled = x.mean((2, 3))
        if self.how == "layers":
            return y, self.side(pooled)
        if self.how == "convolution":
            return y, self.convolution(x).mean((2, 3))
        return y, nn.functional.linear(pooled, within.tensor(self, "side.0.weight"))


@pytest.mark.parametrize("compensation", ["none", "merge", "moments"])
@pytest.mark.parametrize("how", ["layers", "convolution", "weight"])
def test_a_head_that_runs_in_training_alone_is_cut_along(how: str, compensation: str) -> None:
    model, x = Side(how), torch.randn(4, 3, 8, 8)

    result = niwaki.prune(model, x, compensation=compensation)

    assert len(result.plan["low"].units) == 8
    y, side = result.model.train()(x)
    (y.sum() + side.sum()).backward()
    if compensation == "none":
        masked = copy.deepcopy(model).train()
        dropped = [unit for unit in range(16) if unit not in result.plan["low"].units]
        with torch.no_grad():
            (
                within.tensor(masked, "low.weight")[dropped],
                within.tensor(masked, "low.bias")[dropped],
            ) = 0, 0
            masked.high.weight[[u for u in range(12) if u not in result.plan["high"].units]] = 0
            within.tensor(masked, "high.bias")[
                [u for u in range(12) if u not in result.plan["high"].units]
            ] = 0
        torch.testing.assert_close(side, masked(x)[1], rtol=1e-4, atol=1e-5)
    assert any("training mode, another path" in note for note in result.record.notes)


class Path(nn.Module):
    """Channel 3 has a part of its own on another path."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b, self.c = (
            how,
            nn.Linear(8, 32),
            nn.Linear(32, 16),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        other = {
            "value": lambda: bool(x.sum() < 0),
            "length": lambda: x.shape[0] > 4,
            "training": lambda: self.training,
        }[self.how]()
        h = h - h[:, 3:4] if other else h
        out: Tensor = self.c(torch.relu(self.b(h)))
        return out


@pytest.mark.parametrize("how", ["value", "length", "training"])
def test_channels_that_only_another_path_picks_stay_or_are_picked_right(how: str) -> None:
    torch.manual_seed(0)
    model, x = Path(how).eval(), 1 + torch.rand(2, 8)
    result = niwaki.prune(model, x, compensation="none")
    other = -torch.rand(6, 8)
    masked = copy.deepcopy(model).train(how == "training")
    kept = result.cut.graph.kept_indices(result.plan.kept)
    with torch.no_grad():
        for name, layer in (("b.weight", masked.b), ("c.weight", masked.c)):
            columns = kept.get(name, {}).get(1, torch.arange(layer.in_features))
            gone = [unit for unit in range(layer.in_features) if unit not in columns.tolist()]
            layer.weight[:, gone] = 0
        got = result.model.train(how == "training")(other)
        torch.testing.assert_close(got, masked(other), rtol=1e-4, atol=1e-5)
    assert len(kept["c.weight"][1]) == 8  # what the other path has no part in goes all the same


class Experts(nn.Module):
    def __init__(self, count: int, gap: float) -> None:
        super().__init__()
        self.route, self.first = nn.Linear(8, count), nn.Linear(8, 16)
        self.last, self.tail = nn.Linear(16, 12), nn.Linear(12, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(count)
        )
        with torch.no_grad():
            self.route.bias[-1] -= gap

    def forward(self, x: Tensor) -> Tensor:
        h, which = self.first(x), self.route(x).argmax(-1)
        more = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows = (which == number).nonzero().flatten()
            if len(rows):
                more = more.index_add(0, rows, expert(h[rows]))
        out: Tensor = self.tail(torch.relu(self.last(h + more)))
        return out


@pytest.mark.parametrize(("count", "gap"), [(2, 0.0), (8, 0.0), (4, 1e6)])
def test_experts_that_the_example_does_not_reach_run_afterwards(count: int, gap: float) -> None:
    torch.manual_seed(0)
    model = Experts(count, gap).eval()
    small = niwaki.prune(model, torch.randn(3, 8), compensation="none").model
    assert niwaki.count_params(small) < niwaki.count_params(model)
    with torch.no_grad():
        within.tensor(small, "route.bias")[-1] += 2 * gap  # now the last one is reached
        assert small(torch.randn(200, 8)).shape == (200, 4)


def test_inputs_of_the_users_own_are_tried() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.a(x))
            out: Tensor = self.b(h - h[..., 5:6] if x.shape[1] == 77 else h)
            return out

    torch.manual_seed(0)
    model, x = Long().eval(), torch.randn(2, 6, 4)
    blind = niwaki.prune(model, x, compensation="none")
    assert len(blind.plan["a"].units) == 8
    with pytest.raises(NiwakiError, match="on inputs given as probe 1"):
        niwaki.prune(model, x, compensation="none", probes=[torch.randn(2, 77, 4)])
    off = niwaki.prune(model, x, compensation="none", probes=False)
    assert any("no other inputs were tried" in note for note in off.record.notes)


def test_a_model_of_one_size_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    result = niwaki.prune(model, torch.randn(2, 3, 4), compensation="none")
    assert any("only inputs of the example's sizes" in note for note in result.record.notes)
    free = nn.Sequential(nn.Conv1d(3, 16, 3), nn.ReLU(), nn.Conv1d(16, 3, 1)).eval()
    result = niwaki.prune(free, torch.randn(2, 3, 12), compensation="none")
    assert any("15 in the place of 12" in note for note in result.record.notes)


class Halting(nn.Module):
    """How far it goes hangs on hidden values, so that a masked network may stop elsewhere; in
    training too.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.halt, self.last = nn.Linear(6, 20), nn.Linear(20, 1), nn.Linear(20, 3)
        self.step = nn.GRUCell(20, 20) if how == "recurrent" else nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        out, sure = torch.zeros_like(h), torch.zeros(len(x), 1)
        for _ in range(6):
            h = self.step(h, h) if self.how == "recurrent" else torch.tanh(self.step(h))
            halt = torch.sigmoid(self.halt(h))
            if self.how == "mean" and halt.mean().item() > 0.5:
                break
            out, sure = out + halt * h, sure + halt
            if bool((sure > 0.9).all()):
                break
        return self.last(out + h)  # type: ignore[no-any-return]


@pytest.mark.parametrize("compensation", ["none", "moments"])
@pytest.mark.parametrize("how", ["recurrent", "all", "mean"])
def test_loops_that_halt_by_value_are_proved_in_training_too(how: str, compensation: str) -> None:
    torch.manual_seed(1)
    model, x = Halting(how).eval(), 3 * torch.randn(4, 6)
    result = niwaki.prune(model, x, 0.5, compensation=compensation)
    assert not result.left_whole
    assert any("training mode" in note for note in result.record.notes)
    masked = oracle.masked(result.cut.graph, result.plan, result.cut.mixings)
    for seed in range(3):
        other = 3 * torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        for training in (False, True):
            wanted, got = masked.train(training)(other), result.model.train(training)(other)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
