"""What layers make of Gaussian channels: products with weights, normalisations, attention,
tables.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.mehler import TINY
from niwaki.methods.data_free.products import through, through_groups
from niwaki.methods.data_free.state import Result, Rule, Walk
from niwaki.running import Op

ENTRIES = 8192  # of an embedding's table that are looked at, evenly spread


def _product(walk: Walk, op: Op, slot: int, weight: Tensor | None, bias: Tensor | None) -> Result:
    """rows · weight (out, in) + bias."""
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return None
    given, order, space = _places(walk, op, slot, weight.shape[1])
    table = weight[:, order].reshape(len(weight), given.size, -1)
    correlation = walk.prior.correlation(space)
    made = through(given, table, correlation, _vector(bias, len(weight)))
    return Laid.along(made, -1, walk.shape(op.result))


def _places(walk: Walk, op: Op, slot: int, size: int) -> tuple[Gaussian, Tensor, tuple[int, ...]]:
    """What stands along the last axis of an operand: its channels, the order of the axis' entries
    by channel and place, and the map of the places.
    """
    every, laid = torch.arange(size, device="cpu"), walk.operand(op, slot)
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


def _turned(weight: Tensor | None) -> Tensor | None:
    return weight.T if weight is not None and weight.ndim == 2 else None


def _mm(walk: Walk, op: Op) -> Result:
    return _product(walk, op, 0, _turned(walk.tensor(op.args[1])), None)


def _addmm(walk: Walk, op: Op) -> Result:
    return _product(walk, op, 1, _turned(walk.tensor(op.args[2])), walk.tensor(op.args[0]))


def _linear(walk: Walk, op: Op) -> Result:
    return _product(walk, op, 0, walk.tensor(op.args[1]), walk.tensor(op.arg(2, "bias")))


def _convolution(walk: Walk, op: Op) -> Result:
    weight, bias = walk.tensor(op.args[1]), walk.tensor(op.arg(2, "bias"))
    groups, transposed = op.arg(8, "groups", 1), op.arg(6, "transposed", False)
    if weight is None:
        return None
    if transposed:  # (in, out/groups, …)
        weight = torch.unflatten(weight, 0, [groups, -1]).transpose(1, 2).flatten(0, 1)
    kernel = tuple(weight.shape[2:])
    steps = tuple(op.arg(5, "dilation", [1] * len(kernel)))
    correlation = walk.prior.correlation(kernel, steps)
    given, constant = walk.along(op, 0, 1), _vector(bias, len(weight))
    if groups == 1:
        made = through(given, weight.flatten(2), correlation, constant)
    else:
        made = through_groups(given, weight.flatten(2), groups, correlation, constant)
    return Laid.along(made, 1, walk.shape(op.result))


def _stored_norm(walk: Walk, op: Op) -> Result:
    """Mean and scale as the stored statistics and the affine map state them; correlations as they
    come in.
    """
    norm = walk.norms.get(walk.position)
    if norm is None:
        return None
    given, state = walk.along(op, 0, 1), walk.graph.state
    var = state[norm.var].detach().double().cpu()
    scale = state[norm.scale].detach().double().cpu() if norm.scale else torch.ones_like(var)
    shift = state[norm.shift].detach().double().cpu() if norm.shift else torch.zeros_like(var)
    inside = given.variance.clamp(min=TINY).sqrt()
    outside = scale * (var / (var + norm.eps)).sqrt()
    made = Gaussian(shift, given.scaled(outside / inside).blocks)
    return Laid.along(made, 1, walk.shape(op.result))


def _layer_norm(walk: Walk, op: Op) -> Result:
    """The mean over the channels goes; what is left is divided by its expected size."""
    if walk.operand(op, 0) is None or len(op.args[1]) != 1:
        return None
    given = walk.along(op, 0, -1)
    blocks = _centred(given)
    mean = given.mean - given.mean.mean()
    made = Gaussian(mean, blocks)
    size = (mean.square() + made.variance).mean().clamp(min=TINY).sqrt()
    made = made.scaled(torch.ones_like(mean) / size)
    scale, shift = walk.tensor(op.args[2]), walk.tensor(op.args[3])
    made = made if scale is None else made.scaled(scale.double())
    made = made if shift is None else made.shifted(shift.double())
    return Laid.along(made, -1, walk.shape(op.result))


def _centred(given: Gaussian) -> tuple[Tensor, ...]:
    """The covariance without the mean over the channels, (I - 11ᵀ/n)·C·(I - 11ᵀ/n)."""
    shares = [block.sum(1) / given.size for block in given.blocks]
    whole = sum(float(share.sum()) for share in shares) / given.size
    pairs = zip(given.blocks, shares, strict=True)
    return tuple(block - share[:, None] - share + whole for block, share in pairs)


def _group_norm(walk: Walk, op: Op) -> Result:
    """Each group of channels loses its mean and is divided by its expected size."""
    given, groups = walk.along(op, 0, 1), op.args[6]
    mean = given.mean.view(groups, -1)
    centred = mean - mean.mean(1, keepdim=True)
    spread = centred.square() + given.variance.view(groups, -1)
    size = (spread.mean(1, keepdim=True) + op.args[7]).sqrt().expand_as(mean).flatten()
    made = Gaussian(centred.flatten(), given.blocks).scaled(1 / size)
    scale, shift = walk.tensor(op.args[1]), walk.tensor(op.args[2])
    made = made if scale is None else made.scaled(scale.double())
    made = made if shift is None else made.shifted(shift.double())
    return Laid.along(made, 1, walk.shape(op.result))


def _attention(walk: Walk, op: Op) -> Result:
    """A mean of values: their channels are mixed with no others."""
    return walk.operand(op, 2)


def _weighted(walk: Walk, op: Op) -> Result:
    """Attention written out: the values are what the scores multiply."""
    laid = walk.operand(op, 1)
    if laid is None or laid.channels.shape[-2] > 1:
        return None
    return laid


def _embedding(walk: Walk, op: Op) -> Result:
    """Every entry of the table as likely as any other."""
    table = walk.tensor(op.args[0])
    if table is None or table.ndim != 2:
        return None
    table = table[:: -(-len(table) // ENTRIES)].double()
    covariance = torch.cov(table.T, correction=0).view(table.shape[1], table.shape[1])
    return Laid.along(Gaussian.of(table.mean(0), covariance), -1, walk.shape(op.result))


def _unknown(walk: Walk, op: Op) -> Result:
    return None


LAYERS: dict[str, Rule] = {
    "mm": _mm,
    "addmm": _addmm,
    "linear": _linear,
    "convolution": _convolution,
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ),
        _stored_norm,
    ),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "embedding": _embedding,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
    "bmm": _weighted,
    **dict.fromkeys(("baddbmm", "_softmax"), _unknown),
}
