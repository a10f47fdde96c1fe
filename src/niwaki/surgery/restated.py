"""Operators that state sizes among their arguments, and how each is given those that are left.

A function of the table takes the sizes that are left and an operator, and returns the arguments
that it was given by place. Example: `view(x, [2, 12, 4])`, of which a cut leaves 7 of the 12
channels, becomes `view(x, [batch, 7, 4])`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from niwaki.graph.operators import Facts
from niwaki.running import Op
from niwaki.surgery.kept_sizes import KeptSizes


def _to_shape(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """view, expand and others: (x, sizes); sizes of what comes out."""
    name = next((name for name in ("size", "shape") if op.takes(name)), None)
    if name is None:  # view(x, dtype) states none
        return op.args
    return op.replaced({name: sizes.shape(op.result, new=".new_" in op.name)})


def _of_shape(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """zeros and others: (sizes)."""
    return op.replaced({"size": sizes.shape(op.result, new=True)})


def _parts(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """split by one size or by several: as many parts, of what is left of each."""
    parts = [sizes.size(sizes.terms(ref)[op["dim"]]) for ref in op.outputs if ref is not None]
    name = next(name for name in ("split_sizes", "split_size") if op.takes(name))
    return op.replaced({name: parts if isinstance(op[name], (list, tuple)) else parts[0]})


def _slice(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """slice: both ends move with what is left before them."""
    term = sizes.terms(op["self"])[op["dim"]]
    ends = {
        name: sizes.place(term, _from_start(op[name], term.size))
        for name in ("start", "end")
        if isinstance(op[name], int)
    }
    return op.replaced(ends)


def _select(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """select: the position moves with what is left before it."""
    term = sizes.terms(op["self"])[op["dim"]]
    return op.replaced({"index": sizes.place(term, _from_start(op["index"], term.size))})


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
    return op.replaced({"pad": pads})


def _layer_norm(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """native_layer_norm: it states the sizes of the axes that it normalises, the last ones."""
    axes = len(op["normalized_shape"])
    return op.replaced({"normalized_shape": sizes.shape(op["input"])[-axes:]})


def _group_norm(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """native_group_norm: it states its numbers of samples (N), channels (C) and groups."""
    batch, channels = sizes.shape(op["input"])[:2]
    groups = sizes.groups(op, op["group"])
    return op.replaced({"N": batch, "C": channels, "group": groups})


def _convolution(sizes: KeptSizes, op: Op) -> tuple[Any, ...]:
    """convolution: its number of groups."""
    return op.replaced({"groups": sizes.groups(op, op["groups"])})


Restate = Callable[[KeptSizes, Op], tuple[Any, ...]]
RESTATED: Facts[Restate] = Facts(
    "restated",
    "how its arguments state the sizes that are left; form='graph' asks",
    {
        **dict.fromkeys(
            (
                "view",
                "_unsafe_view",
                "reshape",
                "expand",
                "new_zeros",
                "new_empty",
                "new_full",
            ),
            _to_shape,
        ),
        **dict.fromkeys(("zeros", "ones", "empty", "full", "rand", "randn"), _of_shape),
        **dict.fromkeys(
            (
                "split",
                "split_with_sizes",
                "unsafe_split",
                "unsafe_split_with_sizes",
            ),
            _parts,
        ),
        "slice": _slice,
        "select": _select,
        "constant_pad_nd": _pad,
        "native_layer_norm": _layer_norm,
        "native_group_norm": _group_norm,
        "convolution": _convolution,
    },
)
