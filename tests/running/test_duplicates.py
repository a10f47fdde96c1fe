"""A quick copy of a module is what `copy.deepcopy` makes of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import within
import zoo
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from niwaki.running import duplicate
from niwaki.running.inputs import modules_of


def outline(value: Any, seen: dict[int, int] | None = None) -> Any:
    """Types, values and sharing of all that hangs on an object, as plain data."""
    seen = {} if seen is None else seen
    if isinstance(value, (type(None), bool, int, float, str, torch.dtype, type)):
        return value
    if id(value) in seen:
        return ("the same as", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        numbers = value.detach().clone()
        return (type(value), numbers.tolist(), value.stride(), value.requires_grad, value.dtype)
    if isinstance(value, dict):
        return (type(value), [(key, outline(item, seen)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), [outline(item, seen) for item in value])
    if isinstance(value, nn.Module):
        return (type(value), outline(vars(value), seen))
    return type(value)


def all_objects(module: nn.Module) -> set[int]:
    """Ids of modules, tables and tensors."""
    tables = [table for part in module.modules() for table in vars(part).values()]
    mutable = [table for table in tables if isinstance(table, (dict, list, set, Tensor))]
    tensors = (*module.parameters(), *module.buffers())
    return {id(one) for one in (*module.modules(), *mutable, *tensors)}


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_duplicate_is_a_deep_copy(name: str) -> None:
    model = zoo.build(name)
    twin = duplicate(model)
    assert outline(twin) == outline(copy.deepcopy(model))
    assert not all_objects(model) & all_objects(twin)


class Awkward(nn.Module):
    """Shared parts, hooks, a module in a list and in a tuple, a parametrised layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.normed = parametrizations.weight_norm(nn.Linear(3, 3))
        self.hidden = [self.first, nn.Linear(3, 3)]
        self.pair = (self.tied, {"buffer": torch.arange(3.0)})
        self.shared = self.pair[1]
        self.first.register_forward_hook(self.seen)
        self.calls = 0

    def seen(self, *_: Any) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.again(self.tied(self.normed(x)))
        return out


def test_what_was_shared_stays_shared_and_hooks_are_of_the_copy() -> None:
    model = Awkward()
    twin = duplicate(model)
    assert twin.first is twin.again is twin.hidden[0]
    assert twin.tied is twin.pair[0]
    assert twin.tied.weight is twin.first.weight
    assert twin.shared is twin.pair[1]
    twin(torch.ones(2, 3))
    assert (model.calls, twin.calls) == (0, 1)


def test_parameters_may_share_their_memory_and_nothing_else_does() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    twin = duplicate(model, share=True)
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    assert all(a is not b and a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert (
        within.tensor(model, "1.running_mean").data_ptr()
        != within.tensor(twin, "1.running_mean").data_ptr()
    )


class Own(nn.Linear):
    """Says itself how it is copied."""

    marked: bool

    def __deepcopy__(self, memory: dict[int, Any]) -> Own:
        twin = Own(self.in_features, self.out_features)
        twin.marked = True
        return twin


def test_a_copying_of_its_own_is_asked() -> None:
    twin = duplicate(nn.Sequential(Own(2, 2)))
    assert twin[0].marked


def test_what_cannot_be_copied_says_so() -> None:
    model = nn.Linear(2, 2)
    model.kept = model(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="graph leaves"):
        duplicate(model)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_modules_come_in_torchs_order_under_torchs_names(name: str) -> None:
    model = nn.Sequential(zoo.build(name), Awkward())
    assert list(modules_of(model).items()) == list(model.named_modules())
