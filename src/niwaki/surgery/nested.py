"""torch's encoder of padded sequences packs them (nested tensors) only for an even number of heads.

It decides so when it is made; an encoder that is left with an odd number must not pack any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

Table = dict[str, dict[str, Any]]


def with_plain_tensors(model: nn.Module, sizes: Table) -> Table:
    """The sizes of a smaller model, and `use_nested_tensor` off in encoders of an odd number of
    heads.
    """
    off = {
        name: {**sizes.get(name, {}), "use_nested_tensor": 0}
        for name, module in model.named_modules()
        if isinstance(module, nn.TransformerEncoder)
        and getattr(module, "use_nested_tensor", False)
        and any(heads % 2 for heads in _heads(name, module, sizes))
    }
    return {**sizes, **off}


def _heads(
    name: str, encoder: nn.TransformerEncoder, sizes: Mapping[str, Mapping[str, Any]]
) -> list[int]:
    """How many heads each layer is left with."""
    prefix = f"{name}." if name else ""
    return [
        sizes.get(f"{prefix}{path}", {}).get("num_heads", module.num_heads)
        for path, module in encoder.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
