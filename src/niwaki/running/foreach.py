"""Operators on lists of tensors (`torch._foreach_lerp_`), taken apart into ones on one tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

_PREFIX = "_foreach_"
_NAMED_VALUE = ("addcmul", "addcdiv")  # their last number goes by name in the form for one tensor


def single_form(func: OpOverload) -> OpOverloadPacket | None:
    """The operator on one tensor; None of operators that are on one tensor anyway, and of those
    that have no such form.

    >>> single_form(torch.ops.aten._foreach_mul_.Scalar) is torch.ops.aten.mul_
    True
    """
    name = func.overloadpacket.__name__
    if not name.startswith(_PREFIX):
        return None
    word = name.removeprefix(_PREFIX)
    form: OpOverloadPacket | None = getattr(
        torch.ops.aten, "linalg_vector_norm" if word == "norm" else word, None
    )
    return form


def one_by_one(
    func: OpOverload, single: OpOverloadPacket, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any] | None:
    """Run it tensor by tensor: lists give one entry each time, anything else is given to all.

    Returns:
        the results, or None of what writes in place, as the operator itself does.
    """

    def entry(value: Any, place: int) -> Any:
        return value[place] if isinstance(value, (list, tuple)) else value

    results = []
    for place in range(len(args[0])):
        given = [entry(value, place) for value in args]
        named = {name: entry(value, place) for name, value in kwargs.items()}
        if single.__name__.startswith(_NAMED_VALUE) and len(given) == 4:
            named["value"] = given.pop()
        results.append(single(*given, **named))
    return None if not func._schema.returns else results
