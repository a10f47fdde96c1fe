"""Queries and keys: which rows of which weights meet in a product of two activations, head by head.

The product q·k sums over the dimensions of a head. Where nothing but views and single factors lies
between a projection and the product, q and k are linear in the projections' rows: any change of
basis B of a head's keys is undone by the inverse on its queries, (B⁻¹q)·(Bᵀk) = q·k, so that the
dimensions may be made such that those that go matter least (niwaki.methods.heads).

Rows are found by sending their numbers through the recorded views, so that fused and separate
projections, shared keys (grouped queries) and any order of axes come out alike.

>>> import niwaki, torch
>>> class Attention(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.q, self.k, self.o = (torch.nn.Linear(4, 4) for _ in range(3))
...     def forward(self, x):  # two heads of two dimensions
...         q, k = (layer(x).unflatten(-1, (2, 2)).transpose(1, 2) for layer in (self.q, self.k))
...         return self.o(((q @ k.mT).softmax(-1) @ x.unsqueeze(1)).sum(1))
>>> graph = niwaki.trace(Attention(), torch.randn(1, 3, 4))
>>> pair, _ = head_products(graph, "q#2")[0].pairs
>>> pair.query.weight, pair.query.rows, pair.key.weight, pair.key.rows
('q.weight', (0, 1), 'k.weight', (0, 1))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Group
from niwaki.graph.groups import layer_of
from niwaki.graph.inference import Inference, Kind, Read
from niwaki.graph.operators.projections import (
    Factor,
    NotLinearError,
    Source,
    factor_of,
    source_of,
    where,
)
from niwaki.graph.operators.weighted import is_attention
from niwaki.running import Op, Ref


@dataclass(frozen=True)
class Head:
    """What computes one head's queries or keys: entry j of `rows` is the row of the weight (and of
    the bias) that writes unit j of the group.
    """

    layer: str
    weight: str
    bias: str | None
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """A head's queries and keys; several heads may share one key."""

    query: Head
    key: Head


@dataclass(frozen=True)
class HeadProduct:
    """One product q·k.

    Attributes:
        position: the operator on the tape.
        factors: operators that multiply or divide q, k or their product by one number, with the
            argument that the number is and whether it divides.
        softmax: whether a softmax over the keys follows, to which a constant a query is nothing.
        makers: operators that compute the projections, by the name of their weight.
    """

    position: int
    pairs: tuple[Pair, ...]
    factors: tuple[Factor, ...]
    softmax: bool
    makers: tuple[tuple[str, int], ...]


def head_products(graph: Graph, name: str) -> tuple[HeadProduct, ...]:
    """The products that read a group as the dimensions of heads; none where no product of two
    activations does.

    Raises:
        NotLinearError: other than views lie between a projection and the product (rotary positions,
            a normalisation), or the group is not one head's dimensions there.
    """
    state, group = graph.inference, graph[name]
    reads = [read for read in graph.reads_of.get(graph.variables[name], ()) if read.weight is None]
    products = [read for read in reads if _multiplies_activations(state, read)]
    if not products:
        return ()
    found = [_product(state, group, read.position) for read in _by_position(products)]
    taken = {factor.position for product in found for factor in product.factors}
    of_products = {product.position for product in found}
    for read in reads:
        if read.position not in of_products | taken:
            op = state.tape.ops[read.position]
            raise NotLinearError(f"{where(op)} reads single dimensions too")
    return tuple(found)


def of_heads(graph: Graph, name: str) -> bool:
    """Whether a group is the dimensions of queries and keys: a product of two activations reads
    it.
    """
    reads = graph.reads_of.get(graph.variables[name], ())
    return any(
        read.weight is None and _multiplies_activations(graph.inference, read) for read in reads
    )


def _by_position(reads: list[Read]) -> list[Read]:
    return list({read.position: read for read in reads}.values())


def _multiplies_activations(state: Inference, read: Read) -> bool:
    """Whether a read is a product of two activations over their last axes (of `bmm`, the second
    one's last but one).
    """
    op = state.tape.ops[read.position]
    if op.name not in ("aten.bmm", "aten.baddbmm") and not is_attention(op):
        return False
    operands = _operands(op)
    return op.args[read.slot] in operands and not any(ref in state.origins for ref in operands)


def _operands(op: Op) -> tuple[Any, Any]:
    """Queries and keys of a product."""
    first = 1 if op.name == "aten.baddbmm" else 0
    return op.args[first], op.args[first + 1]


def _product(state: Inference, group: Group, position: int) -> HeadProduct:
    op = state.tape.ops[position]
    sources = [source_of(state, ref) for ref in _operands(op)]
    queries, keys = (
        _rows(state, source, turned=side == 1 and not is_attention(op))
        for side, source in enumerate(sources)
    )
    if len(queries) != len(keys):  # grouped queries: of the attention kernels alone
        keys = _shared(state, op, keys)
    behind, softmax = _behind(state, op)
    width = torch.arange(group.width, device="cpu")
    pairs = []
    for rows in torch.cat([queries, keys], 1).unique(dim=0):
        ends = rows.split([queries.shape[1], keys.shape[1]])
        heads = [_head(state, group, *both, width) for both in zip(sources, ends, strict=True)]
        pairs.append(Pair(*heads))
    makers = tuple((_name(state, source.weight), source.position) for source in sources)
    factors = (*sources[0].factors, *sources[1].factors, *behind)
    return HeadProduct(position, tuple(pairs), factors, softmax, makers)


def _head(state: Inference, group: Group, source: Source, rows: Tensor, width: Tensor) -> Head:
    """A head's rows in the order of the group's units."""
    weight = _name(state, source.weight)
    units = [piece.units for piece in group.slices if piece.tensor == weight]
    if not state.origins[source.weight].pure or not units:
        raise NotLinearError(f"{weight} is computed from other tensors")
    written = units[0][rows]
    if len(units) > 1 or not torch.equal(written.sort().values, width):
        raise NotLinearError(f"a head of {weight} is not one whole of the group's units")
    bias = None if source.bias is None else state.tape.parameters.get(source.bias)
    if source.bias is not None and bias is None:
        raise NotLinearError(f"what is added to {weight}'s product is no parameter")
    ordered = rows[written.argsort()].tolist()
    return Head(layer_of(weight), weight, bias, tuple(ordered))


def _name(state: Inference, weight: Ref) -> str:
    if weight not in state.origins:
        raise NotLinearError("a projection's weight is no parameter")
    return state.origins[weight].names[0]


def _rows(state: Inference, source: Source, turned: bool) -> Tensor:
    """The projection's row that each dimension of an operand is: int64 (batch of heads, d).

    Args:
        turned: whether the operand is (…, d, places), as the second one of a matrix product is.
    """
    out = state.shape(source.op.result)
    numbers = torch.arange(1, 1 + int(torch.tensor(out).prod()), device="cpu").view(out)
    value: Any = numbers
    for op, which in source.views:
        try:
            value = op.on(value)
        except (RuntimeError, TypeError) as error:
            raise NotLinearError(f"{where(op)} does not move plain numbers") from error
        value = value[which] if isinstance(value, (tuple, list)) else value
    value = value.mT if turned else value
    value = value.flatten(0, -3) - 1
    rows = value % out[-1]
    places = value.div(out[-1], rounding_mode="floor")
    alike = bool((rows == rows[:, :1]).all()) and bool((places == places[..., :1]).all())
    if not alike or bool((value < 0).any()):
        raise NotLinearError(
            f"what {where(source.op)} puts out is not laid out as dimensions of heads"
        )
    first: Tensor = rows[:, 0]
    return first


def _shared(state: Inference, op: Op, keys: Tensor) -> Tensor:
    """The keys of every query's head, where several share one."""
    query, key = (state.shape(ref) for ref in _operands(op))
    if len(query) < 4 or query[-3] % key[-3]:  # (batch, heads, places, d)
        raise NotLinearError(f"{where(op)} pairs its heads in a way of its own")
    return keys.repeat_interleave(query[-3] // key[-3], 0)


def _behind(state: Inference, op: Op) -> tuple[list[Factor], bool]:
    """Single factors of the product up to a softmax over its last axis, and whether there is
    one.
    """
    if is_attention(op):
        return [], True
    factors: list[Factor] = []
    ref, ops = op.result, state.tape.ops
    while True:
        places = state.tape.readers.get(ref, ())
        if len(places) != 1:
            return factors, False
        user = ops[places[0]]
        factor = factor_of(user, places[0])
        if user.name == "aten._softmax":
            return factors, user["dim"] in (-1, len(state.shape(user.first)) - 1)
        if factor is not None:
            factors.append(factor)
        elif user.name not in _PASSING and state.kinds[places[0]] is not Kind.VIEW:
            return factors, False
        ref = user.result


_PASSING = ("aten.add", "aten.add_", "aten.masked_fill", "aten.masked_fill_", "aten.where")
