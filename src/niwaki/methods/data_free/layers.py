"""What layers make of Gaussian channels: products with weights, normalisations, attention,
tables.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from niwaki.graph.operators import ATTENTION, BATCH_NORMS, WEIGHTED
from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.mehler import TINY
from niwaki.methods.data_free.products import through, through_groups
from niwaki.methods.data_free.state import Result, Rule, Walk
from niwaki.running import Op

ENTRIES = 8192  # of an embedding's table that are looked at, evenly spread


def _product(walk: Walk, op: Op) -> Result:
    """Rows · weight (out, in) + bias."""
    weighted = WEIGHTED.get(op)
    assert weighted is not None
    _, matrix, added = weighted.operands(op)
    weight, bias = walk.tensor(matrix), walk.tensor(added)
    if weight is not None and weighted.turned and weight.ndim == 2:
        weight = weight.T
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return None
    inputs, order, space = _places(walk.operand(op, weighted.rows), weight.shape[1])
    table = weight[:, order].reshape(len(weight), inputs.size, -1)
    correlation = walk.prior.correlation(space)
    outputs = through(inputs, table, correlation, _vector(bias, len(weight)))
    return Laid.along(outputs, -1, walk.shape(op.result))


def _places(laid: Laid | None, size: int) -> tuple[Gaussian, Tensor, tuple[int, ...]]:
    """What stands along the last axis of an operand: its channels, the order of the axis' entries
    by channel and place, and the map of the places.
    """
    every = torch.arange(size, device="cpu")
    here = None if laid is None else laid.on(-1, size)
    if laid is None or here is None:
        return Gaussian.white(size), every, (1,)
    channels, numbers = torch.unique(here[0], return_inverse=True)
    places = size // len(channels)
    counts = torch.bincount(numbers, minlength=len(channels))
    if places == 1 or not bool((counts == places).all()):
        return laid.of.pick(here[0]), every, (1,)
    mapped = math.prod(laid.space) == places
    order = (numbers * size + (here[1] if mapped else 0)).argsort(stable=True)
    on_map = mapped and _all_alike(here[1][order].view(-1, places))
    return laid.of.pick(channels), order, laid.space if on_map else (places,)


def _all_alike(places: Tensor) -> bool:
    """Whether every channel has all places of the map, one entry each."""
    return bool((places == torch.arange(places.shape[1], device="cpu")).all())


def _vector(bias: Tensor | None, size: int) -> Tensor | None:
    return bias.double() if bias is not None and tuple(bias.shape) == (size,) else None


def _convolution(walk: Walk, op: Op) -> Result:
    """Channels by the weight's places, neighbouring ones alike."""
    weight, bias, groups = walk.tensor(op["weight"]), walk.tensor(op["bias"]), op["groups"]
    if weight is None:
        return None
    if op["transposed"]:  # (in, out/groups, …)
        weight = torch.unflatten(weight, 0, [groups, -1]).transpose(1, 2).flatten(0, 1)
    kernel = tuple(weight.shape[2:])
    correlation = walk.prior.correlation(kernel, tuple(op["dilation"]))
    inputs, constant = walk.along(op, 1), _vector(bias, len(weight))
    if groups == 1:
        outputs = through(inputs, weight.flatten(2), correlation, constant)
    else:
        outputs = through_groups(inputs, weight.flatten(2), groups, correlation, constant)
    return Laid.along(outputs, 1, walk.shape(op.result))


def _stored_norm(walk: Walk, op: Op) -> Result:
    """Mean and scale as the stored statistics and the affine map state them; correlations as they
    come in.
    """
    norm = walk.norms.get(walk.position)
    if norm is None:
        return None
    inputs, state = walk.along(op, 1), walk.graph.state
    var = state[norm.var].detach().double().cpu()
    scale = state[norm.scale].detach().double().cpu() if norm.scale else torch.ones_like(var)
    shift = state[norm.shift].detach().double().cpu() if norm.shift else torch.zeros_like(var)
    inside = inputs.variance.clamp(min=TINY).sqrt()
    outside = scale * (var / (var + norm.eps)).sqrt()
    outputs = Gaussian(shift, inputs.scaled(outside / inside).blocks)
    return Laid.along(outputs, 1, walk.shape(op.result))


def _layer_norm(walk: Walk, op: Op) -> Result:
    """The mean over the channels goes; what is left is divided by its expected size."""
    if walk.operand(op) is None or len(op["normalized_shape"]) != 1:
        return None
    inputs = walk.along(op, -1)
    mean = inputs.mean - inputs.mean.mean()
    centred = Gaussian(mean, _centred(inputs))
    size = (mean.square() + centred.variance).mean().clamp(min=TINY).sqrt()
    outputs = _affine(walk, op, centred.scaled(torch.ones_like(mean) / size))
    return Laid.along(outputs, -1, walk.shape(op.result))


def _affine(walk: Walk, op: Op, normalised: Gaussian) -> Gaussian:
    """A normalisation's own scale and shift, where it has them."""
    scale, shift = walk.tensor(op["weight"]), walk.tensor(op["bias"])
    scaled = normalised if scale is None else normalised.scaled(scale.double())
    return scaled if shift is None else scaled.shifted(shift.double())


def _centred(channels: Gaussian) -> tuple[Tensor, ...]:
    """The covariance without the mean over the channels, (I - 11ᵀ/n)·C·(I - 11ᵀ/n)."""
    shares = [block.sum(1) / channels.size for block in channels.blocks]
    whole = sum(float(share.sum()) for share in shares) / channels.size
    pairs = zip(channels.blocks, shares, strict=True)
    return tuple(block - share[:, None] - share + whole for block, share in pairs)


def _group_norm(walk: Walk, op: Op) -> Result:
    """Each group of channels loses its mean and is divided by its expected size."""
    inputs, groups = walk.along(op, 1), op["group"]
    mean = inputs.mean.view(groups, -1)
    centred = mean - mean.mean(1, keepdim=True)
    spread = centred.square() + inputs.variance.view(groups, -1)
    size = (spread.mean(1, keepdim=True) + op["eps"]).sqrt().expand_as(mean).flatten()
    outputs = _affine(walk, op, Gaussian(centred.flatten(), inputs.blocks).scaled(1 / size))
    return Laid.along(outputs, 1, walk.shape(op.result))


def _attention(walk: Walk, op: Op) -> Result:
    """A mean of values: their channels are mixed with no others."""
    return walk.operand(op, "value")


def _weighted(walk: Walk, op: Op) -> Result:
    """Attention written out: the values are what the scores multiply."""
    laid = walk.operand(op, "mat2")
    if laid is None or laid.channels.shape[-2] > 1:
        return None
    return laid


def _embedding(walk: Walk, op: Op) -> Result:
    """Every entry of the table as likely as any other."""
    table = walk.tensor(op["weight"])
    if table is None or table.ndim != 2:
        return None
    table = table[:: -(-len(table) // ENTRIES)].double()
    covariance = torch.cov(table.T, correction=0).view(table.shape[1], table.shape[1])
    return Laid.along(Gaussian.of(table.mean(0), covariance), -1, walk.shape(op.result))


def _unknown(walk: Walk, op: Op) -> Result:
    """Nothing is known of it."""
    return None


LAYERS: dict[str, Rule] = {
    **dict.fromkeys(("mm", "addmm", "linear"), _product),
    "convolution": _convolution,
    **dict.fromkeys(BATCH_NORMS, _stored_norm),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "embedding": _embedding,
    **dict.fromkeys(ATTENTION, _attention),
    "bmm": _weighted,
    **dict.fromkeys(("baddbmm", "_softmax"), _unknown),
}
