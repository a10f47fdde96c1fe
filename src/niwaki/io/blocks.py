"""blocks.json: which blocks the layers of a trimmed network hold, so that only these are in the
file of weights.

The BlockPlan of these layers by name, with two more tables: the shapes of their weights, and the
layers that multiply by a dense weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from niwaki.core.blocks import BlockPlan
from niwaki.core.errors import CheckpointError, NiwakiError, SettingError
from niwaki.io.blueprint import read_json
from niwaki.io.standalone import whole_weight
from niwaki.surgery import BlockSparse, with_blocks, without_blocks

BLOCKS = "blocks.json"
GROUPS = 2**20  # of one side of a layer; units may have left, so that there are more than indices
DENSEST = 2**30  # numbers in a dense weight that blocks are put into


def take_out(model: nn.Module) -> tuple[nn.Module, str | None]:
    """A copy of a network with ordinary layers, and the text of blocks.json; None where it has no
    layer of blocks.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BlockSparse)
    }
    if not layers:
        return model, None
    ordinary, blocks = without_blocks(model)
    data = json.loads(BlockPlan(blocks).to_json())
    data["shapes"] = {name: list(ordinary.get_parameter(f"{name}.weight").shape) for name in layers}
    data["dense"] = [name for name, module in layers.items() if module.dense]
    return ordinary, json.dumps(data) + "\n"


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the layers of blocks, by name."""
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BlockSparse)
    }
    return {f"{name}.weight": module.weight for name, module in layers.items()}


def opened(text: str, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a file with dense weights in the place of kept blocks.

    Raises:
        CheckpointError: the file does not hold the weights of these blocks.
    """
    plan, data = _read(text, where)
    dense = dict(tensors)
    for name, blocks in plan.items():
        try:
            shape = tuple(int(size) for size in data["shapes"][name])
            if (
                shape[:2] != (len(blocks.rows), len(blocks.columns))
                or not 0 < math.prod(shape) <= DENSEST
            ):
                raise CheckpointError(
                    f"{where}: the weight of {name} has another shape than its blocks"
                )
            if (blocks.out_axis, blocks.in_axis) != (0, 1):
                raise CheckpointError(
                    f"{where}: the rows of {name} must be its first axis and the columns its second"
                )
            dense[f"{name}.weight"] = whole_weight(
                tensors[f"{name}.weight"], vars(blocks), list(shape)
            )
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{where} does not fit the weights of {name}: {error}") from error
    return dense


def put_back(model: nn.Module, text: str, where: str) -> nn.Module:
    """The network with its layers of blocks again.

    Raises:
        CheckpointError: it has no such layers.
    """
    plan, data = _read(text, where)
    try:
        with_own = with_blocks(model, dict(plan))
        for name in data["dense"]:
            with_own.get_submodule(name).dense = True  # type: ignore[assignment]  # a layer of blocks
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where} is of another network: {error}") from error
    return with_own


def _read(text: str, where: str) -> tuple[BlockPlan, dict[str, Any]]:
    try:
        data: dict[str, Any] = read_json(text)
        plan = BlockPlan.from_json(text)
        sides = {
            f"{name}, {side}": getattr(plan[name], side)
            for name in plan
            for side in ("rows", "columns")
        }
        for name, groups in sides.items():
            if not all(type(group) is int and -1 <= group < GROUPS for group in groups):
                raise SettingError(f"the groups of {name} are not numbered from 0")
    except (NiwakiError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    return plan, data
