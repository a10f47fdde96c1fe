"""The package's `__init__` is its map: what it lists exists, and what it holds is listed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
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
    if package != "niwaki":  # there, a static map stands beside the lazy one; see below
        assert statements == []
    names: list[str] = next(
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
        assert imported - {"annotations", "_lazily"} - set(names) <= {
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


def test_the_lazy_map_is_the_static_one() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    static = next(node for node in body if isinstance(node, ast.If))
    imports = [node for node in static.body if isinstance(node, ast.ImportFrom)]
    homes = {
        node.module: sorted(alias.name for alias in node.names)
        for node in imports
        if node.module != "niwaki"
    }
    assert {module: sorted(names.split()) for module, names in niwaki._HOMES.items()} == homes
    submodules = {alias.name for node in imports if node.module == "niwaki" for alias in node.names}
    assert set(niwaki.__all__) == submodules | {name for names in homes.values() for name in names}


def test_dir_and_star_give_every_name() -> None:
    names: dict[str, object] = {}
    exec("from niwaki import *", names)
    assert set(niwaki.__all__) <= names.keys()
    assert set(niwaki.__all__) <= set(dir(niwaki))
    with pytest.raises(AttributeError, match="has no attribute 'prun'"):
        niwaki.prun  # type: ignore[attr-defined]  # noqa: B018  # asking for it is the test


TABLES = [
    "from niwaki.methods.base.criterion import CRITERIA as table; known = 'mint l1 fold'",
    "from niwaki.methods.base import COMPENSATIONS as table; known = 'auto merge moments'",
    "from niwaki.methods.base import RECOVERIES as table; known = 'refit lbfgs batchnorm'",
    "from niwaki.methods.base import PENALTIES as table; known = 'rni l1 group-lasso'",
    "import niwaki; table = niwaki.models.available(); known = 'resnet20 digits-cnn'",
    "import niwaki; table = niwaki.data.available(); known = 'digits cifar10'",
]
EACH_BY_ITSELF = """
import os, sys
import torch
for code in sys.argv[1:]:
    assert not [name for name in sys.modules if name.startswith("niwaki")]
    if not (child := os.fork()):  # nothing of niwaki is imported, and torch once for all
        exec(code)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_tables_of_methods_are_full_before_a_name_is_looked_up() -> None:
    codes = [f"{code}; assert set(known.split()) <= set(table), list(table)" for code in TABLES]
    command = [sys.executable, "-c", EACH_BY_ITSELF, *codes]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("words", ["import niwaki", "import niwaki.core", "import niwaki.cli.app"])
def test_importing_the_package_imports_neither_torch_nor_numpy(words: str) -> None:
    code = f"{words}; import sys; sys.exit(bool({{'torch', 'numpy'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
