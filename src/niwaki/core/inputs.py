"""What a model is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]  # one, by place, or by keyword
