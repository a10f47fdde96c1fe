"""What an axis is made of: channel inference as type inference.

Every axis of every tensor is a *term*: a variable (channels that nothing is known of yet), a
`Product` of terms in row-major order (a flatten: C ⊗ h ⊗ w; attention: heads ⊗ head_dim; a grouped
convolution: groups ⊗ channels a group) or a `Concat` of terms (cat, split, zero padding of
    channels). Operators say which axes are the same channels, `unify`
learns from it, and what cannot be the same, or must keep its size, is frozen with the reason. What
stays a free variable is a set of channels that may shrink. Terms never hold indices, so a model of
any width costs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from niwaki.graph.reasons import EMPTY, SIZE_ONE, Reason


class Var:
    """Channels of one kind. Unification may bind it to another term, and may freeze it."""

    __slots__ = ("bound", "frozen", "size")

    def __init__(self, size: int, frozen: Reason | None = None) -> None:
        self.size = size
        self.frozen = frozen
        self.bound: Term | None = None


@dataclass(frozen=True, eq=False)
class Product:
    """Row-major product: position = ((i₀·n₁ + i₁)·n₂ + i₂)…; made by `product` only."""

    factors: tuple[Term, ...]

    @cached_property
    def size(self) -> int:
        return prod(factor.size for factor in self.factors)


@dataclass(frozen=True, eq=False)
class Concat:
    """Parts one behind the other; made by `concat` only."""

    parts: tuple[Term, ...]

    @cached_property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Term = Var | Product | Concat


def product(*terms: Term) -> Term:
    """The product of terms, flat and without factors of size one."""
    factors: list[Term] = []
    for term in map(resolve, terms):
        factors += term.factors if isinstance(term, Product) else [term]
    rest = [factor for factor in factors if factor.size != 1]
    if not rest:
        return factors[0] if factors else Var(1, SIZE_ONE)
    return rest[0] if len(rest) == 1 else Product(tuple(rest))


def concat(*terms: Term) -> Term:
    """The concatenation of terms, flat and without empty parts."""
    parts: list[Term] = []
    for term in map(resolve, terms):
        parts += term.parts if isinstance(term, Concat) else [term]
    rest = [part for part in parts if part.size]
    if not rest:
        return Var(0, EMPTY)
    return rest[0] if len(rest) == 1 else Concat(tuple(rest))


def resolve(term: Term) -> Term:
    """The term with everything put in that its variables have been bound to."""
    if type(term) is Var and term.bound is None:
        return term
    bound: list[Var] = []  # step by step: a residual network binds a thousand in a chain
    while isinstance(term, Var) and term.bound is not None:
        bound.append(term)
        term = term.bound
    if not isinstance(term, Var):
        old = term.factors if isinstance(term, Product) else term.parts
        if any(type(child) is not Var or child.bound is not None for child in old):
            term = _flattened(term)
    for var in bound:
        var.bound = term
    return term


def _flattened(term: Product | Concat) -> Term:
    """The same with everything put in. What is put in stays in, so that it is done but once: of a
    thousand concatenations one upon the other each would else go through all before it.
    """
    if isinstance(term, Product):
        whole, name = product(*term.factors), "factors"
    else:
        whole, name = concat(*term.parts), "parts"
    if type(whole) is not type(term):
        return whole
    object.__setattr__(term, name, getattr(whole, name))
    return term


def leaves(term: Term) -> Iterator[Var]:
    """The unbound variables of a term, in order, repeated where they occur more than once."""
    term = resolve(term)
    if isinstance(term, Var):
        yield term
        return
    for child in term.factors if isinstance(term, Product) else term.parts:
        if type(child) is Var and child.bound is None:
            yield child
        else:
            yield from leaves(child)


def freeze(term: Term, reason: Reason) -> None:
    """Nothing in this term may change its size; the first reason given stays."""
    for var in leaves(term):
        var.frozen = var.frozen or reason


def unify(a: Term, b: Term, reason: Reason) -> None:
    """Learn that two axes hold the same channels, position by position.

    Args:
        reason: what to say of axes that turn out not to line up; they are frozen with it.
    """
    a, b = resolve(a), resolve(b)
    if a is b:
        return
    if a.size != b.size:
        freeze(a, reason)
        freeze(b, reason)
    elif isinstance(a, Var):
        _bind(a, b)
    elif isinstance(b, Var):
        _bind(b, a)
    elif isinstance(a, Concat) and isinstance(b, Concat):
        _unify_parts(a, b, reason)
    else:
        _unify_factors(a, b, reason)


def _bind(var: Var, term: Term) -> None:
    var.bound = term
    if var.frozen:
        freeze(term, var.frozen)


def _unify_parts(a: Concat, b: Concat, reason: Reason) -> None:
    """Cut both where either has a boundary, then unify piece by piece."""
    ends = sorted({*_boundaries(a.parts), *_boundaries(b.parts)})
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    for left, right in zip(cut(a, sizes, reason), cut(b, sizes, reason), strict=True):
        unify(left, right, reason)


def _boundaries(parts: Sequence[Term]) -> list[int]:
    ends, position = [], 0
    for part in parts:
        position += part.size
        ends.append(position)
    return ends


def _unify_factors(a: Term, b: Term, reason: Reason) -> None:
    """Split both into the coarsest common factors, then unify factor by factor."""
    left = list(a.factors) if isinstance(a, Product) else [a]
    right = list(b.factors) if isinstance(b, Product) else [b]
    while left and right:
        if left[0].size < right[0].size or (
            left[0].size == right[0].size and isinstance(right[0], Concat)
        ):
            left, right = right, left
        big, small = resolve(left.pop(0)), resolve(right.pop(0))
        if big.size == small.size and not (isinstance(big, Concat) and isinstance(small, Product)):
            unify(big, small, reason)
            continue
        if big.size == small.size:
            assert isinstance(small, Product)
            pieces = split(big, [factor.size for factor in small.factors], reason)
            if pieces is not None:
                left, right = [*pieces, *left], [*small.factors, *right]
                continue
        elif big.size % small.size == 0:
            pieces = split(big, [small.size, big.size // small.size], reason)
            if pieces is not None:
                left, right = [*pieces, *left], [small, *right]
                continue
        for term in (big, small, *left, *right):
            freeze(term, reason)
        return


def split(term: Term, sizes: Sequence[int], reason: Reason) -> list[Term] | None:
    """Take a term apart into row-major factors of the given sizes, or freeze it and return None
    where it has none.

    A concatenation has factors where every part has the trailing ones: [q|k|v] = 3 ⊗ n ties q, k
    and v together.
    """
    term = resolve(term)
    sizes = list(sizes)
    if len(sizes) == 1:
        return [term]
    if isinstance(term, Var):
        factors: list[Term] = [
            Var(size, term.frozen or (SIZE_ONE if size == 1 else None)) for size in sizes
        ]
        if not term.frozen:  # of what is frozen nothing more need be known
            term.bound = product(*factors)
        return factors
    if isinstance(term, Product):
        return _split_product(term, sizes, reason)
    tail = prod(sizes[1:])
    if any(part.size % tail for part in term.parts):
        freeze(term, reason)
        return None
    shared: Term = Var(tail)
    heads: list[Term] = []
    for part in term.parts:
        pieces = split(part, [part.size // tail, tail], reason)
        if pieces is None:
            freeze(term, reason)
            return None
        heads.append(pieces[0])
        unify(shared, pieces[1], reason)
    rest = split(shared, sizes[1:], reason)
    if rest is None:
        freeze(term, reason)
        return None
    return [concat(*heads), *rest]


def _split_product(term: Product, sizes: list[int], reason: Reason) -> list[Term] | None:
    factors, out = list(term.factors), []
    for size in sizes:
        part: list[Term] = []
        missing = size
        while missing > 1:
            first = resolve(factors.pop(0))
            if first.size > missing and first.size % missing == 0:
                pieces = split(first, [missing, first.size // missing], reason)
                if pieces is None:
                    break
                first = pieces[0]
                factors.insert(0, pieces[1])
            if missing % first.size:
                break
            part.append(first)
            missing //= first.size
        if missing > 1:
            freeze(term, reason)
            return None
        out.append(product(*part))
    return out


def cut(term: Term, sizes: Sequence[int], reason: Reason) -> list[Term]:
    """Take a term apart into consecutive parts of the given sizes; parts that cannot be had so are
    frozen.
    """
    term = resolve(term)
    sizes = list(sizes)
    if len(sizes) == 1:
        return [term]
    if isinstance(term, Var):
        parts: list[Term] = [Var(size, term.frozen) for size in sizes]
        if not term.frozen:
            term.bound = concat(*parts)
        return parts
    if isinstance(term, Product):
        head, tail = term.factors[0], product(*term.factors[1:])
        if not any(size % tail.size for size in sizes):
            heads = cut(head, [size // tail.size for size in sizes], reason)
            return [product(part, tail) for part in heads]
        freeze(term, reason)
        return [Var(size, reason) for size in sizes]
    return _cut_concat(term, sizes, reason)


def _cut_concat(term: Concat, sizes: list[int], reason: Reason) -> list[Term]:
    parts, out = list(term.parts), []
    for size in sizes:
        part: list[Term] = []
        missing = size
        while missing:
            first = resolve(parts.pop(0))
            if first.size > missing:
                first, rest = cut(first, [missing, first.size - missing], reason)
                parts.insert(0, rest)
            part.append(first)
            missing -= first.size
        out.append(concat(*part))
    return out


def crossed(term: Term) -> Iterator[tuple[Var, Var]]:
    """Pairs of variables, outer one first, that are different factors of one product: rows and
    columns of one axis.
    """
    term = resolve(term)
    if isinstance(term, Var):
        return
    children = term.factors if isinstance(term, Product) else term.parts
    for child in children:
        yield from crossed(child)
    if isinstance(term, Product):
        for place, outer in enumerate(children):
            for inner in children[place + 1 :]:
                yield from ((a, b) for a in leaves(outer) for b in leaves(inner))


def positions(term: Term, var: Var) -> Tensor:
    """Which unit of `var` each position of the axis belongs to: int64 (term.size,), -1 where to
    none.
    """
    term = resolve(term)
    if term is var:
        return torch.arange(var.size, device="cpu")
    if isinstance(term, Var):
        return torch.full((term.size,), -1, device="cpu")
    if isinstance(term, Concat):
        return torch.cat([positions(part, var) for part in term.parts])
    out = torch.full((1,), -1, device="cpu")
    for factor in term.factors:
        # a variable occurs in at most one factor (groups with more are frozen): the largest entry
        # is the one that is set
        out = torch.maximum(out[:, None], positions(factor, var)[None, :]).reshape(-1)
    return out


def kept_size(term: Term, kept: Mapping[Var, int]) -> int:
    """How many positions of the axis stay; of a variable that is not named, all do."""
    term = resolve(term)
    if isinstance(term, Var):
        return kept.get(term, term.size)
    if isinstance(term, Concat):
        return sum(kept_size(part, kept) for part in term.parts)
    return prod(kept_size(factor, kept) for factor in term.factors)


def keep_mask(term: Term, kept: Mapping[Var, Tensor]) -> Tensor:
    """Which positions of the axis stay, bool (term.size,), given a bool mask of the units of some
    variables.
    """
    term = resolve(term)
    if isinstance(term, Var):
        return kept[term] if term in kept else torch.ones(term.size, dtype=torch.bool, device="cpu")
    if isinstance(term, Concat):
        return torch.cat([keep_mask(part, kept) for part in term.parts])
    out = torch.ones(1, dtype=torch.bool, device="cpu")
    for factor in term.factors:
        out = (out[:, None] & keep_mask(factor, kept)[None, :]).reshape(-1)
    return out


def transform(
    term: Term, tensor: Tensor, axis: int, change: Callable[[Var, Tensor, int], Tensor]
) -> Tensor:
    """Apply a change of each variable's own axis to a tensor's axis that is made of them.

    Args:
        tensor: any shape, `tensor.shape[axis] == term.size`.
        change: (variable, tensor, axis) → tensor whose `axis` may have another size, all else
            equal.
    """
    term = resolve(term)
    if isinstance(term, Var):
        return change(term, tensor, axis)
    if isinstance(term, Concat):
        pieces = torch.split(tensor, [part.size for part in term.parts], axis)
        return torch.cat(
            [
                transform(part, piece, axis, change)
                for part, piece in zip(term.parts, pieces, strict=True)
            ],
            axis,
        )
    tensor = torch.unflatten(tensor, axis, [factor.size for factor in term.factors])
    for offset, factor in enumerate(term.factors):
        tensor = transform(factor, tensor, axis + offset, change)
    return tensor.flatten(axis, axis + len(term.factors) - 1)
