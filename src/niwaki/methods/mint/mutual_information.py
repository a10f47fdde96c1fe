"""Conditional geometric mutual information: how much a child still owes to a parent when everything
else is known.

Estimated from samples, as in MINT (Ganesh, Corso, Yasaei Sekeh, ICPR 2020, arXiv 2003.08472,
section III), for X = child, Y = parent, Z = the rest of the parents:

1. Of N rows, a third is kept as a sample of the joint law of (X, Y, Z). Of the others, one half A
is made a sample of the
   law in which X and Y are independent given Z: each row of A takes its Y from that row of the
   other half B whose Z is nearest to its own.
2. A minimal spanning tree is laid over both samples together. R of its edges join the one to the
other.
3. I = max(0, 1 - R·(p + q)/(2·p·q)), p and q the sizes of the samples (Friedman and Rafsky's count:
where the two laws are
   one, R is about 2·p·q/(p + q)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.methods.mint.exact_distances import Factors, Grid, on_grid, squared, tiles
from niwaki.methods.mint.resampling import Base, Draw, Resampling, Source
from niwaki.methods.mint.spanning_tree import DistanceTable

MEMORY = 2**29  # bytes of distances that are held at once
LEAST = 6  # rows: two in each part of the split


def conditional_mutual_information(
    child: Tensor,
    parent: Tensor,
    rest: Tensor,
    *,
    generator: torch.Generator | None = None,
    resampling: Resampling = "nearest",
    memory: int = MEMORY,
) -> Tensor:
    """I(child; parent | rest) of every estimate in a batch, by nearest-neighbour resampling and a
    spanning tree.

    Source: MINT, arXiv 2003.08472, section III. The value is in [0, 1]: 0 for independence, towards
    1 for certainty.

    For independent variables it is not quite 0. For Gaussians of 8 + 8 + 56 columns and N = 2500 it
    is 0.064 in the mean of 20 seeds, nearly all of it because nearest rows in a wide Z are few: 40
    % of the rows of B are ever asked, the busiest 27 times, and rows of A that share a Y lie nearer
    to one another than a true sample would, so that fewer edges cross. With `resampling="once"`
    every row of B gives its Y at most once, and 0.017 is left, of which clipping at zero is 0.010.

    Args:
        child, parent, rest: activations (…, samples, features) of any real dtype, on any device.
            Row i of all three comes from the same input. Leading axes are a batch of estimates and
            are broadcast: (groups, 1, samples, features) against (1, parents, samples, features)
                gives all pairs, whose distances are computed once. `rest` may have no
            feature.
        generator: of the split of the rows and the order among ties; without one, that of seed 0.
        resampling: "nearest" is the paper's; "once" draws no row of B twice.
        memory: bytes of distances that may be held at once; estimates are done in chunks that fit,
            at least one at a time.

    Returns:
        float64 (…), on the device of `child`. The same for the same seed, batch or no batch.

    Raises:
        SettingError: shapes that do not go together, too few samples to split in three, or
            activations that are not finite.
    """
    _refuse_misfits(child, parent, rest)
    shape_m = _broadcast(parent.shape[:-2], rest.shape[:-2])
    shape = _broadcast(child.shape[:-2], shape_m)
    device = _device(child)
    draw = Draw.of(child.shape[-2], generator, device)
    children = [on_grid([item], device) for item in _items(child, child.shape[:-2])]
    parents = [
        on_grid([y, z], device)
        for y, z in zip(_items(parent, shape_m), _items(rest, shape_m), strict=True)
    ]
    sources = [Source(draw, grid, 0, resampling) for grid in parents]
    pairs = torch.stack(
        [
            torch.arange(len(children)).reshape(child.shape[:-2]).expand(shape).reshape(-1),
            torch.arange(len(parents)).reshape(shape_m).expand(shape).reshape(-1),
        ],
        1,
    )
    return _estimates(draw, children, sources, pairs, memory).reshape(shape).to(child.device)


def dependencies(
    children: Sequence[Tensor],
    parents: Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
    resampling: Resampling = "nearest",
    memory: int = MEMORY,
) -> Tensor:
    """I(child group; parent group | the other parent groups) for all pairs of groups of two layers.

    The same numbers as `conditional_mutual_information` up to the grid that activations are rounded
    to, in less time: the distances over all parents are computed once, and each estimate only
        changes its own group's share of them.

    Args:
        children, parents: activations (samples, features) a group, on one device; groups may differ
            in width.
        generator, resampling, memory: see `conditional_mutual_information`.

    Returns:
        float64 (children, parents), on the activations' device.

    Raises:
        SettingError: no group, groups of different numbers of samples, too few samples, or
            activations that are not finite.
    """
    if not children or not parents:
        raise SettingError("dependencies needs at least one group of children and one of parents")
    for group in (*children, *parents):
        _refuse_misfits(children[0], group, group)
    device = _device(children[0])
    draw = Draw.of(len(children[0]), generator, device)
    grid = on_grid(list(parents), device)
    base = Base.of(draw, grid, memory) if len(parents) > 2 else None
    sources = [Source(draw, grid, place, resampling, base) for place in range(len(parents))]
    pairs = torch.cartesian_prod(torch.arange(len(children)), torch.arange(len(parents)))
    values = _estimates(
        draw, [on_grid([child], device) for child in children], sources, pairs, memory
    )
    return values.reshape(len(children), len(parents)).to(children[0].device)


def _refuse_misfits(child: Tensor, parent: Tensor, rest: Tensor) -> None:
    parts = {"child": child, "parent": parent, "rest": rest}
    shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts.items())
    if (
        any(part.ndim < 2 for part in parts.values())
        or len({part.shape[-2] for part in parts.values()}) > 1
    ):
        raise SettingError(
            f"activations are (…, samples, features) with the same samples in all; got {shapes}"
        )
    try:
        _broadcast(*(part.shape[:-2] for part in parts.values()))
    except RuntimeError as error:
        raise SettingError(
            f"the leading axes of child, parent and rest do not go together: {shapes}"
        ) from error
    for name, part in parts.items():
        if part.is_complex() or not bool(torch.isfinite(part).all()):
            raise SettingError(
                f"the activations of {name} hold values that are not finite real numbers"
            )
    if child.shape[-2] < LEAST:
        raise SettingError(
            f"{child.shape[-2]} samples cannot be split in three; give at least {LEAST}, better "
            "hundreds"
        )


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))


def _items(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A batch of any shape as a list: (batch, samples, features)."""
    return tensor.expand(*shape, *tensor.shape[-2:]).reshape(math.prod(shape), *tensor.shape[-2:])


def _device(tensor: Tensor) -> torch.device:
    """Where distances are computed: exact ones need float64, which Apple's GPUs do not have."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def _estimates(
    draw: Draw, children: list[Grid], sources: list[Source], pairs: Tensor, memory: int
) -> Tensor:
    """All estimates, in chunks whose distances fit into the memory."""
    if not len(pairs):
        return torch.zeros(0, dtype=torch.float64)
    points = len(draw.points)
    alone = bool((pairs == pairs[:, :1]).all())  # no distances are shared: their sums can be stored
    room = max(1, memory // DistanceTable.bytes(1, points))
    coarsest = min(
        [*(grid.exponent for grid in children), *(source.exponent for source in sources)]
    )
    values = torch.zeros(len(pairs), dtype=torch.float64)
    step = room if alone else max(1, room // 2)
    chunks = _Chunks(draw, children, sources, coarsest)
    for low in range(0, len(sources), step):
        for start in range(0, len(children), step):
            inside = _within(pairs[:, 1], low, step) & _within(pairs[:, 0], start, step)
            if bool(inside.any()):
                values[inside] = chunks.run(pairs[inside], alone=alone)
    return values


def _within(index: Tensor, start: int, size: int) -> Tensor:
    return (index >= start) & (index < start + size)


@dataclass(frozen=True, eq=False)
class _Chunks:
    """Estimates that are done at once, chunk by chunk."""

    draw: Draw
    children: list[Grid]
    sources: list[Source]
    # the grid on which the largest distances are; others are brought to its scale, by a power of
    # two
    coarsest: int

    def run(self, pairs: Tensor, *, alone: bool) -> Tensor:
        """The value of every pair."""
        draw, points = self.draw, len(self.draw.points)
        used = [torch.unique(pairs[:, column], return_inverse=True) for column in (0, 1)]
        first = 0 if alone else len(used[0][0])
        table = DistanceTable(first + len(used[1][0]), points, len(pairs), draw.points.device)
        for place, index in enumerate(used[0][0].tolist()):
            child = self.children[index].parts[0][draw.points]
            self._write(table[place], squared(child, child), None, self.children[index].exponent)
        for place, index in enumerate(used[1][0].tolist()):
            factors, base = self.sources[index].distances()
            self._write(
                table[first + place], factors, base, self.sources[index].exponent, add=alone
            )
        picks = used[1][1][:, None] if alone else torch.stack([used[0][1], first + used[1][1]], 1)
        crossing = (
            table.cross_edges(picks.to(draw.points.device), draw.labels, draw.coins).cpu().double()
        )
        q = len(draw.receivers)
        p = points - q
        return (1 - crossing * (p + q) / (2 * p * q)).clamp(min=0)

    def _write(
        self,
        target: Tensor,
        factors: Factors,
        base: Tensor | None,
        exponent: int,
        *,
        add: bool = False,
    ) -> None:
        """Round symmetric distances to float32: the tiles on and above the diagonal, and their
        mirror images.
        """
        (left, right), scale = factors, 2.0 ** max(2 * (self.coarsest - exponent), -200)
        for rows in tiles(left, right):
            place = target[rows, rows.start :]
            above = base[rows, rows.start :] if base is not None else left.new_zeros(1)
            distances = torch.addmm(
                above, left[rows], right[rows.start :].T, beta=scale, alpha=scale
            )
            place.copy_(place + distances.float() if add else distances)
            target[rows.stop :, rows] = place[:, rows.stop - rows.start :].T
