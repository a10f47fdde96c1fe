"""Sums of products of sizes, worked out once and asked for many counts of units: what a network
costs while a budget is divided.

Example: a convolution of a units into b, with nine weights each, and one of b units into ten makes
9·a·b + 90·b; equal products are added up before any count is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import prod

from niwaki.graph.terms import Term, Var, kept_size, leaves, resolve


class SumOfProducts:
    """Products of the sizes of terms, added up.

    Args:
        products: the terms of each.
        constant: added to them.
        varying: the variables whose counts will be named; all others keep their sizes.
    """

    def __init__(
        self, products: Iterable[Iterable[Term]], varying: Collection[Var], constant: int = 0
    ) -> None:
        self._constant = constant
        self._factors: dict[tuple[Term, ...], int] = {}
        for terms in products:
            known = [resolve(term) for term in terms]
            free = [term for term in known if any(var in varying for var in leaves(term))]
            free.sort(key=id)
            size = prod(term.size for term in known if term not in free)
            self._factors[tuple(free)] = self._factors.get(tuple(free), 0) + size

    def __call__(self, counts: Mapping[Var, int]) -> int:
        """The sum with so many units of these variables left."""
        sizes: dict[Term, int] = {}
        total = self._constant
        for terms, number in self._factors.items():
            for term in terms:
                size = sizes.get(term)
                if size is None:
                    if isinstance(term, Var):
                        size = counts.get(term, term.size)
                    else:
                        size = kept_size(term, counts)
                    sizes[term] = size
                number *= size
            total += number
        return total
