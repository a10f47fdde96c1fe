"""What the example inputs say of the model's inputs: their mean and covariance, or nothing.

Inputs that a user has at hand are of the scale, and often of the kind, that the network is for;
a prior is neither. They are believed as far as they are many: with n rows of C channels, the
covariance is drawn towards its own diagonal by C/(n + C). Constant inputs (zeros, ones) are made up
for tracing and say nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.graph.operators import over_image
from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid
from niwaki.running import Ref, as_arguments, tensors_in

ROWS = 10  # rows a channel that must be there for inputs to be believed
MOST = 65536  # rows that are looked at


def laid_inputs(graph: Graph) -> dict[Ref, Laid]:
    """The model's inputs that hold channels: by convention axis 1, of sequences that no convolution
    reads the last.
    """
    tape = graph.inference.tape
    tensors = list(tensors_in(as_arguments(graph.inputs)))
    channels = {}
    for ref, tensor in zip(tape.inputs, tensors, strict=True):
        shape = tape.shapes[ref.index]
        if tensor.layout != torch.strided or len(shape) < 2:
            continue
        if not tape.dtypes[ref.index].is_floating_point:
            continue
        convolved = _convolved(graph, ref)
        if len(shape) > 4 and not convolved:  # frames of images: axis 1 is no channels
            continue
        axis = 1 if len(shape) != 3 or convolved else 2
        known = _counted(tensor.detach(), axis) or Gaussian.white(shape[axis])
        channels[ref] = Laid.along(known, axis, shape)
    return channels


def _convolved(graph: Graph, ref: Ref) -> bool:
    return any(over_image(op) and op.first == ref for op in graph.inference.tape.ops)


def _counted(tensor: Tensor, axis: int) -> Gaussian | None:
    """Mean and shrunk covariance; None where they are too few, constant, or not to be had."""
    channels = tensor.shape[axis]
    rows = tensor.movedim(axis, -1).reshape(-1, channels)
    rows = rows[:: -(-len(rows) // MOST)]
    if tensor.device.type == "meta" or len(rows) < ROWS * channels:
        return None
    rows = rows.double().cpu()
    if not bool(torch.isfinite(rows).all()) or not bool((rows.var(0) > 0).all()):
        return None
    covariance = torch.cov(rows.T, correction=0).view(channels, channels)
    trust = len(rows) / (len(rows) + channels)
    shrunk = trust * covariance + (1 - trust) * covariance.diagonal().diag()
    return Gaussian.of(rows.mean(0), shrunk)
