"""Networks of the user's own: `package.module:factory:key=value,...`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator

from torch import nn

from niwaki.errors import NiwakiError, SettingError, UnknownNameError
from niwaki.methods import parse

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


def call_factory(spec: str, wanted: dict[str, int]) -> nn.Module:
    """The network that the factory returns, called with the settings of `spec` and those `wanted` that it names."""
    module_name, _, rest = spec.partition(":")
    name, settings = parse(rest)
    if not _is_path(name):
        raise SettingError(f"{spec!r} names no factory; write package.module:factory or package.module:factory:key=value")
    arguments: dict[str, object] = {key: _literal(text) for key, text in settings.items()}
    with _current_folder_importable():
        factory = _import(module_name, name)
        _add_wanted(spec, factory, arguments, wanted)
        return _call(factory, f"{module_name}:{name}", arguments)


def _import(module_name: str, name: str) -> Callable[..., object]:
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise NiwakiError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}; is it installed, in the current folder, "
            "or on PYTHONPATH?"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UnknownNameError(f"factory in {module_name!r}", part, known)
        found = getattr(found, part)
    if not callable(found):
        raise SettingError(f"{module_name}:{name} is a {type(found).__name__}, not a function or class that makes a model")
    return found


def _add_wanted(spec: str, factory: Callable[..., object], arguments: dict[str, object], wanted: dict[str, int]) -> None:
    try:
        named = inspect.signature(factory).parameters
    except ValueError:  # some built-in callables have no signature; then only what `spec` states is passed
        return
    for key, value in wanted.items():
        for parameter in PARAMETERS[key]:
            if parameter in named and arguments.setdefault(parameter, value) != value:
                raise SettingError(f"{spec!r} states {parameter}={arguments[parameter]}, but the data has {value}")


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
