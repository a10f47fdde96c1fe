"""A run leaves the model, the process and chance as it found them, also in threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.core.errors import TraceError

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Writes(nn.Module):
    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.a, self.b, self.write = nn.Linear(8, 16), nn.Linear(16, 3), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.write(self.a.weight)
        out: torch.Tensor = self.b(torch.relu(self.a(x)))
        return out


@pytest.mark.parametrize(
    "write",
    [
        lambda weight: weight.mul_(0.5),
        lambda weight: weight.data.add_(1),
        lambda weight: weight[0].zero_(),
        lambda weight: torch.add(weight, 1, out=weight),
        lambda weight: weight.t().copy_(torch.ones(8, 16)),
    ],
    ids=["in place", "data", "a view", "out", "transposed"],
)
def test_a_parameter_that_forward_writes_is_restored_and_named(
    write: Callable[[torch.Tensor], object],
) -> None:
    model = Writes(write).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TraceError, match=r"writes into its parameter a\.weight.*buffer"):
        niwaki.prune(model, torch.randn(2, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_write_of_the_same_values_is_no_obstacle() -> None:
    model = Writes(lambda weight: weight.clamp_(-10, 10)).eval()
    assert (
        within.size(
            niwaki.prune(model, torch.randn(2, 8), compensation="none").model, "a.out_features"
        )
        == 8
    )


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 1 + 0 * random.random() + 0 * float(np.random.rand())  # legacy state
        out: torch.Tensor = self.b(torch.relu(self.a(x))) * scale + 0 * torch.rand(1)
        return out


def test_all_chance_is_as_before() -> None:
    def drawn() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    wanted = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    model, x = Noisy.__new__(Noisy), torch.zeros(2, 8)
    with torch.random.fork_rng():
        Noisy.__init__(model)
    niwaki.prune(model.eval(), x, compensation="none")
    assert drawn() == wanted


def network(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)]
    model = nn.Sequential(*layers).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("criterion", ["l1", "random", "reconstruct"])
def test_prunings_in_threads_equal_prunings_in_turn(criterion: str) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    results: dict[int, nn.Module] = {}

    def work(seed: int) -> None:
        results[seed] = niwaki.prune(
            network(seed), x, criterion=criterion, compensation="none"
        ).model

    def switches() -> tuple[object, ...]:
        backends = torch.backends
        return (
            backends.mha.get_fastpath_enabled(),
            backends.mkldnn.enabled,
            torch.get_num_threads(),
        )

    before = switches()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert switches() == before
    overlapped = dict(results)
    for seed in range(4):
        work(seed)
        for one, other in zip(
            overlapped[seed].parameters(), results[seed].parameters(), strict=True
        ):
            assert torch.equal(one, other)
