"""Which niwaki this is; read without importing torch."""

from __future__ import annotations

import importlib.metadata


def _version() -> str:
    try:
        return importlib.metadata.version("niwaki")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


__version__ = _version()  # "not installed" when run from a source tree
