"""That a method leaves what it was given as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within it a model's weights, buffers, modes, gradients and torch's chance must not change.

    Raises:
        AssertionError: which of them did.
    """
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    gradients = [parameter.grad is None for parameter in model.parameters()]
    chance = torch.get_rng_state()
    yield
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), f"it changed the model's {name}"
    assert [module.training for module in model.modules()] == modes, (
        "it left the model in another mode (train, eval)"
    )
    assert [parameter.grad is None for parameter in model.parameters()] == gradients, (
        "it left gradients in the model"
    )
    assert torch.equal(torch.get_rng_state(), chance), (
        "it drew from torch's own random numbers; draw from evidence.generator"
    )
