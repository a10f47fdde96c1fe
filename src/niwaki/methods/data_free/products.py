"""What linear layers and convolutions make of Gaussian channels.

With W (out, channels, places) and R the correlation of the places (places, places),

    cov(y) = Σ_pq W_p·C·W_qᵀ·R_pq = Σ_p S_p·C·S_pᵀ,   S = W·R^½,

block by block of the outputs, so that no more than a block of them is held at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.methods.data_free.gaussian import Gaussian, bounds, precision
from niwaki.methods.moments.units import symmetric


def through(inputs: Gaussian, weight: Tensor, correlation: Tensor, bias: Tensor | None) -> Gaussian:
    """weight (out, channels, places) · the values at places that are correlated so + bias."""
    form = inputs.blocks[0].dtype
    spread = _spread(weight.to(form), correlation)
    mean = weight.sum(2).double() @ inputs.mean
    form = precision(len(weight))
    blocks = tuple(_quadratic(inputs, spread[a:b]).to(form) for a, b in bounds(len(weight)))
    return Gaussian(mean if bias is None else mean + bias, blocks)


def through_groups(
    inputs: Gaussian, weight: Tensor, groups: int, correlation: Tensor, bias: Tensor | None
) -> Gaussian:
    """The same for a grouped convolution: weight (out, channels of a group, places)."""
    out, inner, _ = weight.shape
    spread = _spread(weight.to(inputs.blocks[0].dtype), correlation)
    # which channels each output reads: (out, inner)
    first = torch.arange(out, device="cpu") // (out // groups) * inner
    reads = first[:, None] + torch.arange(inner, device="cpu")
    mean = (weight.sum(2).double() * inputs.mean[reads]).sum(1)
    form = precision(out)
    blocks = tuple(_grouped(inputs, spread[a:b], reads[a:b]).to(form) for a, b in bounds(out))
    return Gaussian(mean if bias is None else mean + bias, blocks)


def _spread(weight: Tensor, correlation: Tensor) -> Tensor:
    """W·R^½: (out, channels, places)."""
    if len(correlation) == 1:
        return weight
    values, vectors = torch.linalg.eigh(correlation)
    spread: Tensor = weight @ (vectors * values.clamp(min=0).sqrt()).to(weight.dtype)
    return spread


def _quadratic(inputs: Gaussian, spread: Tensor) -> Tensor:
    """Σ_p S_p·C·S_pᵀ: (out, out)."""
    out, _, places = spread.shape
    total = spread.new_zeros(out, out)
    for block, (start, stop) in zip(inputs.blocks, inputs.spans, strict=True):
        part = spread[:, start:stop].transpose(1, 2).reshape(out * places, stop - start)
        mixed = (part @ block.to(part.dtype)).view(out, -1)
        total += symmetric(mixed, part.view(out, -1))
    return total


def _grouped(inputs: Gaussian, spread: Tensor, reads: Tensor) -> Tensor:
    """The same where output o sums over the channels reads[o] only, which ascend."""
    out, inner, places = spread.shape
    if inner == 1:  # depthwise: every output has a channel of its own
        own = spread[:, 0]
        return inputs.between(reads[:, 0]).to(spread.dtype) * (own @ own.T)
    low, high = int(reads[0, 0]), int(reads[-1, -1]) + 1
    here = inputs.pick(torch.arange(low, high, device="cpu"))
    table = spread.new_zeros(out, high - low, places)
    table.scatter_(1, (reads - low)[:, :, None].expand_as(spread), spread)
    return _quadratic(here, table)
