"""What a model is called with: its type, and a description of it as JSON, from which others of its
kind are made up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from niwaki.core.errors import TraceError

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]  # one, by place, or by keyword

LARGEST = 2**28  # numbers in one made-up tensor; a stranger may have written the description


def described(inputs: Inputs) -> Any:
    """Inputs as JSON: shapes, types and ranges of the tensors, from which `made_up` makes others of
    their kind.
    """
    if isinstance(inputs, Tensor):
        shape = {"tensor": list(inputs.shape), "dtype": str(inputs.dtype).removeprefix("torch.")}
        if inputs.is_floating_point() or inputs.is_complex() or not inputs.numel():
            return shape
        return {**shape, "low": int(inputs.min()), "high": int(inputs.max())}
    if isinstance(inputs, Mapping):
        return {"table": {str(key): described(value) for key, value in inputs.items()}}
    if isinstance(inputs, (tuple, list)):
        return {"tuple": [described(value) for value in inputs]}
    return {"value": inputs if isinstance(inputs, (bool, int, float, str)) else None}


def made_up(description: Any, *, batch: int | None = None, seed: int = 0) -> Any:
    """Noise of the described kind, the same for a seed.

    Args:
        batch: samples, where the tensors have as many along axis 0 as the first of them; as
            described without it.

    Raises:
        TraceError: the description is not what `described` gives.
    """
    generator = torch.Generator().manual_seed(seed)
    old = _first_batch(description)
    try:
        return _made_up(
            description, (old, batch) if batch is not None and old is not None else None, generator
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise TraceError(
            f"the description of the model's inputs cannot be read: {type(error).__name__}: {error}"
        ) from error


def _first_batch(description: Any) -> int | None:
    if not isinstance(description, dict):
        return None
    if isinstance(description.get("tensor"), list):
        return description["tensor"][0] if description["tensor"] else None
    nested = description.get("table", description.get("tuple"))
    values = (
        nested.values() if isinstance(nested, dict) else nested if isinstance(nested, list) else ()
    )
    sizes = (_first_batch(value) for value in values)
    return next((size for size in sizes if size is not None), None)


def _made_up(description: Any, batch: tuple[int, int] | None, generator: torch.Generator) -> Any:
    if "table" in description:
        return {
            key: _made_up(value, batch, generator) for key, value in description["table"].items()
        }
    if "tuple" in description:
        return tuple(_made_up(value, batch, generator) for value in description["tuple"])
    if "tensor" not in description:
        return description["value"]
    shape, dtype = list(description["tensor"]), getattr(torch, description["dtype"])
    if not isinstance(dtype, torch.dtype) or not all(
        type(size) is int and size >= 0 for size in shape
    ):
        raise ValueError("a tensor has sizes of at least 0 and a type of torch's")
    if batch is not None and shape and shape[0] == batch[0]:
        shape[0] = batch[1]
    if math.prod(shape) > LARGEST:
        raise ValueError(f"a tensor of {math.prod(shape):,} numbers")
    if "low" not in description:
        return torch.randn(shape, generator=generator, device="cpu").to(dtype)
    return torch.randint(
        description["low"], description["high"] + 1, shape, generator=generator, device="cpu"
    ).to(dtype)
