"""The moments of units where they are read, without any inputs: from the weights, the stored
statistics and a prior.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.methods.data_free.gaussian import Gaussian, Prior
from niwaki.methods.data_free.propagate import gaussians
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import Reader, readers


def derive(graph: Graph, groups: Iterable[str], prior: Prior) -> dict[str, dict[str, Moments]]:
    """Group → consumer weight → moments of the units where that weight reads them first.

    Where nothing is known of what is read (see niwaki.methods.data_free.propagate), the units are
    taken to be white.
    """
    where = readers(graph, groups)
    known = gaussians(
        graph, prior, {position: here[0].read.slot for position, here in where.items()}
    )
    found: dict[str, dict[str, Moments]] = {}
    for position, here in where.items():
        for reader in here:
            mean, covariance = _of_units(reader, known.get(position))
            found.setdefault(reader.group, {}).setdefault(
                reader.weight, Moments.stated(mean, covariance)
            )
    return found


def _of_units(reader: Reader, given: Gaussian | None) -> tuple[Tensor, Tensor]:
    """Mean (width,) and covariance (width, width) of the units, all their places on the axis taken
    together.
    """
    size = reader.read.whole.size
    if given is None or size % given.size:
        given = Gaussian.white(size)
    # an axis of channels ⊗ places: all places of a channel are alike
    columns = (reader.order // (size // given.size)).view(reader.width, -1).T
    columns = torch.unique(columns, dim=0)
    mean = torch.stack([given.mean[units] for units in columns])
    second = sum(
        (given.covariance[units][:, units] for units in columns),
        torch.zeros(reader.width, reader.width, device="cpu").double(),
    )
    second = second / len(columns) + mean.T @ mean / len(columns)
    centre = mean.mean(0)
    return centre, second - torch.outer(centre, centre)
