"""Example inputs to judge a network on: as they are where they are of the network's kind, else
noise that is like inputs of that kind.

Constant tensors are made up for tracing, and so are maps whose neighbouring places have nothing to
do with each other (`torch.randn`): no image or recording is like that, and repairs that suit images
look bad on them. In their place comes noise of the same mean and deviation, half of which is alike
at neighbouring places, with correlation exp(-distance/3) along each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from niwaki.running import Inputs, batch_size, batched, tensors_in

REACH, WHITE = 3.0, 0.5
ALIKE = 0.2  # neighbours that correlate less are noise
MOST = 2**18  # numbers in a made-up tensor, of SAMPLES samples at most
SAMPLES = 32


def judged_on(inputs: Inputs) -> Inputs:
    """The example inputs; where some of them say nothing, more samples, with noise in their
    place.
    """
    said = [not _says_nothing(tensor) for tensor in tensors_in(inputs)]
    if all(said):
        return inputs
    old = batch_size(inputs)
    largest = max(tensor.numel() for tensor in tensors_in(inputs)) / old
    more = batched(inputs, max(old, min(SAMPLES, int(MOST / largest))))
    generator = torch.Generator().manual_seed(0)

    def filled(leaf: object) -> object:
        nothing = isinstance(leaf, Tensor) and _says_nothing(leaf)
        return _noise(leaf, generator) if nothing else leaf  # type: ignore[arg-type]  # as said

    drawn: Inputs = tree_map(filled, more)
    return drawn


def _says_nothing(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    if not tensor.is_floating_point() or tensor.device.type == "meta" or tensor.numel() < 2:
        return False
    values = tensor.detach().double()
    if bool((values == values.flatten()[0]).all()):
        return True
    return tensor.ndim > 3 and _neighbours(values) < ALIKE


def _neighbours(values: Tensor) -> float:
    """The correlation of neighbours along the last axis."""
    centred = values - values.mean()
    left, right = centred[..., :-1], centred[..., 1:]
    spread = left.square().sum().sqrt() * right.square().sum().sqrt()
    return float((left * right).sum() / spread) if spread > 0 else 0.0


def _noise(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Of a tensor's shape, mean and deviation (1 where it has none)."""
    white, smooth = (
        torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device="cpu")
        for _ in range(2)
    )
    for axis in range(2, tensor.ndim):
        place = torch.arange(tensor.shape[axis], dtype=torch.float64, device="cpu")
        alike = torch.exp(-(place[:, None] - place).abs() / REACH)
        smooth = (smooth.movedim(axis, -1) @ torch.linalg.cholesky(alike).T).movedim(-1, axis)
    noise = WHITE**0.5 * white + (1 - WHITE) ** 0.5 * smooth if tensor.ndim > 2 else white
    values = tensor.detach().double().cpu()
    deviation = float(values.std()) or 1.0
    return (values.mean() + deviation * noise).to(tensor)
