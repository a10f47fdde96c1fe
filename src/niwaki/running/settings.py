"""Integers that a module keeps in an object of its own: a dict, a dataclass, a plain class, the
arguments of a partial function.

They are named by their way from the module: `config.num_heads`, also for the entry of a dict.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, MutableMapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

DEPTH = 3  # settings within settings


def fields(value: Any) -> MutableMapping[str, Any] | None:
    """What a settings object holds, by name: to be read, and written into; None for anything else.

    A class that has a say in how its attributes are read or written is left alone.
    """
    if type(value) is dict:
        return value if all(isinstance(key, str) for key in value) else None
    if type(value) is functools.partial:
        return value.keywords
    cls: Any = type(value)
    table: dict[str, Any]
    if cls is SimpleNamespace:  # written in C, with ways of its own that are the usual ones
        table = vars(value)
        return table
    if not hasattr(value, "__dict__") or isinstance(value, (type, nn.Module, Tensor)):
        return None
    # the table itself is written into, so that a frozen dataclass is no obstacle; `__setattr__` of
    # such a class only refuses
    frozen = getattr(getattr(cls, "__dataclass_params__", None), "frozen", False)
    plain = cls.__getattribute__ is object.__getattribute__ and not hasattr(cls, "__getattr__")
    if callable(value) or not plain or not (frozen or cls.__setattr__ is object.__setattr__):
        return None
    table = vars(value)
    return table


def holders(value: Any, path: str = "") -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """The tables of a settings object and of the settings in it, each with the way there.

    >>> [path for path, _ in holders({"width": 8, "attention": {"heads": 2}})]
    ['', 'attention']
    """
    pending, seen = [(path, value, 0)], set[int]()
    while pending:
        path, value, depth = pending.pop(0)
        table = fields(value)
        if table is None or id(table) in seen or any(isinstance(v, Tensor) for v in table.values()):
            continue
        seen.add(id(table))
        yield path, table
        if depth + 1 < DEPTH:
            below = ((f"{path}.{key}" if path else key, item) for key, item in table.items())
            pending += [(way, item, depth + 1) for way, item in below if named(way)]


def state_of(module: nn.Module) -> dict[str, Any] | None:
    """What a module's class makes it anew from, where it says so itself: einops' layers keep a
    pattern and named sizes, and all else follows. None for any other.
    """
    cls: Any = type(module)
    if cls.__setstate__ is nn.Module.__setstate__ or not hasattr(cls, "__getstate__"):
        return None
    if cls.__getstate__ is getattr(object, "__getstate__", None) or any(module.children()):
        return None
    state = module.__getstate__() if not any(module.parameters()) else None
    return state if type(state) is dict and all(key in vars(module) for key in state) else None


def made_anew(module: nn.Module) -> None:
    """Let what follows from a module's state follow, after the state was changed."""
    state = state_of(module)
    if state is None:
        return
    twin: Any = type(module).__new__(type(module))
    twin.__setstate__(copy.deepcopy(state))
    torchs = vars(nn.Module())
    vars(module).update({key: value for key, value in vars(twin).items() if key not in torchs})


def named(path: str) -> bool:
    """Whether a way can be written down: names, none of them behind an underscore."""
    return all(step.isidentifier() and not step.startswith("_") for step in path.split("."))


def owner_of(module: Any, path: str) -> tuple[MutableMapping[str, Any] | None, str]:
    """The table that holds what a module, or an object that it keeps, has under a name
    (`config.num_heads`), and its name there; None where there is none.
    """
    *way, name = path.split(".")
    value = module
    for step in way:
        table = _table(value)
        value = None if table is None else table.get(step)
    return _table(value), name


def read_path(module: Any, path: str) -> Any:
    """What a module keeps under such a name; None where there is nothing."""
    table, name = owner_of(module, path)
    return None if table is None else table.get(name)


def _table(value: Any) -> MutableMapping[str, Any] | None:
    if type(value) is dict:
        return value
    if type(value) is functools.partial:
        return value.keywords
    return vars(value) if hasattr(value, "__dict__") else None
