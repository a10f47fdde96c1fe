"""What a network computes: multiply-adds (MACs) of its products.

One MAC is one multiplication and one addition. Matrix products, convolutions, attention and
recurrent layers count; biases, activations, normalisation and pooling do not. Attention counts
every pair of positions, masked or not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from niwaki.graph.operators import Facts
from niwaki.running import Inputs, as_arguments, batch_size, call, preserved_mode, preserved_rng
from niwaki.running.faked import faked

Shape = tuple[int, ...]


def count_macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-adds of one sample in evaluation mode: those of one forward of `inputs`, divided by
    its batch size.

    The batch size is axis 0 of the first tensor in `inputs`. Work that is done once a call whatever
    the batch (a network that computes position biases) therefore counts as a sample's share of it;
    a batch of one counts it whole.

    Counted on a weightless copy; only a model that cannot run so (its path depends on values) is
    run for real. Whatever the model itself raises goes through.
    """
    with preserved_mode(model, training=False), preserved_rng(), plain_attention():
        try:
            total = _count_fake(model, inputs)
        # whatever a fake run may stumble over; the real run raises what is the model's own fault
        except Exception:
            total = _count(model, inputs)
    return round(total / batch_size(inputs))


def _count_fake(model: nn.Module, inputs: Inputs) -> int:
    """Count on a copy without data: no memory for weights, no arithmetic; what the forward changes
    goes with it.
    """
    with faked() as mode:
        with FakeCopyMode(mode):
            shadow, arguments = copy.deepcopy((model, as_arguments(inputs)))
        shadow.requires_grad_(
            False
        )  # torch's counter stumbles over a parameter that is handed to a module as an input
        with mode:
            args, kwargs = arguments
            return _count(shadow, args or kwargs)


def _count(model: nn.Module, inputs: Inputs) -> int:
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.no_grad(), counter:
        call(model, inputs)
    return counter.get_total_flops() // 2


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep torch from fusing a whole encoder layer into one operator, whose products could not be
    seen.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


# Products that torch's own table lacks, and would count as zero. Each formula takes the operator's
# arguments with tensors replaced by their shapes, and gives FLOPs: two a multiply-add.


def _matrix_vector(matrix: Shape, vector: Shape, **_: object) -> int:
    """2 · entries of the matrix"""
    return 2 * math.prod(matrix)


def _add_matrix_vector(added: Shape, matrix: Shape, vector: Shape, **_: object) -> int:
    """2 · entries of the matrix"""
    return 2 * math.prod(matrix)


def _dot(left: Shape, right: Shape, **_: object) -> int:
    """2 · entries"""
    return 2 * math.prod(left)


def _add_batched(added: Shape, left: Shape, right: Shape, **_: object) -> int:
    """2 · entries of the left · columns of the right"""
    return 2 * math.prod(left) * right[-1]


def _grouped(left: Shape, right: Shape, *_args: object, **_: object) -> int:
    """Rows of many experts, one after the other, (n, k) × (experts, k, m); or its derivatives."""
    own = math.prod(left[1:]) if len(left) > len(right) else math.prod(left)
    return 2 * own * right[-1]


def _bilinear(left: Shape, weight: Shape, *_args: object, **_: object) -> int:
    """2 · rows · entries of the weight"""
    return 2 * left[0] * math.prod(weight)


def _attention(query: Shape, key: Shape, value: Shape, *_args: object, **_: object) -> int:
    """every pair of positions, masked or not: 2 · (n · m · d + n · m · e) a head"""
    return int(sdpa_flop_count(query, key, value))


def _onednn_rnn(
    steps: Shape, input_weight: Shape, hidden_weight: Shape, *_args: object, **_: object
) -> int:
    """2 · steps · entries of both weights"""
    return 2 * math.prod(steps[:-1]) * (math.prod(input_weight) + math.prod(hidden_weight))


def _cudnn_rnn(steps: Shape, weights: list[Shape], *_args: object, **_: object) -> int:
    """2 · steps · entries of all matrices"""
    return (
        2 * math.prod(steps[:-1]) * sum(math.prod(weight) for weight in weights if len(weight) == 2)
    )


_OWN: dict[str, Callable[..., int]] = {
    "mv": _matrix_vector,
    "addmv": _add_matrix_vector,
    "dot": _dot,
    "vdot": _dot,
    "addbmm": _add_batched,
    "_trilinear": _bilinear,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "mkldnn_rnn_layer": _onednn_rnn,
    "_cudnn_rnn": _cudnn_rnn,
    "_grouped_mm": _grouped,  # of newer torch
}
FLOPS = Facts(
    "flops", "twice its multiply-adds by shapes, where torch's own counter has none", _OWN
)
FORMULAS: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.aten, name): formula
    for name, formula in _OWN.items()
    if hasattr(torch.ops.aten, name)
}
