"""What element-wise functions, sums and products of branches make of Gaussian channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from niwaki.graph.operators.elementwise import RULES as ELEMENTWISE
from niwaki.graph.operators.elementwise import pointwise
from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid, averaged, matched
from niwaki.methods.data_free.state import Result, Rule, Walk
from niwaki.running import Op, Ref


def _pointwise(walk: Walk, op: Op) -> Result:
    """A function of one number, of Gaussians by Mehler's expansion."""
    laid = walk.operand(op)
    if laid is None or len(op.tensors) != 1:
        return None
    outputs = laid.of.mapped(lambda values: op.on(values.clone()))
    return None if outputs is None else replace(laid, of=outputs)


def _add(walk: Walk, op: Op, sign: float = 1.0) -> Result:
    """Two independent branches, or a branch and a parameter or number."""
    factor = sign * float(op["alpha"])
    a, b = walk.operand(op), walk.operand(op, "other")
    if a is not None and b is not None:
        both = matched(a, b)
        return None if both is None else replace(both[0], of=both[1].plus(both[2], factor))
    if a is None and b is not None:  # a constant, and a multiple of the branch
        number = torch.full((b.of.size,), factor, dtype=torch.float64, device="cpu")
        scaled = replace(b, of=b.of.scaled(number))
        return _with(walk, op, scaled, "self", lambda of, constant: of.shifted(constant))
    return _with(walk, op, a, "other", lambda of, constant: of.shifted(factor * constant))


def _mul(walk: Walk, op: Op) -> Result:
    """Two independent branches, or a branch and a parameter or number."""
    a, b = walk.operand(op), walk.operand(op, "other")
    if a is not None and b is not None:
        both = matched(a, b)
        if both is None:  # a gate that hangs on what is not tracked
            return a if a.of.size >= b.of.size else b
        return replace(both[0], of=both[1].times(both[2]))
    laid, constant = (b, "self") if a is None else (a, "other")
    return _with(walk, op, laid, constant, lambda of, constant: of.scaled(constant))


def _div(walk: Walk, op: Op) -> Result:
    """A branch divided by a number or a parameter."""
    laid = walk.operand(op)
    if walk.operand(op, "other") is not None or laid is None:
        return laid
    return _with(walk, op, laid, "other", lambda of, constant: of.scaled(1 / constant))


def _with(
    walk: Walk,
    op: Op,
    laid: Laid | None,
    name: str,
    change: Callable[[Gaussian, Tensor], Gaussian],
) -> Result:
    """A branch changed by a number or a parameter; by what is not known it stays as it is."""
    if laid is None:
        return laid
    other = op[name]
    tensor = walk.tensor(other) if isinstance(other, Ref) else torch.as_tensor(other, device="cpu")
    constant = None if tensor is None else averaged(laid, tensor)
    return laid if constant is None else replace(laid, of=change(laid.of, constant))


def _cat(walk: Walk, op: Op) -> Result:
    """Channels one behind the other, each part independent; tokens one behind the other are all
    alike.
    """
    refs, shape = op["tensors"], walk.shape(op.result)
    axis = op["dim"] % len(shape)
    parts = [walk.known.get(ref) for ref in refs]
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if all(part.channels.shape[axis] == 1 and part.of.size > 1 for part in known):
        return known[0]
    sizes = [walk.shape(ref)[axis] for ref in refs]
    places = [
        None if part is None else part.on(axis, n) for part, n in zip(parts, sizes, strict=True)
    ]
    if all(part is not None and part.of is known[0].of for part in parts) and all(places):
        labels = torch.cat([here[0] for here in places if here is not None])  # parts of one value
        return Laid.along(known[0].of.pick(labels), axis, shape)
    pieces = []
    for part, here, size in zip(parts, places, sizes, strict=True):
        white = part is None or here is None
        pieces.append(Gaussian.white(size) if white else part.of.pick(here[0]))  # type: ignore[union-attr,index]  # as `white` says
    return Laid.along(Gaussian.joined(pieces), axis, shape)


FUNCTIONS: dict[str, Rule] = {
    name: _pointwise
    for name, rule in ELEMENTWISE.items()
    if isinstance(rule, partial)
    and rule.func is pointwise
    and rule.keywords["kind"].value in ("homogeneous", "other")
}

JOINS: dict[str, Rule] = {
    **FUNCTIONS,
    "pow": _pointwise,
    "add": _add,
    "sub": partial(_add, sign=-1.0),
    "mul": _mul,
    "div": _div,
    "cat": _cat,
}
