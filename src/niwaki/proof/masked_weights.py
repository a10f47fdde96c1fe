"""The original at full size, masked in its weights: for detectors and the like, which find another
number of boxes once they are masked, so that their recorded operators hold for the original alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from niwaki.core.mixing import Mixing
from niwaki.graph import Role
from niwaki.methods.base.cut import Cut
from niwaki.running import duplicate, named_state


def masked_copy(cut: Cut) -> nn.Module | None:
    """The original at full size with the units masked in the weights that read them; None where
    weights cannot say it.
    """
    if cut.plan.blocks or cut.plan.branches:
        return None
    graph, model = cut.graph, duplicate(cut.graph.model)
    state = named_state(model)
    for name, units in cut.plan.kept.items():
        group = graph[name]
        mixing = cut.mixings.get(name)
        if (
            group.fold_obstacle is not None
            or group.normalised is not None
            or (mixing is not None and mixing.shifted)
        ):
            return None
        kept = torch.as_tensor(units, device="cpu")
        for piece in group.of_role(Role.CONSUMER):
            matrix = (
                Mixing.selecting(group.width, units).matrix
                if mixing is None
                else mixing.at(piece.tensor).matrix
            )
            spread = torch.zeros(group.width, group.width, dtype=torch.float64, device="cpu")
            spread[:, kept] = matrix.cpu()
            _mask(state[piece.tensor], piece.axis, piece.units, spread)
    return model


def _mask(tensor: Tensor, axis: int, units: Tensor, spread: Tensor) -> None:
    """Multiply a weight by (width × width) over its units, at every place that a unit has in the
    axis alike.
    """
    order = torch.argsort(units, stable=True)
    order = order[units[order] >= 0].to(tensor.device)
    columns = tensor.detach().movedim(axis, 0)
    width = len(spread)
    rows = columns[order].reshape(width, -1).double()
    mixed = (spread.T.to(tensor.device) @ rows).reshape(len(order), *columns.shape[1:])
    changed = columns.clone()
    changed[order] = mixed.to(tensor.dtype)
    tensor.data = changed.movedim(0, axis).contiguous()
