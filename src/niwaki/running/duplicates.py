"""Copies of a module, as `copy.deepcopy` makes them but quicker.

Most of what a deep copy of a network costs is not its weights: every module holds a dozen empty
tables for hooks, each of which is copied by way of a registry of types. Here those are made anew.
Anything with a copying or pickling of its own (`__deepcopy__`, `__getstate__`, `__reduce__`, slots)
goes through `copy.deepcopy`, with one memory of what was copied for both, so that what was shared
stays shared.
"""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from typing import Any, TypeVar, cast

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, type}
)
_TABLES = frozenset({dict, OrderedDict, list, set})


def duplicate(model: M, *, share: bool = False) -> M:
    """A deep copy of a module.

    Args:
        share: let the copy's parameters be objects of their own over the memory of the original's,
            for a caller who gives each of them other values by `parameter.data = …` at once, and
            never writes into them. Buffers are copied all the same.

    Raises:
        Exception: what `copy.deepcopy` raises of what cannot be copied.
    """
    memory = _results(model)
    if share:
        for parameter in model.parameters():
            if type(parameter) is nn.Parameter and parameter.layout == torch.strided:
                twin = nn.Parameter(parameter.data, parameter.requires_grad)
                memory[id(parameter)] = twin
    return cast("M", _module(model, memory))


def _results(model: nn.Module) -> dict[int, Any]:
    """What hooks computed last and keep in an attribute of their layer (old weight_norm), without
    its gradient's history: torch does not copy it otherwise.
    """
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        if module._forward_pre_hooks
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def _module(module: nn.Module, memory: dict[int, Any]) -> Any:
    if id(module) in memory:
        return memory[id(module)]
    if not _is_plain(type(module)):
        return copy.deepcopy(module, memory)
    twin = object.__new__(type(module))
    memory[id(module)] = twin
    state = {}
    for key, value in _state(module).items():
        state[key] = value if type(value) in _ATOMS else _value(value, memory)
    twin.__setstate__(state)
    return twin


def _value(value: Any, memory: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memory:
        return memory[id(value)]
    if kind in _TABLES and not value:
        memory[id(value)] = kind()
        return memory[id(value)]
    if kind is dict and all(type(key) is str for key in value):
        table = memory[id(value)] = {}
        table.update({key: _value(item, memory) for key, item in value.items()})
        return table
    return _module(value, memory) if isinstance(value, nn.Module) else copy.deepcopy(value, memory)


def _is_plain(cls: type) -> bool:
    """Whether `copy.deepcopy` would copy a module's attributes and nothing else."""
    return (
        cls not in copyreg.dispatch_table
        and not any(name in vars(base) for base in _bases(cls) for name in _OWN)
        and not copyreg._slotnames(cls)  # type: ignore[attr-defined]  # no stub
    )


def _bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base not in (nn.Module, object)]


def _state(module: nn.Module) -> dict[str, Any]:
    """What torch would copy; it leaves out what `module.compile()` made."""
    own = vars(nn.Module).get("__getstate__")
    return vars(module) if own is None else own(module)


_OWN = (
    "__deepcopy__",
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
