"""Which code a file may have run: that of modules that are imported already, of installed
distributions, and of packages that the user named.

A saved network names the factory of its original. Whoever wrote the file chose that name, so a
module that merely lies in the current folder (an unpacked archive, a cloned repository) is not
imported for it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from torch import nn

from niwaki.core.errors import SettingError

# what these have is built by its name (`timm:resnet18`), and their functions read and fetch files
LIBRARIES = ("niwaki", "torch", "timm", "torchvision", "transformers")


def is_trusted(module_name: str, trust: Sequence[str]) -> bool:
    """Whether the user named this module, or a package that it lies in.

    >>> is_trusted("mine.nets", ["mine"]), is_trusted("minefield", ["mine"])
    (True, False)
    """
    return any(module_name == name or module_name.startswith(f"{name}.") for name in trust)


def refuse_unknown(module_name: str) -> None:
    """Refuse a module that is not imported yet and not part of an installed distribution.

    Its packages are imported from the outside in, each after it was looked at.

    Raises:
        SettingError: with the way to say that the package is trusted.
    """
    parts = module_name.split(".")
    with without_current_folder():
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if isinstance(sys.modules.get(name), ModuleType):
                continue
            if not _is_installed(name):
                raise SettingError(
                    f"the module {name!r} is neither imported nor part of an installed package, "
                    f"and no code is run for a file's sake; {way_out(module_name)}"
                )
            if end < len(parts):
                _import_package(name)


def refuse_foreign(factory: object, home: str, where: str) -> None:
    """Refuse a function of a library whose functions do more than build networks, and a class of
    niwaki's own that is no network to prune.

    Args:
        home: the module that it was taken from.
        where: how the file calls it.

    Raises:
        SettingError: it is one.
    """
    package = str(getattr(factory, "__module__", None) or home)
    library = package.partition(".")[0]
    is_class = isinstance(factory, type)
    ours = library == "niwaki" and not is_trusted(package, ["niwaki.models"])
    if library in LIBRARIES and (not is_class or ours):
        raise SettingError(
            f"{where} is {library}'s own and may read or fetch more than a network; "
            "a file may name networks alone"
        )
    if is_class and not issubclass(factory, nn.Module):  # type: ignore[arg-type]  # seen to be one
        raise SettingError(f"{where} is a class, but not one of networks (torch.nn.Module)")


def way_out(module_name: str) -> str:
    """What to do where the code is known to be good."""
    top = module_name.partition(".")[0]
    return (
        f"if you trust it, say so: niwaki.load(folder, trust={top!r}), or --trust {top} on the "
        "command line"
    )


@contextlib.contextmanager
def without_current_folder() -> Iterator[None]:
    """Nothing is imported from the folder that Python was started in (`python -c` puts it first),
    but what is installed from there.
    """
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if entry and not _is_current(entry)]
    try:
        yield
    finally:
        sys.path[:] = before


def _is_current(entry: str) -> bool:
    try:
        return Path(entry).resolve() == Path.cwd() and Path(entry).resolve() not in _site_folders()
    except OSError:
        return False


def _import_package(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # an installed package may fail in any way while it is imported
        raise SettingError(
            f"cannot import {name!r}: {type(error).__name__}: {str(error)[:200]}"
        ) from error


def _is_installed(name: str) -> bool:
    """Whether a module's file lies where packages are installed to, or is one's own in editable
    mode. A namespace package has no file: what is in it is looked at in its turn.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        raise SettingError(
            f"cannot import {name!r}: there is no such module among the installed packages; "
            f"{way_out(name)}"
        )
    if spec.origin is None or not os.path.isabs(spec.origin):
        return spec.origin is None and spec.submodule_search_locations is not None
    file = Path(spec.origin).resolve()
    if any(file.is_relative_to(folder) for folder in _site_folders()):
        return True
    top = name.partition(".")[0]
    return any(file.is_relative_to(source) for source in _editable_sources(top))


def _site_folders() -> set[Path]:
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return {Path(folder).resolve() for folder in folders}


def _editable_sources(top: str) -> Iterator[Path]:
    """Where the source of a top-level module lies that is installed in editable mode."""
    for folder in _site_folders():
        for noted in folder.glob("*.dist-info/direct_url.json"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                data = json.loads(noted.read_text(encoding="utf-8"))
                if data.get("dir_info", {}).get("editable") and top in _top_levels(noted.parent):
                    yield Path(url2pathname(unquote(urlparse(data["url"]).path))).resolve()


def _top_levels(info: Path) -> list[str]:
    stated = info / "top_level.txt"
    if stated.is_file():
        return stated.read_text(encoding="utf-8").split()
    return [info.name.partition("-")[0]]
