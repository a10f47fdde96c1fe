"""Networks of the user's own: `package.module:factory:key=value,...`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from niwaki.core.errors import NiwakiError, SettingError, UnknownNameError
from niwaki.core.registry import parse
from niwaki.models.trusted import (
    is_trusted,
    refuse_foreign,
    refuse_unknown,
    without_current_folder,
)

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
    spec: str,
    wanted: dict[str, int],
    given: dict[str, object] | None = None,
    *,
    here: bool = True,
) -> nn.Module:
    """The network that the factory returns, called with the settings of `spec`, what is `given`,
    and the `wanted` it names.

    Args:
        here: modules of the current folder may be imported.
    """
    module_name, name, settings = _target(spec)
    arguments = {**literals(settings), **(given or {})}
    with _current_folder_importable() if here else without_current_folder():
        factory = _import(module_name, name)
        _add_wanted(spec, factory, arguments, wanted)
        return _call(factory, f"{module_name}:{name}", arguments)


def imported(spec: str) -> tuple[Callable[..., Any], dict[str, str]]:
    """A function that the user names, and the settings that follow its name; modules of the
    current folder may be imported.

    Raises:
        NiwakiError: it cannot be.
    """
    module_name, name, settings = _target(spec)
    with _current_folder_importable():
        return _import(module_name, name), settings


def refuse_undeclared(spec: str, trust: Sequence[str] = ()) -> None:
    """Refuse a factory that a file names, unless its code may run and it says itself that it makes
    a network.

    It must be a class that is an `nn.Module`, or a function annotated to return one, at the top
    level of a module that is not Python's own. So `os:system` is no factory, whatever a file says.

    Args:
        trust: packages whose code the user lets run; see `niwaki.models.trusted`.

    Raises:
        SettingError: it is not.
    """
    module_name, name, _ = _target(spec)
    where = f"{module_name}:{name}"
    if module_name.partition(".")[0] in {*sys.stdlib_module_names, "builtins"}:
        raise SettingError(f"{where} is Python's own code, not a factory of networks")
    trusted = is_trusted(module_name, trust)
    if not trusted:
        refuse_unknown(module_name)
    with _current_folder_importable() if trusted else without_current_folder():
        factory: object = _import(module_name, name)
    refuse_foreign(factory, module_name, where)
    if isinstance(factory, type):
        return
    by_hand = f"if you trust it, pass it yourself: load(folder, model={where!r})"
    if "." in name or getattr(factory, "__module__", None) != module_name:
        raise SettingError(f"{where} is not a function of that module's own; {by_hand}")
    if not _says_network(factory):
        raise SettingError(
            f"{where} does not say that it returns an nn.Module; let it say so (def "
            f"{name}(…) -> nn.Module:), or, {by_hand}"
        )


def _says_network(function: object) -> bool:
    """Whether a function is annotated to return a network."""
    try:
        declared = typing.get_type_hints(function).get("return")
    except Exception:  # annotations may name anything
        return False
    return isinstance(declared, type) and issubclass(declared, nn.Module)


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
        target: object = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise NiwakiError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}; is it installed, in "
            "the current folder, or on PYTHONPATH?"
        ) from error
    for part in name.split("."):
        if not hasattr(target, part):
            known = [
                key
                for key, value in vars(target).items()
                if callable(value) and not key.startswith("_")
            ]
            raise UnknownNameError(f"factory in {module_name!r}", part, known)
        target = getattr(target, part)
    if not callable(target):
        raise SettingError(
            f"{module_name}:{name} is a {type(target).__name__}, not a function or class that "
            "makes a model"
        )
    return target


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
        settings = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise NiwakiError(f"{where}({settings}) failed: {type(error).__name__}: {error}") from error
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
