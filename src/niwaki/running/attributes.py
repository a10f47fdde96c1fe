"""Which integers a model's code looks up on its modules while it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from niwaki.running.layers import knows_sizes


def _keeps_integers(module: nn.Module) -> bool:
    return not knows_sizes(module) and any(
        type(value) in (int, tuple, list) for value in vars(module).values()
    )


@contextmanager
def noted_reads(model: nn.Module) -> Iterator[dict[str, set[str]]]:
    """Module → attributes holding an integer, or a list or tuple, that are read for as long as this
    lasts.

    The classes of the modules get a `__getattribute__` that takes notes, and lose it at the end: no
    module changes its class. Layers of torch whose sizes are known (niwaki.running.layers) are left
    out.
    """
    names = {id(module): name for name, module in model.named_modules()}
    reads: dict[str, set[str]] = defaultdict(set)
    patched: list[tuple[type, Any]] = []
    try:
        for cls in {type(module) for module in model.modules() if _keeps_integers(module)}:
            patched.append((cls, vars(cls).get("__getattribute__")))
            cls.__getattribute__ = _noting(cls.__getattribute__, names, reads)  # type: ignore[method-assign]
        yield reads
    finally:
        for cls, own in reversed(patched):
            if own is None:
                del cls.__getattribute__
            else:
                cls.__getattribute__ = own


def _noting(plain: Any, names: dict[int, str], reads: dict[str, set[str]]) -> Any:
    def __getattribute__(self: Any, attribute: str) -> Any:  # noqa: N807  # it becomes the method of that name
        value = plain(self, attribute)
        if type(value) in (int, tuple, list) and id(self) in names:
            reads[names[id(self)]].add(attribute)
        return value

    return __getattribute__
