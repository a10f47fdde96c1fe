"""Operators that state sizes among their arguments, and how each is given those that are left.

A function of the table takes the sizes that are left and an operator, and returns the arguments
that it was given by place. Example: `view(x, [2, 12, 4])`, of which a cut leaves 7 of the 12
channels, becomes `view(x, [batch, 7, 4])`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from niwaki.running import Op
from niwaki.surgery.kept_sizes import KeptSizes


def _to_shape(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """view, expand and others: (x, sizes); sizes of what comes out."""
    return (op.args[0], sizes.shape(op.result, new=".new_" in op.name), *op.args[2:])


def _of_shape(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """zeros and others: (sizes)."""
    return (sizes.shape(op.result, new=True), *op.args[1:])


def _parts(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """split by one size or by several: as many parts, of what is left of each."""
    parts = [sizes.size(sizes.terms(ref)[op["dim"]]) for ref in op.outputs if ref is not None]
    return (op.args[0], parts if isinstance(op.args[1], (list, tuple)) else parts[0], *op.args[2:])


def _slice(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """slice: both ends move with what is left before them."""
    term = sizes.terms(op["self"])[op["dim"]]
    ends = {
        name: sizes.place(term, _from_start(op[name], term.size))
        for name in ("start", "end")
        if isinstance(op[name], int)
    }
    return _changed(op, ends)


def _select(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """select: the position moves with what is left before it."""
    term = sizes.terms(op["self"])[op["dim"]]
    return _changed(op, {"index": sizes.place(term, _from_start(op["index"], term.size))})


def _from_start(position: int, size: int) -> int:
    return position + size if position < 0 else position


def _pad(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """constant_pad_nd: what is left of each pad; they are listed from the last axis on, two an
    axis.
    """
    pads, out = list(op["pad"]), sizes.terms(op.result)
    for place in range(0, len(pads), 2):
        term = out[len(out) - 1 - place // 2]
        before, after = pads[place], pads[place + 1]
        if before > 0:
            pads[place] = sizes.place(term, before)
        if after > 0:
            pads[place + 1] = sizes.size(term).number - sizes.place(term, term.size - after)
    return _changed(op, {"pad": pads})


def _layer_norm(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """native_layer_norm: it states the sizes of the axes that it normalises, the last ones."""
    axes = len(op["normalized_shape"])
    return _changed(op, {"normalized_shape": sizes.shape(op["input"])[-axes:]})


def _group_norm(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """native_group_norm: it states its numbers of samples (N), channels (C) and groups."""
    batch, channels = sizes.shape(op["input"])[:2]
    groups = sizes.groups(op, op["group"])
    return _changed(op, {"N": batch, "C": channels, "group": groups})


def _convolution(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """convolution: its number of groups."""
    return _changed(op, {"groups": sizes.groups(op, op["groups"])})


def _changed(op: Op, changes: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments that an operator was given by place, some of them exchanged by name."""
    names = [argument.name for argument in op.func._schema.arguments]
    return tuple(changes.get(name, value) for name, value in zip(names, op.args, strict=False))


Restate = Callable[[KeptSizes, Op], tuple[Any, ...]]
RESTATED: dict[str, Restate] = {
    **dict.fromkeys(
        (
            "aten.view",
            "aten._unsafe_view",
            "aten.reshape",
            "aten.expand",
            "aten.new_zeros",
            "aten.new_empty",
            "aten.new_full",
        ),
        _to_shape,
    ),
    **dict.fromkeys(
        ("aten.zeros", "aten.ones", "aten.empty", "aten.full", "aten.rand", "aten.randn"), _of_shape
    ),
    **dict.fromkeys(
        (
            "aten.split",
            "aten.split_with_sizes",
            "aten.unsafe_split",
            "aten.unsafe_split_with_sizes",
        ),
        _parts,
    ),
    "aten.slice": _slice,
    "aten.select": _select,
    "aten.constant_pad_nd": _pad,
    "aten.native_layer_norm": _layer_norm,
    "aten.native_group_norm": _group_norm,
    "aten.convolution": _convolution,
}
