"""Tests that need a package are left out where it is missing; it is looked for, not imported, so
that collecting all tests stays quick.
"""

from importlib.util import find_spec

import pytest


def needs(*packages: str) -> None:
    """To be called at the top of a file of tests."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)
