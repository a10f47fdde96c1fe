"""The record of one run: what the network cost and scored before and after, and everything needed
to ask again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

from niwaki.core.errors import NiwakiError
from niwaki.core.provenance import hardware, versions

SCHEMA = 1  # raised when a key of record.json changes its meaning or goes

LATER: dict[str, Any] = {
    "peak_bytes": None,
    "batch": None,
    "residuals": {},
    "importances": {},
    "scores": {},
}  # older records lack these

T = TypeVar("T")


class RecordError(NiwakiError, ValueError):
    """A record that cannot be read, or that holds something JSON cannot."""


@dataclass(frozen=True)
class Measurement:
    """One network, measured."""

    accuracy: float | None  # share of samples in [0, 1]; None: not measured
    loss: float | None  # mean cross-entropy, nats; None: not measured, or not a finite number
    params: int  # each shared parameter once
    macs: int  # multiply-adds of one sample
    latency_ms: float  # median milliseconds of one forward of the example batch
    bytes: int  # parameters and buffers
    latency_spread_ms: float = 0.0  # interquartile range of the timed runs
    samples: int | None = None  # that accuracy and loss were taken on
    non_finite: int = 0  # samples among them whose output held a NaN; they count as wrong
    peak_bytes: int | None = (
        None  # most bytes of activations alive at once in one forward of the example batch
    )
    batch: int | None = None  # samples in the example batch
    scores: dict[str, float] = field(
        default_factory=dict
    )  # of the user's own task by name, the primary one first; or how far it agrees with another

    @property
    def throughput(self) -> float | None:
        """Samples a second in forwards of the example batch."""
        return 1000 * self.batch / self.latency_ms if self.batch and self.latency_ms else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """One run. `settings` holds only what JSON holds (no tuples), so that the round trip is
    exact.
    """

    before: Measurement
    after: Measurement
    settings: dict[str, Any]
    seed: int
    seconds: dict[str, float]  # wall time by stage
    notes: tuple[str, ...] = ()  # what a reader must know: frozen groups, early stops, missing data
    versions: dict[str, str] = field(default_factory=versions)
    hardware: dict[str, Any] = field(default_factory=hardware)
    created: str = field(default_factory=_now)  # ISO 8601, UTC
    schema: int = SCHEMA
    residuals: dict[str, float] = field(
        default_factory=dict
    )  # group → share of what its consumers read that is lost
    importances: dict[str, list[float]] = field(
        default_factory=dict
    )  # histogram of scores: edges, kept, dropped

    def to_json(self) -> str:
        """The record as indented JSON, ending in a newline.

        Raises:
            RecordError: a value that JSON cannot hold: an object, NaN, infinity.
        """
        data = dataclasses.asdict(self)
        for key, value in data.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise RecordError(
                    f"{key!r} of the record cannot be written as JSON: {error}"
                ) from error
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> Record:
        """Read what `to_json` wrote; `source` names the file in errors.

        Raises:
            RecordError: not JSON, another schema, a key missing, unknown, or of the wrong type.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise RecordError(f"{source} is not JSON: {error}") from error
        if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
            raise RecordError(
                f"{source} has schema {data['schema']!r}; this niwaki reads schema {SCHEMA}"
            )
        return from_table(cls, data, source)


def from_table(cls: type[T], data: object, where: str) -> T:
    """An instance of the dataclass `cls` from a JSON object that has exactly its fields.

    Raises:
        RecordError: a key is missing, unknown or of the wrong type; `where` names it.
    """
    if not isinstance(data, dict):
        raise RecordError(f"{where} must be a JSON object; it is {_json_type(data)}")
    hints = typing.get_type_hints(cls)
    data = {**LATER, **data} if LATER.keys() & hints.keys() else data
    data = {key: value for key, value in data.items() if key in hints or key not in LATER}
    if missing := sorted(hints.keys() - data.keys()):
        raise RecordError(f"{where} lacks {', '.join(map(repr, missing))}")
    if unknown := sorted(data.keys() - hints.keys()):
        raise RecordError(f"{where} has unknown keys {', '.join(map(repr, unknown))}")
    return cls(**{key: _value(data[key], hint, f"{where}: {key}") for key, hint in hints.items()})


def _value(value: object, hint: Any, where: str) -> Any:
    """`value` if it is of the type that a field is annotated with; ints pass for floats, lists
    become tuples.
    """
    if dataclasses.is_dataclass(hint):
        return from_table(typing.cast("type[Any]", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is types.UnionType and value is None and type(None) in args:
        return None
    if origin is types.UnionType:
        return _value(value, next(option for option in args if option is not type(None)), where)
    if origin is dict and isinstance(value, dict):
        return {key: _value(item, args[1], f"{where}: {key}") for key, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_value(item, args[0], where) for item in value]
    if origin is tuple and isinstance(value, list):
        return tuple(_value(item, args[0], where) for item in value)
    if hint is float and type(value) in (int, float) and math.isfinite(typing.cast(float, value)):
        return float(typing.cast(float, value))
    if hint in (int, str) and type(value) is hint:  # `type`, because True is an int too
        return value
    raise RecordError(
        f"{where} must be {getattr(origin or hint, '__name__', hint)}; it is {_json_type(value)}"
    )


def _json_type(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), f"the number {value}")
