"""A layer that is called many times is fitted to all its calls: written as a loop, as two branches
or as one batch, a function is repaired alike.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.lockstep import lockstep
from niwaki.methods.base.recovery import recover
from niwaki.running import play

FRAMES = 4


class Frames(nn.Module):
    """The same small network on each of some frames, one by one or all at once."""

    def __init__(self, inner: nn.Module, loop: bool) -> None:
        super().__init__()
        self.inner, self.loop = inner, loop

    def forward(self, x: Tensor) -> Tensor:
        if self.loop:
            return torch.stack([self.inner(x[:, i]) for i in range(x.shape[1])], 1)
        out: Tensor = self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return out


class Siamese(nn.Module):
    """Two branches that share all layers, one after the other or as one batch."""

    def __init__(self, inner: nn.Module, loop: bool) -> None:
        super().__init__()
        self.inner, self.loop = inner, loop

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[:, 0], x[:, 1]
        if self.loop:
            y: Tensor = self.inner(left) - self.inner(right)
            return y
        both = self.inner(torch.cat([left, right]))
        out: Tensor = both[: len(left)] - both[len(left) :]
        return out


def dense() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def images() -> nn.Sequential:
    layers = (nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    more = (nn.Conv2d(8, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3))
    return nn.Sequential(*layers, *more)


CASES = {
    "frames of numbers": (Frames, dense, (FRAMES, 6)),
    "frames of images": (Frames, images, (FRAMES, 2, 6, 6)),
    "two branches": (Siamese, dense, (2, 6)),
}


def inputs(shape: tuple[int, ...], seed: int, count: int = 40) -> Tensor:
    x = torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    x[:, 0] *= 0.01  # the first call sees next to nothing
    return x


def both(case: str) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    wrapper, make, shape = CASES[case]
    torch.manual_seed(0)
    inner = make().double().eval()
    return wrapper(inner, True).eval(), wrapper(inner, False).eval(), shape


def named(mixings: Any) -> dict[str, Tensor]:
    return {name: mixing.matrix for name, mixing in mixings.items()}


def plan_of(graph: niwaki.Graph) -> niwaki.Plan:
    return niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5).plan


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "method",
    ["moments", "reconstruct:places=10000", "reconstruct:order=parallel,places=10000"],
)
def test_a_loop_and_a_batch_are_repaired_alike(case: str, method: str) -> None:
    loop, batch, shape = both(case)
    calibration = niwaki.Calibration.of([inputs(shape, 1), inputs(shape, 2)])
    outputs = []
    for model in (loop, batch):
        graph = niwaki.trace(model, inputs(shape, 3, 2))
        plan = plan_of(graph)
        seen = None if method == "moments" else calibration
        fitted = niwaki.compensate(niwaki.Cut(graph, plan), method, calibration=seen)
        outputs.append(niwaki.shrink(niwaki.Cut(graph, plan, fitted.mixings))(inputs(shape, 4)))
    # the ridge hangs on how many rows there are, which a loop and a batch count differently
    torch.testing.assert_close(outputs[0], outputs[1], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("case", CASES)
def test_a_loop_and_a_batch_are_fitted_anew_alike(case: str) -> None:
    loop, batch, shape = both(case)
    calibration = niwaki.Calibration.of([inputs(shape, 1), inputs(shape, 2)])
    outputs = []
    for model in (loop, batch):
        graph = niwaki.trace(model, inputs(shape, 3, 2))
        plan = plan_of(graph)
        pruned = niwaki.shrink(niwaki.Cut(graph, plan, {}))
        said = recover(Cut(graph, plan), pruned, "refit:places=10000", calibration=calibration)
        assert "3 layers fitted" in said
        outputs.append(pruned(inputs(shape, 4)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_operators_in_lockstep_compute_the_same(case: str) -> None:
    model, _, shape = both(case)
    x = inputs(shape, 3, 2)
    graph = niwaki.trace(model, x)
    tape = graph.inference.tape
    calls: dict[str, list[int]] = {}
    for position, op in enumerate(tape.ops):
        for ref in op.tensors:
            if tape.parameters.get(ref, "").endswith("weight"):
                calls.setdefault(tape.parameters[ref], []).append(position)
    order = lockstep(tape, calls)
    assert sorted(order.order) == list(range(len(tape.ops)))
    assert not order.apart
    for here in calls.values():
        places = sorted(order.place[position] for position in here)
        assert places == list(range(places[0], places[0] + len(here)))
    (found,) = play(
        order.tape(tape), graph.state, x, order.step(lambda _, op, a, k: op.func(*a, **k))
    )
    torch.testing.assert_close(found, model(x))


class Recurrent(nn.Module):
    """What is computed at one step is read at the next."""

    def __init__(self) -> None:
        super().__init__()
        self.write, self.read, self.out = nn.Linear(6, 16), nn.Linear(16, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(self.read(torch.relu(self.write(state + x[:, step]))))
        out: Tensor = self.out(state)
        return out


def test_calls_that_need_each_other_are_fitted_to_the_originals_units_over_all_calls() -> None:
    torch.manual_seed(0)
    model = Recurrent().double().eval()
    data = inputs((FRAMES, 6), 1, 200)
    graph = niwaki.trace(model, data[:2])
    plan = niwaki.Plan({"write": plan_of(graph)["write"]})
    seen = niwaki.Calibration.of([data])
    found = niwaki.compensate(niwaki.Cut(graph, plan), "reconstruct", calibration=seen)
    wanted = niwaki.compensate(
        niwaki.Cut(graph, plan), "reconstruct:order=parallel", calibration=seen
    )
    torch.testing.assert_close(found.mixings["write"].matrix, wanted.mixings["write"].matrix)
    test = inputs((FRAMES, 6), 2, 200)
    plain, repaired = (niwaki.shrink(niwaki.Cut(graph, plan, m))(test) for m in ({}, found.mixings))
    assert (repaired - model(test)).norm() < (plain - model(test)).norm()
