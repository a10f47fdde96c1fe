"""The package's `__init__` is its map: what it lists exists, and what it holds is listed."""

from __future__ import annotations

import ast
import importlib
import types
from pathlib import Path

import pytest

import niwaki

ROOT = Path(niwaki.__file__).parent
PACKAGES = sorted(
    ".".join(("niwaki", *path.parent.relative_to(ROOT).parts)) for path in ROOT.rglob("__init__.py")
)


def test_every_listed_name_exists() -> None:
    assert [name for name in niwaki.__all__ if not hasattr(niwaki, name)] == []


def test_the_list_is_sorted_and_without_repeats() -> None:
    assert sorted(niwaki.__all__) == sorted(set(niwaki.__all__))


def test_nothing_public_is_unlisted() -> None:
    """Submodules are attributes of a package too; all else that is public must be in the list."""
    public = {
        name
        for name, value in vars(niwaki).items()
        if not name.startswith("_")
        and not (isinstance(value, types.ModuleType) and value.__name__.startswith("niwaki."))
    }
    assert public - set(niwaki.__all__) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_hides_behind_a_function_of_its_name(package: str) -> None:
    """`import niwaki.pruning.prune` would give one or the other, by the order of imports."""
    folder = ROOT.joinpath(*package.split(".")[1:])
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    there = vars(importlib.import_module(package))
    hidden = {
        name for name in modules if not isinstance(there.get(name), types.ModuleType | type(None))
    }
    assert hidden == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_an_init_is_a_map_and_nothing_else(package: str) -> None:
    """Imports, a docstring, a sorted `__all__`; at most one table."""
    path = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    body = ast.parse(path.read_text()).body
    statements = [
        node
        for node in body
        if not isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign))
    ]
    if package != "niwaki.cli":  # its entry point is a function
        assert statements == []
    names = next(
        (
            ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ),
        [],
    )
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []
    imported = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if names:
        assert imported - {"annotations"} - set(names) <= {
            "Rule",
            "elementwise",
            "fourier",
            "indexing",
            "normalisation",
            "products",
            "reductions",
            "sampling",
            "shapes",
        }


def test_the_steps_are_callable_one_by_one() -> None:
    for step in (
        "trace",
        "score",
        "select",
        "compensate",
        "shrink",
        "check",
        "save",
        "load",
        "prune",
    ):
        assert callable(getattr(niwaki, step))
