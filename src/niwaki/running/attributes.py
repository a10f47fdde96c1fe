"""Which integers a model's code looks up on its modules while it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn

from niwaki.running.inputs import modules_of
from niwaki.running.layers import knows_sizes
from niwaki.running.lock import PROCESS
from niwaki.running.settings import holders


class Sources(Protocol):
    """Gives integers their source (niwaki.running.passing)."""

    def settings(self, value: Any, module: str, attribute: str) -> None:
        """Give the integers in a settings object of a module their source, where they stand."""

    def traced(self, value: Any, module: str, attribute: str) -> Any:
        """The value of a module's attribute, its integers with their source."""

    def undo(self) -> None:
        """Give settings objects the integers back that they had."""


def keeps_integers(module: nn.Module) -> bool:
    """Whether a module, not one of torch's own layers, has integers among its attributes, or in a
    settings object there.
    """
    return not knows_sizes(module) and any(
        holds_integers(value) or _holds_settings(value)
        for name, value in vars(module).items()
        if name not in _TORCHS
    )


def _holds_settings(value: Any) -> bool:
    return any(holds_integers(item) for _, table in holders(value) for item in table.values())


# tables of torch's own, which hold no settings
_TORCHS = frozenset(vars(nn.Module()))


def holds_integers(value: Any) -> bool:
    """Whether a value is an integer, or a tuple or list of nothing else."""
    if type(value) in (tuple, list):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int


# of these there is nothing to note, and they are read most
_SHOWN = (bool, float, str, type(None), torch.Tensor, nn.Parameter, MethodType)


@contextmanager
def noted_reads(model: nn.Module, sources: Sources | None = None) -> Iterator[dict[str, set[str]]]:
    """Module → attributes holding an integer, or a list or tuple, that are read for as long as this
    lasts.

    The classes of the modules get a `__getattribute__` that takes notes, and lose it at the end: no
    module changes its class. Layers of torch whose sizes are known (niwaki.running.layers) are left
    out.

    Args:
        sources: what the code is handed is given its source by this. Lists are changed in place;
            whoever asks for it restores the model's state (`preserved_state`).
    """
    modules = modules_of(model)
    names = {id(module): name for name, module in modules.items()}
    reads: dict[str, set[str]] = defaultdict(set)
    patched: list[tuple[type, Any]] = []
    PROCESS.acquire()
    try:
        for cls in {type(module) for module in modules.values() if keeps_integers(module)}:
            patched.append((cls, vars(cls).get("__getattribute__")))
            noting = _noting(cls.__getattribute__, names, reads, sources)
            cls.__getattribute__ = noting  # type: ignore[method-assign]  # put back in the end
        yield reads
    finally:
        if sources is not None:
            sources.undo()
        for cls, own in reversed(patched):
            if own is None:
                del cls.__getattribute__
            else:
                cls.__getattribute__ = own
        PROCESS.release()


def _noting(
    plain: Any, names: dict[int, str], reads: dict[str, set[str]], sources: Sources | None
) -> Any:
    def __getattribute__(self: Any, attribute: str) -> Any:  # noqa: N807  # it becomes the method of that name
        value = plain(self, attribute)
        kind = type(value)
        if kind in _SHOWN or attribute in _TORCHS:
            return value
        if id(self) not in names:
            return value
        name = names[id(self)]
        if kind in (int, tuple, list):
            reads[name].add(attribute)
            own = plain(self, "__dict__")
            if sources is not None and own.get(attribute) is value and holds_integers(value):
                return sources.traced(value, name, attribute)
        elif sources is not None and plain(self, "__dict__").get(attribute) is value:
            sources.settings(value, name, attribute)
        return value

    return __getattribute__
