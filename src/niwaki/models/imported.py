"""Networks of the user's own: `package.module:factory:key=value,...`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import nn

from niwaki.core.errors import NiwakiError, SettingError, UnknownNameError
from niwaki.core.registry import parse

# what the data has → what factories call it, in the wild
PARAMETERS = {
    "classes": ("classes", "num_classes"),
    "in_channels": ("in_channels", "in_chans"),
    "image_size": ("image_size", "img_size"),
}


def is_import_string(spec: str, listed: Iterable[str]) -> bool:
    """Whether `spec` is `module:factory…` and not a listed name with its settings."""
    module, _, rest = spec.partition(":")
    target = rest.partition(":")[0]
    return module not in listed and ("." in module or _is_path(target))


def _is_path(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def literals(settings: dict[str, str]) -> dict[str, object]:
    """The values of settings, read as Python literals where they are ones."""
    return {key: _literal(text) for key, text in settings.items()}


def call_factory(
    spec: str, wanted: dict[str, int], given: dict[str, object] | None = None
) -> nn.Module:
    """The network that the factory returns, called with the settings of `spec`, what is `given`,
    and the `wanted` it names.
    """
    module_name, name, settings = _target(spec)
    arguments = {**literals(settings), **(given or {})}
    with _current_folder_importable():
        factory = _import(module_name, name)
        _add_wanted(spec, factory, arguments, wanted)
        return _call(factory, f"{module_name}:{name}", arguments)


def refuse_undeclared(spec: str, beside: Path | None = None) -> None:
    """Refuse a factory that a file names, unless it says itself that it makes a network.

    It must be a class that is an `nn.Module`, or a function annotated to return one, at the top
    level of a module that is not Python's own. So `os:system` is no factory, whatever a file says.

    Args:
        beside: the folder of the file; code that lies in it came with it, and is not imported.

    Raises:
        SettingError: it is not.
    """
    module_name, name, _ = _target(spec)
    way_out = f"if you trust it, pass it yourself: load(folder, model={module_name + ':' + name!r})"
    if module_name.partition(".")[0] in {*sys.stdlib_module_names, "builtins"}:
        raise SettingError(f"{module_name}:{name} is Python's own code, not a factory of networks")
    with _current_folder_importable():
        if beside is not None and _lies_in(module_name.partition(".")[0], beside):
            raise SettingError(
                f"the module {module_name!r} lies in the folder itself, whose code is not run; "
                f"{way_out}"
            )
        factory: object = _import(module_name, name)
    if isinstance(factory, type):
        declared: object = factory
    else:
        if "." in name or getattr(factory, "__module__", None) != module_name:
            raise SettingError(
                f"{module_name}:{name} is not a function of that module's own; {way_out}"
            )
        try:
            declared = typing.get_type_hints(factory).get("return")
        except Exception:  # annotations may name anything
            declared = None
    if not (isinstance(declared, type) and issubclass(declared, nn.Module)):
        raise SettingError(
            f"{module_name}:{name} does not say that it returns an nn.Module; let it say so (def "
            f"{name}(…) -> nn.Module:), or, "
            f"{way_out}"
        )


def _lies_in(module_name: str, folder: Path) -> bool:
    try:
        found = importlib.util.find_spec(module_name)
    except (ImportError, ValueError, AttributeError):
        return False  # then it cannot be imported either
    places = [found.origin, *(found.submodule_search_locations or ())] if found else []
    return any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places)


def _target(spec: str) -> tuple[str, str, dict[str, str]]:
    """Module, factory and settings of an import string."""
    module_name, _, rest = spec.partition(":")
    name, settings = parse(rest)
    if not _is_path(name):
        raise SettingError(
            f"{spec!r} names no factory; write package.module:factory or "
            "package.module:factory:key=value"
        )
    return module_name, name, settings


def _import(module_name: str, name: str) -> Callable[..., object]:
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise NiwakiError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}; is it installed, in "
            "the current folder, "
            "or on PYTHONPATH?"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            known = [
                key
                for key, value in vars(found).items()
                if callable(value) and not key.startswith("_")
            ]
            raise UnknownNameError(f"factory in {module_name!r}", part, known)
        found = getattr(found, part)
    if not callable(found):
        raise SettingError(
            f"{module_name}:{name} is a {type(found).__name__}, not a function or class that "
            "makes a model"
        )
    return found


def _add_wanted(
    spec: str, factory: Callable[..., object], arguments: dict[str, object], wanted: dict[str, int]
) -> None:
    try:
        named = inspect.signature(factory).parameters
    except (
        ValueError
    ):  # some built-in callables have no signature; then only what `spec` states is passed
        return
    for key, value in wanted.items():
        for parameter in PARAMETERS[key]:
            if parameter in named and arguments.setdefault(parameter, value) != value:
                raise SettingError(
                    f"{spec!r} states {parameter}={arguments[parameter]}, but the data has {value}"
                )


def _call(factory: Callable[..., object], where: str, arguments: dict[str, object]) -> nn.Module:
    try:
        model = factory(**arguments)
    except NiwakiError:
        raise
    except Exception as error:  # the user's factory may fail in any way
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise NiwakiError(f"{where}({given}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise NiwakiError(f"{where} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    # an installed command does not have the current folder on sys.path, as `python -m` has
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
