"""Products with a weight as a table: what one output sums over is one row, so that a weight can be
fitted anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from niwaki.graph.channel_graph import Graph
from niwaki.graph.inference import Norm
from niwaki.graph.offsets import turned_over
from niwaki.graph.operators import WEIGHTED, Weighted, is_function
from niwaki.graph.places import Places
from niwaki.running import Op, Ref


@dataclass(frozen=True)
class Product:
    """One linear layer, or one convolution of images, that alone uses its weight.

    Attributes:
        position: the operator on the tape; of a layer that is called many times, the first.
        calls: all of them.
        weight, bias: parameters by name.
        turned: whether the weight is (in, out).
    """

    position: int
    op: Op
    weight: str
    bias: str | None
    turned: bool
    calls: tuple[int, ...] = ()

    @property
    def is_convolution(self) -> bool:
        return _weighted(self.op).image

    @property
    def slot(self) -> int:
        """Which argument the rows are made of."""
        return self.op.place(_weighted(self.op).rows)

    def rows(self, args: tuple[Any, ...], places: Places) -> Tensor:
        """What every output is a sum over, at some places of a map: (rows, in)."""
        operand: Tensor = args[self.slot]
        if not self.is_convolution:
            return operand.reshape(-1, operand.shape[-1])
        kernel = tuple(args[self.op.place("weight")].shape[2:])
        steps = (tuple(self.op[name]) for name in ("dilation", "padding", "stride"))
        columns = F.unfold(operand, kernel, *steps)  # (samples, in, places)
        return places(columns).movedim(1, 2).flatten(0, 1)

    def results(self, result: Tensor, places: Places) -> Tensor:
        """What came out, row by row as `rows`: (rows, out)."""
        if not self.is_convolution:
            return result.reshape(-1, result.shape[-1])
        return places(result.flatten(2)).movedim(1, 2).flatten(0, 1)

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight as (out, in)."""
        return weight.T if self.turned else weight.flatten(1)

    def write(self, weight: Tensor, matrix: Tensor) -> None:
        """Put (out, in) into a weight."""
        with torch.no_grad():
            weight.copy_(matrix.T if self.turned else matrix.view(weight.shape))


def products(graph: Graph) -> list[Product]:
    """All linear layers and ungrouped 2-d convolutions whose weight no other operator uses, each
    with all its calls, in the order of the tape.
    """
    tape = graph.inference.tape
    uses = Counter(
        tape.parameters[ref] for op in tape.ops for ref in op.tensors if ref in tape.parameters
    )
    calls_of: dict[str, list[Product]] = {}
    for position, op in enumerate(tape.ops):
        call = _product(graph, position, op)
        if call is not None:
            calls_of.setdefault(call.weight, []).append(call)
    layers = [
        replace(calls[0], calls=tuple(call.position for call in calls))
        for calls in calls_of.values()
    ]
    return [
        layer
        for layer in layers
        if uses[layer.weight] == len(layer.calls)
        and all(_alike(layer, call) for call in calls_of[layer.weight])
        and (not layer.bias or uses[layer.bias] == len(layer.calls))
    ]


def _alike(layer: Product, call: Product) -> bool:
    """Whether two calls of a weight are of one kind."""
    return (layer.bias, layer.turned, layer.op.func) == (call.bias, call.turned, call.op.func)


def _weighted(op: Op) -> Weighted:
    weighted = WEIGHTED.get(op)
    assert weighted is not None, op.name
    return weighted


def _product(graph: Graph, position: int, op: Op) -> Product | None:
    known = graph.inference.tape.parameters
    weighted = WEIGHTED.get(op)
    if weighted is None or op.kwargs:
        return None
    plain = not weighted.image or (not op["transposed"] and op["groups"] == 1)
    if not plain or (weighted.image and len(op["stride"]) != 2):
        return None
    rows, matrix, added = weighted.operands(op)
    if not isinstance(rows, Ref) or not isinstance(matrix, Ref):
        return None
    weight, turned = known.get(matrix), weighted.turned
    if weight is None and turned:
        weight, turned = turned_over(graph, matrix), False
    bias = known.get(added) if isinstance(added, Ref) else None
    if weight is None or (added is not None and bias is None):
        return None
    return Product(position, op, weight, bias, turned)


@dataclass(frozen=True)
class Tail:
    """What alone reads a product's results: perhaps a normalisation by stored statistics, then a
    function of one number.

    Attributes:
        op: the function's operator.
    """

    norm: Norm | None
    op: Op

    def __call__(self, results: Tensor) -> Tensor:
        """The function of results that are normalised already; it may write into them."""
        args = [results if isinstance(arg, Ref) else arg for arg in self.op.args]
        value: Tensor = self.op.func(*args, **self.op.kwargs)
        return value


def tail(graph: Graph, product: Product) -> Tail | None:
    """The non-linearity behind a product; None where there is none, or where others read the
    results before it too.
    """
    tape, ref = graph.inference.tape, product.op.result
    norms = {norm.position: norm for norm in graph.inference.norms}
    norm: Norm | None = None
    while True:
        users = [
            position
            for position, op in enumerate(tape.ops[product.position + 1 :], product.position + 1)
            if ref in op.tensors
        ]
        first = tape.ops[users[0]] if users else product.op
        in_place = ref in first.outputs  # those after it read what it made of them
        if not users or ((len(users) > 1 or ref in tape.outputs) and not in_place):
            return None
        if is_function(first):
            return Tail(norm, first)
        if (
            norm is not None
            or users[0] not in norms
            or not _lines_up(graph, product, norms[users[0]])
        ):
            return None
        norm, ref = norms[users[0]], first.result


def _lines_up(graph: Graph, product: Product, norm: Norm) -> bool:
    """Whether a normalisation has one entry for each output."""
    return (
        len(graph.state[norm.mean]) == graph.state[product.weight].shape[1 if product.turned else 0]
    )
