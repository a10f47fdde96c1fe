"""What a network needs that is pruned while others hold it: a trainer, an optimiser, a scaler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from niwaki.core.errors import SettingError
from niwaki.methods.base.penalty import PENALTIES
from niwaki.methods.greg import GReg
from niwaki.pruning.result import Result
from niwaki.running import Inputs


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimiser in what accelerate or Lightning put around it."""
    while not isinstance(optimizer, Optimizer) or type(optimizer).__name__.endswith(
        ("AcceleratedOptimizer", "LightningOptimizer")
    ):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None:
            raise SettingError(f"optimizer= takes an optimiser; got a {type(optimizer).__name__}")
        optimizer = inner
    return optimizer


def greg_of(press: GReg | str | None, optimizer: Optimizer | None) -> GReg | None:
    """The pressing that is asked for.

    Raises:
        SettingError: it is no GReg, or there is no optimiser.
    """
    if press is None:
        return None
    method = PENALTIES.build(press) if isinstance(press, str) else press
    if not isinstance(method, GReg):
        raise SettingError(f"press= takes 'greg' (niwaki.GReg), with its settings; got {press!r}")
    if optimizer is None:
        raise SettingError("press= needs optimizer=, whose learning rate scales the decay")
    return method


@contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Without the forward that accelerate put before the model's own, which a copy would share."""
    names = ("forward", "_original_forward") if "_original_forward" in vars(model) else ()
    put_before = {name: vars(model).pop(name) for name in names if name in vars(model)}
    try:
        yield
    finally:
        vars(model).update(put_before)


def share_left(result: Result) -> float:
    """The share of the units that took part that a cut left."""
    units = result.plan.values()
    return sum(len(kept.units) for kept in units) / sum(kept.width for kept in units)


def beside(model: nn.Module, inputs: Inputs) -> Inputs:
    """Inputs on the model's device."""
    first = next(iter(model.parameters()), None)
    if first is None:
        return inputs
    moved: Inputs = tree_map(
        lambda leaf: leaf.to(first.device) if isinstance(leaf, Tensor) else leaf, inputs
    )
    return moved
