"""plan.json: everything but the weights that makes the pruned network out of the original, checked
before it is used.

factory, arguments   what builds the original
inputs               what it is called with: shapes, types, ranges
steps                the plans that pruned it, in order: group → width and kept units
tensors              name → shape before and after; before is null where a repair added it
attributes           module → attribute → size before and after
stand_ins            layer that is gone → what stands in its place: "identity" or "nothing"
strides              of tensors that lie otherwise in memory, which safetensors does not keep
dtypes               name → type of numbers; that of all others stands under the empty name
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from niwaki.core.errors import CheckpointError, SettingError
from niwaki.core.plan import Kept, Plan, StandIn
from niwaki.models import provenance
from niwaki.running import named_state
from niwaki.running.settings import read_path
from niwaki.surgery.lineage import plain

SCHEMA = 3  # 2 knew neither types nor branches that go; 1 was replayed through the graph
READ = (2, SCHEMA)
LARGEST = 2**40  # numbers in one tensor


@dataclass(frozen=True)
class Blueprint:
    """What stands in plan.json."""

    factory: str | None
    arguments: Mapping[str, Any]
    inputs: Any
    steps: tuple[Plan, ...]
    tensors: Mapping[str, tuple[list[int] | None, list[int]]]
    attributes: Mapping[str, Mapping[str, tuple[Any, Any]]]
    strides: Mapping[str, list[int]] = field(default_factory=dict)
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: nn.Module, factory: str | None, arguments: Mapping[str, Any] | None
    ) -> Blueprint:
        """That of a pruned network, by what it remembers of itself.

        Raises:
            CheckpointError: it was never pruned.
        """
        known = provenance(model)
        if "steps" not in known:
            raise CheckpointError(
                f"{type(model).__name__} is not a network that niwaki pruned (or lost its memory "
                "of it when it was copied into another module); save the result of niwaki.prune, "
                "or its model"
            )
        state, before = named_state(model), known["shapes"]
        tensors = {
            name: (before.get(name), list(tensor.shape))
            for name, tensor in state.items()
            if before.get(name) != list(tensor.shape)
        }
        return cls(
            factory if factory is not None else known.get("factory"),
            dict(
                arguments
                if arguments is not None
                else {}
                if factory is not None
                else known.get("arguments", {})
            ),
            known["inputs"],
            tuple(
                Plan({name: Kept(width, tuple(units)) for name, (width, units) in step.items()})
                for step in known["steps"]
            ),
            tensors,
            _changed_attributes(model, known["attributes"]),
            {
                name: list(tensor.stride())
                for name, tensor in state.items()
                if _lies_otherwise(tensor)
            },
            dict(known.get("stand_ins", {})),
            _dtypes_of(state),
        )

    def to_json(self) -> str:
        """As text: one line a group, tensor and module."""
        return _laid_out({"schema": SCHEMA, **self.as_data()}) + "\n"

    def as_data(self) -> dict[str, Any]:
        """As JSON holds it, without the schema."""
        steps = [
            {n: {"width": kept.width, "kept": list(kept.units)} for n, kept in plan.items()}
            for plan in self.steps
        ]
        return {
            "factory": self.factory,
            "arguments": dict(self.arguments),
            "inputs": self.inputs,
            "steps": steps,
            "tensors": {name: list(pair) for name, pair in self.tensors.items()},
            "attributes": {
                path: {n: list(pair) for n, pair in table.items()}
                for path, table in self.attributes.items()
            },
            "strides": dict(self.strides),
            "stand_ins": dict(self.stand_ins),
            "dtypes": dict(self.dtypes),
        }

    @classmethod
    def from_json(cls, text: str) -> Blueprint:
        """Read one back.

        Raises:
            SettingError: not JSON, of another schema, or with something in it that no network could
                have.
        """
        data = read_json(text)
        if not isinstance(data, dict) or type(data.get("schema")) is not int:
            raise SettingError("it is no table with a schema number")
        if data["schema"] not in READ:
            age = (
                "was written by a newer niwaki: update it"
                if data["schema"] > SCHEMA
                else "is no longer read: save it again"
            )
            raise SettingError(f"schema {data['schema']} {age} (this niwaki reads schema {SCHEMA})")
        if data["schema"] == 2:
            data = {"dtypes": {}, **data}
        data = {"stand_ins": {}, **data}
        if wrong := sorted(data.keys() ^ {"schema", *cls.__dataclass_fields__}):
            raise SettingError(f"it lacks or has too much: {', '.join(wrong)[:200]}")
        if not isinstance(data["factory"], (str, type(None))) or not isinstance(
            data["arguments"], dict
        ):
            raise SettingError("'factory' must be a text or null, 'arguments' a table")
        if not isinstance(data["steps"], list):
            raise SettingError("'steps' must be a list")
        return cls(
            data["factory"],
            data["arguments"],
            data["inputs"],
            tuple(
                Plan.from_json(json.dumps({"schema": 1, "groups": step})) for step in data["steps"]
            ),
            {name: _shapes(name, pair) for name, pair in _table(data, "tensors").items()},
            {
                path: _attribute_table(path, table)
                for path, table in _table(data, "attributes").items()
            },
            {name: _strides(name, value) for name, value in _table(data, "strides").items()},
            {name: _stand_in(name, kind) for name, kind in _table(data, "stand_ins").items()},
            {name: _dtype(name, value) for name, value in _table(data, "dtypes").items()},
        )


def read_json(text: str) -> Any:
    """What a JSON text holds; NaN, infinity and names that come twice are refused.

    Raises:
        SettingError: it is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"it is not JSON that niwaki writes: {str(error) or type(error).__name__}"
        ) from error


def _lies_otherwise(tensor: Tensor) -> bool:
    """Whether a tensor fills its memory, but not in the order of its axes."""
    spread = (
        sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        + 1
    )
    usual = torch.empty(tensor.shape, device="meta").stride()
    return bool(tensor.numel()) and spread == tensor.numel() and tensor.stride() != usual


def _changed_attributes(
    model: nn.Module, before: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, tuple[Any, Any]]]:
    changed: dict[str, dict[str, tuple[Any, Any]]] = {}
    for path, module in model.named_modules():
        for name, old in before.get(path, {}).items():
            new = plain(read_path(module, name))
            if new is not None and new != old:  # None: the module is another one by now
                changed.setdefault(path, {})[name] = (old, new)
    return changed


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name comes twice in one table")
    return table


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(data[key], dict):
        raise SettingError(f"{key!r} must be a table")
    return data[key]  # type: ignore[no-any-return]  # just seen to be one


def _shapes(name: str, pair: Any) -> tuple[list[int] | None, list[int]]:
    """Shape before and after: axes only get smaller."""
    old: Any
    new: Any
    old, new = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    added = old is None and _is_shape(new)
    if added or (
        _is_shape(old)
        and _is_shape(new)
        and len(old) == len(new)
        and all(map(int.__ge__, old, new))
    ):
        return old, new
    raise SettingError(
        f"the shapes of tensor {name!r} are not those before and after a pruning: {str(pair)[:80]}"
    )


def _is_shape(value: Any) -> bool:
    sizes = (
        isinstance(value, list)
        and len(value) < 16
        and all(type(size) is int and size >= 0 for size in value)
    )
    return sizes and math.prod(value) <= LARGEST


def _strides(name: str, value: Any) -> list[int]:
    if (
        isinstance(value, list)
        and len(value) < 16
        and all(type(n) is int and 0 <= n <= LARGEST for n in value)
    ):
        return value
    raise SettingError(
        f"the strides of tensor {name!r} are no list of whole numbers: {str(value)[:80]}"
    )


def _stand_in(name: str, kind: Any) -> StandIn:
    for known in get_args(StandIn):
        if kind == known and name:
            return known  # type: ignore[no-any-return]  # one of two words
    raise SettingError(f"what stands in for layer {name!r} is neither an identity nor nothing")


def _dtypes_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """What most tensors hold under the empty name, and the others by theirs."""
    named = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in state.items()}
    if not named:
        return {}
    (usual, _), *_ = Counter(named.values()).most_common(1)
    return {"": usual, **{name: dtype for name, dtype in named.items() if dtype != usual}}


def _dtype(name: str, value: Any) -> str:
    if isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype):
        return value
    raise SettingError(f"tensor {name!r} holds numbers of no known type: {str(value)[:80]!r}")


def _attribute_table(path: str, table: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(table, dict):
        raise SettingError(f"the attributes of module {path!r} are no table")
    return {name: _sizes(f"{path}.{name}", pair) for name, pair in table.items()}


def _sizes(name: str, pair: Any) -> tuple[Any, Any]:
    """A size attribute before and after: a number, or a list of them."""
    if isinstance(pair, list) and len(pair) == 2:
        old, new = ([value] if type(value) is int else value for value in pair)
        lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
        if (
            type(pair[0]) is type(pair[1])
            and lists
            and all(type(n) is int and abs(n) <= LARGEST for n in (*old, *new))
        ):
            return pair[0], pair[1]
    raise SettingError(
        f"the sizes of {name!r} are not those before and after a pruning: {str(pair)[:80]}"
    )


def _laid_out(data: Any, depth: int = 0, path: tuple[str, ...] = ()) -> str:
    """JSON that people can read: tables are opened down to one line a group, tensor or module."""
    opened = depth < 3 if path[:1] == ("steps",) else depth < 2
    if not opened or not isinstance(data, (dict, list)) or not data:
        return json.dumps(data, ensure_ascii=False, allow_nan=False)
    indent = "  " * (depth + 1)
    if isinstance(data, dict):
        rows = [
            f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(v, depth + 1, (*path, key))}"
            for key, v in data.items()
        ]
    else:
        rows = [_laid_out(value, depth + 1, path) for value in data]
    left, right = "{}" if isinstance(data, dict) else "[]"
    return f"{left}\n{indent}" + f",\n{indent}".join(rows) + f"\n{indent[:-2]}{right}"
