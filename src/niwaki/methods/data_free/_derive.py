"""The moments of units where they are read, without any inputs: from the weights, the stored
statistics and a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.methods.data_free.gaussian import Gaussian, bounds
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.data_free.propagate import walk
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import Reader, readers


@dataclass(frozen=True, eq=False)
class Part:
    """Moments of some consecutive units, which are correlated with no others.

    Attributes:
        start, stop: the units.
        mean, covariance: float64 (n,) and (n, n).
    """

    start: int
    stop: int
    mean: Tensor
    covariance: Tensor


AT_ONCE = 1 << 22  # covariances
Give = Callable[[str, str, list[Part]], None]


def derive(graph: Graph, groups: Iterable[str], prior: Prior) -> dict[str, dict[str, Moments]]:
    """Group → consumer weight → moments of the units where that weight reads them, all its calls
    taken together.

    Where nothing is known of what is read (see niwaki.methods.data_free.propagate), the units are
    taken to be white.
    """
    moments: dict[str, dict[str, Moments]] = {}

    def give(group: str, weight: str, parts: list[Part]) -> None:
        mean = torch.cat([part.mean for part in parts])
        whole: Tensor = torch.block_diag(*(part.covariance for part in parts))
        moments.setdefault(group, {})[weight] = Moments.stated(mean, whole)

    stream(graph, groups, prior, give)
    return moments


def stream(graph: Graph, groups: Iterable[str], prior: Prior, give: Give) -> None:
    """The same, given away consumer by consumer as soon as it is known: one is held at a time.

    Args:
        give: called with (group, consumer weight, moments in parts).
    """
    where = readers(graph, groups)
    calls: dict[tuple[str, str], int] = {}
    for here in where.values():
        for reader in here:
            calls[reader.group, reader.weight] = calls.get((reader.group, reader.weight), 0) + 1
    held: dict[tuple[str, str], list[list[Part]]] = {}

    def take(position: int, laid: Laid | None) -> None:
        for reader in where[position]:
            key = (reader.group, reader.weight)
            held.setdefault(key, []).append(_of_units(reader, laid))
            if len(held[key]) == calls[key]:
                give(*key, _together(held.pop(key)))

    walk(graph, prior, {position: here[0].read.slot for position, here in where.items()}, take)


def _together(calls: list[list[Part]]) -> list[Part]:
    """The moments of all calls of one weight, as of one sample."""
    if len(calls) == 1:
        return calls[0]
    return [_mixed(list(parts)) for parts in zip(*calls, strict=True)]


def _mixed(parts: list[Part]) -> Part:
    first = parts[0]
    if len(parts) == 1:
        return first
    means = torch.stack([part.mean for part in parts])
    within = torch.stack([part.covariance for part in parts]).mean(0)
    apart = means - means.mean(0)
    between = apart.T @ apart / len(parts)
    return Part(first.start, first.stop, means.mean(0), within + between)


def _of_units(reader: Reader, laid: Laid | None) -> list[Part]:
    """The units' moments, all their places on the axis taken together."""
    known, columns = _columns(reader, laid)
    return [_over(known, columns, start, stop) for start, stop in bounds(reader.width)]


def _over(known: Gaussian, columns: Tensor, start: int, stop: int) -> Part:
    """Some units' moments over all columns."""
    channels = columns[:, start:stop]
    count, width = channels.shape
    if count == 1 or len(known.blocks) > 1 or count * width**2 > AT_ONCE:
        return _mixed([_part(known, column, start, stop) for column in columns])
    means = known.mean[channels]
    apart = means - means.mean(0)
    within = known.blocks[0][channels[:, :, None], channels[:, None, :]].double().mean(0)
    return Part(start, stop, means.mean(0), within + apart.T @ apart / count)


def _part(known: Gaussian, column: Tensor, start: int, stop: int) -> Part:
    channels = column[start:stop]
    return Part(start, stop, known.mean[channels], known.between(channels).double())


def _columns(reader: Reader, laid: Laid | None) -> tuple[Gaussian, Tensor]:
    """The channel that each unit is, at each place of it on the axis: (places that differ,
    width).
    """
    size = reader.read.whole.size
    here = None if laid is None else laid.on(reader.read.axis, size)
    if laid is None or here is None:
        return Gaussian.white(size), _unique(reader, reader.order)
    return laid.of, _unique(reader, here[0][reader.order])


def _unique(reader: Reader, channels: Tensor) -> Tensor:
    columns: Tensor = torch.unique(channels.view(reader.width, -1).T, dim=0)
    return columns
