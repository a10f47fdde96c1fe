"""Terms against index arrays: whatever views, cuts and joins an axis goes through, a unit stays
where its indices went.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import niwaki
from niwaki.graph import Freeze, Reason
from niwaki.graph.reasons import SIZE_ONE
from niwaki.graph.terms import (
    Concat,
    Term,
    Var,
    concat,
    cut,
    freeze,
    keep_mask,
    leaves,
    positions,
    product,
    resolve,
    split,
    transform,
    unify,
)

WHY, LATER = Reason(Freeze.OPERATOR, "why"), Reason(Freeze.OPERATOR, "later")
INPUT = Reason(Freeze.INPUT)
SIZES = [1, 2, 3, 4, 6, 8, 12]


Place = tuple[
    int, ...
]  # the channels that one position of an axis is made of, each by a number of its own


@dataclass(frozen=True)
class Axis:
    """An axis as a term, and as what its positions are made of."""

    term: Term
    places: list[Place]


class World:
    """Axes that are built up at random, with the truth of them kept position by position."""

    def __init__(self) -> None:
        self.known: list[tuple[Var, Axis]] = []

    def var(self, size: int, frozen: bool = False) -> Axis:
        start = sum(len(axis.places) for _, axis in self.known)
        var = Var(size, SIZE_ONE if size == 1 else WHY if frozen else None)
        axis = Axis(var, [(start + unit,) for unit in range(size)])
        self.known.append((var, axis))
        return axis


@st.composite
def axes(draw: st.DrawFn, world: World, depth: int = 3) -> Axis:
    """Products and concatenations of variables, some of which occur twice."""
    kind = draw(st.sampled_from(["var", "again", "product", "concat"])) if depth else "var"
    if kind == "again" and world.known:
        return draw(st.sampled_from([axis for _, axis in world.known]))
    if kind in ("var", "again"):
        return world.var(draw(st.sampled_from(SIZES)), draw(st.integers(0, 5)) == 0)
    left, right = draw(axes(world, depth - 1)), draw(axes(world, depth - 1))
    assume(len(left.places) * len(right.places) <= 400)
    if kind == "concat":
        return Axis(concat(left.term, right.term), left.places + right.places)
    assume(
        not {i for place in left.places for i in place}
        & {i for place in right.places for i in place}
    )
    return Axis(product(left.term, right.term), [a + b for a in left.places for b in right.places])


@given(st.data())
def test_positions_are_those_that_are_made_of_the_unit(data: st.DataObject) -> None:
    world = World()
    axis = data.draw(axes(world))
    assert axis.term.size == len(axis.places)
    for var, own in world.known:
        units = {place[0]: unit for unit, place in enumerate(own.places)}
        wanted = [next((units[i] for i in place if i in units), -1) for place in axis.places]
        if var.size > 1:  # an axis of size one is dropped from products
            assert positions(axis.term, var).tolist() == wanted


@given(st.data())
def test_split_keeps_every_position_in_its_place(data: st.DataObject) -> None:
    """Row-major factors, put together again, are the axis; where there are none, the axis is frozen
    as a whole.
    """
    axis = data.draw(axes(World()))
    sizes = data.draw(factorisations(axis.term.size))
    pieces = split(axis.term, sizes, WHY)
    if pieces is None:
        assert all(var.frozen for var in leaves(axis.term))
        return
    assert [piece.size for piece in pieces] == sizes
    free = [var for var in dict.fromkeys(leaves(axis.term)) if not var.frozen]
    joined = product(*pieces)
    assert joined.size == axis.term.size
    for var in free:
        assert torch.equal(positions(joined, var), positions(axis.term, var))


@st.composite
def factorisations(draw: st.DrawFn, size: int) -> list[int]:
    factors: list[int] = []
    rest = size
    while rest > 1 and len(factors) < 4:
        factors.append(draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0])))
        rest //= factors[-1]
    return [*factors, rest] if rest > 1 or not factors else factors


@given(st.data())
def test_cut_keeps_every_position_in_its_place(data: st.DataObject) -> None:
    axis = data.draw(axes(World()))
    marks = sorted(
        data.draw(st.sets(st.integers(1, max(1, axis.term.size - 1)), max_size=3))
        - {axis.term.size}
    )
    sizes = [b - a for a, b in zip([0, *marks], [*marks, axis.term.size], strict=True)]
    parts = cut(axis.term, sizes, WHY)
    assert [part.size for part in parts] == sizes
    joined = concat(*parts)
    for var in dict.fromkeys(leaves(axis.term)):
        if not var.frozen and var.size > 1:
            assert torch.equal(positions(joined, var), positions(axis.term, var))


@given(st.data())
def test_unified_axes_are_equal_position_by_position_or_frozen(data: st.DataObject) -> None:
    world = World()
    one = data.draw(axes(world))
    other = data.draw(axes(world))
    if one.term.size != other.term.size:
        # cut or repeat the smaller one until they fit
        other = Axis(concat(*([other.term] * (one.term.size // other.term.size))), [])
        assume(other.term.size == one.term.size)
    unify(one.term, other.term, WHY)
    for var in {*leaves(one.term), *leaves(other.term)}:
        if not var.frozen and var.size > 1:
            assert torch.equal(positions(one.term, var), positions(other.term, var))


@given(st.data())
def test_keeping_units_keeps_their_indices(data: st.DataObject) -> None:
    """keep_mask and transform against the plain question: which positions touch a unit that
    goes?
    """
    axis = data.draw(axes(World()))
    free = [var for var in dict.fromkeys(leaves(axis.term)) if var.size > 1]
    kept = {
        var: torch.tensor(data.draw(st.lists(st.booleans(), min_size=var.size, max_size=var.size)))
        for var in free
    }
    for mask in kept.values():
        mask[0] = True
    # by brute force: a position stays when for every variable in it the unit stays
    wanted = torch.ones(axis.term.size, dtype=torch.bool)
    for var, mask in kept.items():
        owner = positions(axis.term, var)
        for position, unit in enumerate(owner.tolist()):
            if unit >= 0 and not mask[unit]:
                wanted[position] = False
    assert torch.equal(keep_mask(axis.term, kept), wanted)

    tensor = torch.arange(axis.term.size * 6).reshape(2, axis.term.size, 3)
    found = transform(
        axis.term,
        tensor,
        1,
        lambda var, part, at: (
            part.index_select(at, kept[var].nonzero().squeeze(1)) if var in kept else part
        ),
    )
    assert torch.equal(found, tensor[:, wanted])


def test_factors_that_do_not_meet_freeze_and_end() -> None:
    """3 ⊗ 4 is no 4 ⊗ 3; looking for one must come to an end."""
    for old, new in (([3, 4], [4, 3]), ([2, 3], [3, 2]), ([3, 4], [2, 6]), ([4, 9], [6, 6])):
        factors = [Var(size) for size in old]
        assert split(product(*factors), new, WHY) is None
        assert [factor.frozen for factor in factors] == [WHY, WHY]


def test_factors_that_meet_inside_one_another_are_split() -> None:
    a, b = Var(4), Var(6)
    pieces = split(product(a, b), [8, 3], WHY)
    assert pieces is not None
    assert [piece.size for piece in pieces] == [8, 3]
    assert [var.size for var in leaves(b)] == [2, 3]
    assert not any(var.frozen for var in (*leaves(a), *leaves(b)))


def test_a_concatenation_has_factors_only_where_every_part_has() -> None:
    q, k, v = Var(12), Var(6), Var(6)
    pieces = split(concat(q, k, v), [4, 6], WHY)
    assert pieces is not None
    assert isinstance(resolve(pieces[0]), Concat)
    inner = resolve(pieces[1])
    assert {resolve(list(leaves(t))[-1]) for t in (q, k, v)} == {inner}
    a, b = Var(4), Var(8)
    assert split(concat(a, b), [2, 6], WHY) is None
    assert (a.frozen, b.frozen) == (WHY, WHY)


def test_what_is_frozen_freezes_what_it_is_unified_with() -> None:
    a, b = Var(6), Var(6, INPUT)
    unify(a, b, WHY)
    assert [var.frozen for var in leaves(a)] == [INPUT]
    c, d = Var(6), product(Var(2), Var(3))
    unify(c, d, WHY)
    freeze(c, LATER)
    assert [var.frozen for var in leaves(d)] == [LATER, LATER]


# whole sequences, through the tracer: views, permutations, concatenations and splits of one tensor


class Moves(torch.nn.Module):
    """Moves of the features between two linear layers, as plain PyTorch code."""

    def __init__(self, moves: list[tuple[str, int]], width: int, out: int) -> None:
        super().__init__()
        self.moves, self.inp, self.out = moves, torch.nn.Linear(3, width), torch.nn.Linear(out, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(moved(torch.relu(self.inp(x)), self.moves).flatten(1))
        return out


def moved(x: Tensor, moves: list[tuple[str, int]]) -> Tensor:
    for name, number in moves:
        if name == "view":
            x = x.flatten(1)
            x = x.view(len(x), number, -1) if x.shape[1] % number == 0 else x
        elif name == "transpose" and x.ndim == 3:
            x = x.transpose(1, 2)
        elif name == "double":
            x = torch.cat([x, x], number % (x.ndim - 1) + 1)
        elif name == "halves" and x.shape[-1] % 2 == 0:
            left, right = x.chunk(2, -1)
            x = left if number % 2 else torch.cat([right, left], -1)
        elif name == "stack":
            x = torch.stack([x, x], 1).flatten(1)
        elif name == "pad":
            x = torch.nn.functional.pad(x, (number % 3, 1))
        elif name == "slice":
            x = x[..., : max(2, x.shape[-1] - number % 3)]
    return x


MOVES = st.tuples(
    st.sampled_from(["view", "transpose", "double", "halves", "stack", "pad", "slice"]),
    st.integers(2, 6),
)


@given(st.lists(MOVES, max_size=5), st.sampled_from([4, 6, 8, 12]), st.data())
def test_a_unit_is_where_its_numbers_went(
    moves: list[tuple[str, int]], width: int, data: st.DataObject
) -> None:
    """Every unit of the first layer, followed through the model by index, arrives in the columns
    that its group names.
    """
    ids = moved(torch.arange(1, width + 1).float()[None].expand(2, -1), moves).flatten(1)[0].long()
    assume(2 <= len(ids) <= 400)
    model = Moves(moves, width, len(ids))
    graph = niwaki.trace(model, torch.randn(2, 3))
    for group in graph.groups:
        written = {
            piece.tensor: piece.units
            for piece in group.slices
            if piece.axis == 0 and piece.tensor == "inp.weight"
        }
        read = {
            piece.tensor: piece.units
            for piece in group.slices
            if piece.axis == 1 and piece.tensor == "out.weight"
        }
        if not written:
            continue  # padding: no layer computes it
        owner, columns = written["inp.weight"], read.get("out.weight", torch.full((len(ids),), -1))
        for column, number in enumerate(ids.tolist()):
            if number:
                assert columns[column] == owner[number - 1], (moves, column)
    names = data.draw(st.permutations([group.name for group in graph.groups]))
    for name in names:
        assert graph[name].width > 1


def test_an_unknown_group_names_its_neighbours() -> None:
    graph = niwaki.trace(
        torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 2)), torch.randn(1, 2)
    )
    with pytest.raises(niwaki.NiwakiError, match="unknown group '1'; known: 0"):
        graph["1"]
