"""Names of a package that are imported when they are first asked for, so that importing the package
takes no time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Getter = Callable[[str], Any]


def lazily(
    package: str, homes: Mapping[str, str], listed: Iterable[str]
) -> tuple[Getter, Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package's module.

    Args:
        homes: module → the names that it gives, divided by spaces; names of `listed` that none
            gives are submodules.
        listed: the package's `__all__`.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}
    submodules = {*listed} - home.keys()

    def find(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(home[name]), name)
        elif name in submodules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed})

    return find, names
