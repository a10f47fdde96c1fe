"""Keep the scale of attention as it was trained, where the network's code computes it from the
size of a head that the cut changes.

Code that divides by √d has d' in its place afterwards, so that all products come out √(d/d') times
as large and the softmax too sharp. The queries' weights take up the inverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.heads import Head, HeadProduct, head_products
from niwaki.graph.operators import NotLinearError, is_attention
from niwaki.methods.heads.rows import with_rows


@dataclass(frozen=True)
class Number:
    """A number that the smaller network's code computes anew: an argument of an operator."""

    position: int
    slot: int
    before: float
    after: float


def with_trained_scale(
    graph: Graph,
    plan: Plan,
    numbers: Iterable[Number] = (),
    settled: frozenset[int] = frozenset(),
) -> tuple[Graph, frozenset[int]]:
    """The graph of a copy whose queries make up for scales that the cut changes, and the operators
    whose numbers are made up for.

    Args:
        numbers: what the smaller network's code computes from counts.
        settled: operators that were made up for before.
    """
    table = {(each.position, each.slot): each for each in numbers if each.position not in settled}
    heads: list[tuple[Head, int, torch.Tensor]] = []
    new = set(settled)
    for name in plan.kept:
        try:
            products = head_products(graph, name)
        except NotLinearError:
            continue
        counts = graph[name].width, len(plan.kept[name])
        grown = [_grown(graph, product, table, counts, settled) for product in products]
        factors = {round(factor, 12) for factor, _ in grown}
        if len(factors) != 1 or factors == {1.0} or grown[0][0] <= 0:
            continue
        axes = {piece.tensor: piece.axis for piece in graph[name].slices}
        eye = torch.eye(counts[0], dtype=torch.float64, device="cpu") / grown[0][0]
        queries = dict.fromkeys(pair.query for product in products for pair in product.pairs)
        heads += [(head, axes[head.weight], eye) for head in queries]
        new |= {position for _, places in grown for position in places}
    return (with_rows(graph, heads) if heads else graph), frozenset(new)


def _grown(
    graph: Graph,
    product: HeadProduct,
    numbers: Mapping[tuple[int, int], Number],
    counts: tuple[int, int],
    settled: frozenset[int],
) -> tuple[float, list[int]]:
    """How many times as large the products come out, and where that happens."""
    factor, places = 1.0, []
    for each in product.factors:
        number = numbers.get((each.position, each.slot))
        if number is not None:
            ratio = number.after / number.before
            factor *= 1 / ratio if each.divides else ratio
            places.append(each.position)
    op = graph.inference.tape.ops[product.position]
    if is_attention(op) and op["scale"] is None and product.position not in settled:
        before, after = counts
        factor *= (before / after) ** 0.5
        places.append(product.position)
    return factor, places
