"""What views, pooling and reductions make of Gaussian channels: the channels are what they were,
and stand elsewhere.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.state import Result, Rule, Walk
from niwaki.running import Op


def keep(walk: Walk, op: Op) -> Result:
    """Pooling, resampling, dropout: the channels are what they were, where they can be."""
    return walk.operand(op)


def _view(walk: Walk, op: Op) -> Result:
    """Values are moved, none is changed."""
    laid, out = walk.operand(op), op.outputs[0]
    if laid is None or out is None:
        return None
    return laid.viewed(walk.shape(op.first), op.on)


def _reshape(walk: Walk, op: Op) -> Result:
    """Values stay in their order, sample by sample."""
    laid, out = walk.operand(op), op.result
    if laid is None:
        return None
    old, new = walk.shape(op.first), walk.shape(out)
    if old and new and old[0] == new[0]:  # samples stay samples: the labels of one are enough
        old, new = (1, *old[1:]), (1, *new[1:])
    return laid.viewed(old, lambda labels: labels.reshape(new))


def _parts(walk: Walk, op: Op) -> Result:
    """Views that give several values."""
    laid = walk.operand(op)
    if laid is None:
        return None
    shape = walk.shape(op.first)

    def part(labels: Tensor, number: int) -> Tensor:
        value: Tensor = op.on(labels)[number]
        return value

    return [laid.viewed(shape, partial(part, number=number)) for number in range(len(op.outputs))]


def _reduced(walk: Walk, op: Op) -> Result:
    """A mean, sum or maximum over axes: the channels are what they were."""
    laid, out = walk.operand(op), op.outputs[0]
    dims = op["dim"] if op.takes("dim") else None
    if laid is None or out is None or dims is None or dims == []:
        return None
    dims = [dims] if isinstance(dims, int) else list(dims)
    dims = [dim % laid.channels.ndim for dim in dims]
    if any(laid.channels.shape[dim] > 1 for dim in dims):
        return None
    if len(walk.shape(out)) == laid.channels.ndim:
        return laid
    channels = laid.channels.squeeze(tuple(dims))
    return Laid(
        laid.of, channels, torch.zeros([1] * channels.ndim, dtype=torch.int64, device="cpu")
    )


def _pad(walk: Walk, op: Op) -> Result:
    """Zeros around; those beside the channels are channels that never change."""
    laid = walk.operand(op)
    if laid is None:
        return None
    pads = op["pad"]
    ndim = laid.channels.ndim
    padded = [ndim - 1 - i // 2 for i, size in enumerate(pads) if size]
    if all(laid.channels.shape[axis] == 1 for axis in padded):
        return laid
    still = float(op["value"] or 0)
    none = torch.zeros(1, 1, dtype=torch.float64, device="cpu")
    joined = Gaussian.joined([laid.of, Gaussian.of(none[0] + still, none)])
    full = laid.channels.expand(walk.shape(op.first))
    channels = torch.nn.functional.pad(full, list(pads), value=laid.of.size)
    wide = Laid(joined, channels, _nowhere(ndim))
    return wide.viewed(tuple(channels.shape), lambda labels: labels)


def _nowhere(ndim: int) -> Tensor:
    """Places of a value that is no map."""
    return torch.zeros([1] * ndim, dtype=torch.int64, device="cpu")


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten"), _reshape
    ),
    **dict.fromkeys(
        (
            "permute",
            "transpose",
            "t",
            "swapaxes",
            "squeeze",
            "unsqueeze",
            "expand",
            "repeat",
            "select",
            "slice",
            "flip",
            "roll",
            "index_select",
            "pixel_shuffle",
            "pixel_unshuffle",
        ),
        _view,
    ),
    **dict.fromkeys(("unbind", "split", "split_with_sizes", "unsafe_split", "chunk"), _parts),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    "constant_pad_nd": _pad,
}
