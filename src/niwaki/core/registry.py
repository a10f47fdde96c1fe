"""Methods by name: the notation `name:key=value,key=value` and the tables that it is looked up in.

A method (criterion, compensation, data set, …) is a frozen dataclass; its fields are its settings.
A `Registry` maps names to such classes, and builds one from the notation: `merge:threshold=0.45`
becomes `Merge(threshold=0.45)`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Generic, TypeVar

from niwaki.core.errors import SettingError, UnknownNameError

T = TypeVar("T")


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """Split `name:key=value,key=value` into the name and its settings, values still as text."""
    name, colon, rest = spec.partition(":")
    settings: dict[str, str] = {}
    if colon and not rest.strip():
        raise SettingError(
            f"{spec!r} ends in a colon; write {name!r} alone, or {name + ':key=value'!r}"
        )
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise SettingError(
                f"cannot read {item!r} in {spec!r}; settings are written name:key=value,key=value"
            )
        if key.strip() in settings:
            raise SettingError(f"{key.strip()!r} is given twice in {spec!r}")
        settings[key.strip()] = value.strip()
    return name.strip(), settings


class Registry(Generic[T]):
    """A table of methods of one kind: name → dataclass."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> typing.Callable[[type[T]], type[T]]:
        """Class decorator: list a dataclass under `name`."""

        def add(cls: type[T]) -> type[T]:
            self._classes[name] = cls
            return cls

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise UnknownNameError(self.kind, name, self._classes)
        return self._classes[name]

    def build(self, spec: str) -> T:
        """The method that `spec` names, with the settings that it states and defaults for the
        others.

        Raises:
            UnknownNameError: no such method, or it has no such setting (the nearest names are
                offered).
            SettingError: a value is not of the setting's type, or the method refuses it.
        """
        name, settings = parse(spec)
        cls = self[name]
        hints = typing.get_type_hints(cls)
        fields = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]  # every method is a dataclass
        for key in settings:
            if key not in fields:
                raise UnknownNameError(f"setting of {self.kind} {name!r}", key, fields)
        return cls(
            **{key: _convert(value, hints[key], f"{name}:{key}") for key, value in settings.items()}
        )


def _convert(text: str, hint: object, where: str) -> object:
    """Read `text` as the type that a dataclass field is annotated with."""
    # a union with a Literal in it is one of typing's, others are of types
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            choices = typing.get_args(option)
            if text in choices:
                return text
            raise SettingError(f"{where} is one of {', '.join(map(str, choices))}; got {text!r}")
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option is str:
            return text
    wanted = " or ".join(
        getattr(option, "__name__", str(option)) for option in options if option is not type(None)
    )
    raise SettingError(f"{where} must be {wanted}; got {text!r}")
