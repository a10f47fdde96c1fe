"""Methods by name: the notation `name:key=value,key=value` and the tables that it is looked up in.

A method (criterion, compensation, data set, …) is a frozen dataclass; its fields are its settings.
A `Registry` maps names to such classes, and builds one from the notation: `merge:threshold=0.45`
becomes `Merge(threshold=0.45)`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from niwaki.core.errors import SettingError, UnknownNameError

T = TypeVar("T")


_ITEM = re.compile(r"""\s*(?P<key>[^=,"]*?)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|[^",]*?)\s*(?:,|$)""")


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """Split `name:key=value,key=value` into the name and its settings, values still as text.

    A value with a comma in it stands in quotes, as JSON writes a text.

    >>> parse('mint:groups=8,folder="a, b"')
    ('mint', {'groups': '8', 'folder': 'a, b'})
    """
    name, colon, rest = spec.partition(":")
    settings: dict[str, str] = {}
    if colon and not rest.strip():
        raise SettingError(
            f"{spec!r} ends in a colon; write {name!r} alone, or {name + ':key=value'!r}"
        )
    place = 0
    while place < len(rest):
        item = _ITEM.match(rest, place)
        if item is None or not item["key"] or not item["value"]:
            raise SettingError(
                f"cannot read {rest[place:].strip()!r} in {spec!r}; settings are written "
                "name:key=value,key=value"
            )
        if item["key"] in settings:
            raise SettingError(f"{item['key']!r} is given twice in {spec!r}")
        settings[item["key"]] = _unquoted(item["value"], spec)
        place = item.end()
    return name.strip(), settings


def _unquoted(value: str, spec: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        raise SettingError(f"cannot read the text {value} in {spec!r}") from None


def _default(field: dataclasses.Field[typing.Any]) -> object:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _quoted(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(json.dumps({key: _as_data(item) for key, item in value.items()}))
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    plain = text and text == text.strip() and not set(text) & set(',="')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _as_data(value: object) -> object:
    """A dataclass as a table of what is set in it."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    return {key: item for key, item in dataclasses.asdict(value).items() if item is not None}


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

    def spell(self, method: T) -> str:
        """The notation of a method, which `build` makes it from again; settings at their defaults
        are left out. Of a method that is not registered, its class's name.

        >>> CRITERIA.spell(CRITERIA.build("mint:groups=4"))  # doctest: +SKIP
        'mint:groups=4'
        """
        name = next((n for n, cls in self._classes.items() if cls is type(method)), None)
        if name is None or not dataclasses.is_dataclass(method):
            return name or str(method)
        stated = [
            f"{f.name}={_quoted(getattr(method, f.name))}"
            for f in dataclasses.fields(method)
            if f.init and getattr(method, f.name) != _default(f)
        ]
        return f"{name}:{','.join(stated)}" if stated else name

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
        if typing.get_origin(option) is Mapping:
            return _table(text, typing.get_args(option)[1], where)
    wanted = " or ".join(
        getattr(option, "__name__", str(option)) for option in options if option is not type(None)
    )
    raise SettingError(f"{where} must be {wanted}; got {text!r}")


def _table(text: str, of: object, where: str) -> dict[str, object]:
    """Read a table, written as JSON; its entries are of a dataclass, or plain."""
    try:
        table = json.loads(text)
        if isinstance(of, type) and dataclasses.is_dataclass(of):
            return {key: of(**entry) for key, entry in table.items()}
        return dict(table)
    except (ValueError, TypeError, AttributeError):
        raise SettingError(
            f"{where} is a table in JSON, in quotes: "
            f'{where.partition(":")[2]}="{{\\"name\\": …}}"; got {text!r}'
        ) from None
