"""Blocks of weights: a weight's rows and columns in groups, and which (row group, column group)
blocks stay. Plain data, JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from niwaki.core.errors import SettingError

SCHEMA = 1


@dataclass(frozen=True)
class LayerBlocks:
    """A weight in blocks, and which of them stay.

    Attributes:
        rows, columns: the group of every index of the weight's written and read axis; -1 for
            indices that always stay.
        kept: (row group, column group) of the blocks that stay, in order.
        out_axis, in_axis: these axes.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    kept: tuple[tuple[int, int], ...]
    out_axis: int = 0
    in_axis: int = 1

    def mask(self, weight: Tensor) -> Tensor:
        """Which weights stay: bool, of the weight's shape, on its device."""
        table = torch.zeros(
            max(self.rows) + 2, max(self.columns) + 2, dtype=torch.bool
        )  # the last ones are for -1
        table[-1], table[:, -1] = True, True
        for row, column in self.kept:
            table[row, column] = True
        mask = table[torch.tensor(self.rows)][:, torch.tensor(self.columns)]
        shape = [1] * weight.ndim
        shape[self.out_axis], shape[self.in_axis] = len(self.rows), len(self.columns)
        mask = mask if self.out_axis < self.in_axis else mask.T
        return mask.reshape(shape).expand(weight.shape).to(weight.device)


@dataclass(frozen=True)
class BlockPlan(Mapping[str, LayerBlocks]):
    """Weight's name → its blocks: plain data, JSON."""

    layers: Mapping[str, LayerBlocks] = field(default_factory=dict)

    def __getitem__(self, name: str) -> LayerBlocks:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def as_data(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            name: {**vars(layer), "kept": [list(pair) for pair in layer.kept]}
            for name, layer in self.layers.items()
        }

    def to_json(self) -> str:
        """The plan as text, one layer a line."""
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in self.as_data().items()
        )
        return f'{{\n  "schema": {SCHEMA},\n  "layers": {{\n{lines}\n  }}\n}}\n'

    @classmethod
    def from_data(cls, data: Any) -> BlockPlan:
        """From what JSON holds.

        Raises:
            SettingError: no table, or not blocks.
        """
        if not isinstance(data, dict):
            raise SettingError("the blocks of a plan are a table: weight → its blocks")
        return cls({name: _read_layer(name, entry) for name, entry in data.items()})

    @classmethod
    def from_json(cls, text: str) -> BlockPlan:
        """Read a plan back.

        Raises:
            SettingError: not JSON, of another schema, or not blocks.
        """
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise SettingError(f"the plan of blocks is not JSON: {error}") from error
        if (
            not isinstance(data, dict)
            or data.get("schema") != SCHEMA
            or not isinstance(data.get("layers"), dict)
        ):
            raise SettingError(f"the plan of blocks has no schema {SCHEMA} or no table 'layers'")
        return cls.from_data(data["layers"])


def _read_layer(name: str, entry: Any) -> LayerBlocks:
    try:
        rows, columns = (tuple(int(group) for group in entry[key]) for key in ("rows", "columns"))
        kept = tuple((int(row), int(column)) for row, column in entry["kept"])
        layer = LayerBlocks(rows, columns, kept, int(entry["out_axis"]), int(entry["in_axis"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(f"the blocks of {name!r} cannot be read: {error!r}") from error
    if (
        not rows
        or not columns
        or any(not (0 <= r <= max(rows) and 0 <= c <= max(columns)) for r, c in kept)
    ):
        raise SettingError(f"the blocks of {name!r} are not blocks of its rows and columns")
    return layer
