"""An optimiser handed along trains the pruned network on, with what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import niwaki

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "nadam": lambda p: torch.optim.NAdam(p),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 3, 6, 6, generator=generator), torch.arange(16) % 4


def step(model: nn.Module, optimizer: Optimizer) -> float:
    x, y = batch()
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_with_every_parameter_and_its_state(
    name: str, quick_latency: None
) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):
        step(model, optimizer)
    before = {n: dict(optimizer.state[p]) for n, p in model.named_parameters()}
    result = niwaki.prune(model, batch()[0], budget=0.5, compensation="none")
    result.hand_over(optimizer)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert [id(p) for p in held] == [id(p) for p in result.model.parameters()]
    assert set(optimizer.state) == set(held)
    kept = {axis: torch.as_tensor(result.plan[axis].units) for axis in ("0", "3")}
    for key, value in before["3.weight"].items():
        now = optimizer.state[dict(result.model.named_parameters())["3.weight"]][key]
        if isinstance(value, Tensor) and value.ndim == 4:
            value = value.index_select(0, kept["3"]) if value.shape[0] > 1 else value
            value = value.index_select(1, kept["0"]) if value.shape[1] > 1 else value
        assert torch.equal(torch.as_tensor(now), torch.as_tensor(value)), key
    losses = [step(result.model.train(), optimizer) for _ in range(15)]
    assert losses[-1] < losses[0]


def test_momenta_are_what_training_with_masks_would_have() -> None:
    """One step of the pruned network equals one of the masked original, for the weights that are
    left.
    """
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(16, 5, dtype=torch.float64), torch.arange(16) % 4

    def train(network: Callable[[Tensor], Tensor], optimizer: Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    train(model, optimizer)
    train(model, optimizer)
    masked = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    masked.load_state_dict(model.state_dict())
    twin = torch.optim.SGD(masked.parameters(), lr=0.1, momentum=0.9)
    twin.load_state_dict(optimizer.state_dict())
    result = niwaki.prune(model, x, budget=0.5, compensation="none")
    result.hand_over(optimizer)
    units = torch.as_tensor(result.plan["0"].units)
    mask = torch.zeros(8, dtype=torch.float64).index_fill(0, units, 1)
    train(result.model, optimizer)
    train(lambda inputs: masked[2](torch.relu(masked[0](inputs)) * mask), twin)
    first: Any = masked[0]
    torch.testing.assert_close(
        result.model.get_parameter("0.weight"), first.weight[units], rtol=1e-12, atol=1e-12
    )


def test_schedulers_groups_and_strangers_stay(quick_latency: None) -> None:
    model, stranger = network(), nn.Parameter(torch.ones(3))
    convolutions = [p for n, p in model.named_parameters() if n[0] in "03"]
    rest = [p for n, p in model.named_parameters() if n[0] not in "03"]
    groups: list[dict[str, Any]] = [
        {"params": convolutions, "lr": 0.3},
        {"params": [*rest, stranger]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    result = niwaki.prune(model, batch()[0], budget=0.5)
    result.hand_over(optimizer)
    step(result.model.train(), optimizer)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.15, 0.05]
    assert optimizer.param_groups[1]["params"][-1] is stranger


def test_state_of_another_form_is_dropped_and_said(quick_latency: None) -> None:
    model = network().double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    x, y = batch()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.double()), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    result = niwaki.prune(model, x.double(), budget=0.5)
    remarks = result.hand_over(optimizer)
    assert "what LBFGS remembers of 0.weight cannot be cut; it starts afresh" in remarks


def test_a_failed_pruning_leaves_the_optimizer_alone() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    held = list(optimizer.param_groups[0]["params"])
    with pytest.raises(niwaki.NiwakiError):
        niwaki.prune(model, batch()[0], budget=0.5, skip="*", optimizer=optimizer)
    assert all(a is b for a, b in zip(held, optimizer.param_groups[0]["params"], strict=True))
