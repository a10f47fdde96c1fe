"""How a layer of blocks multiplies: by its blocks, or by a dense weight where that is quicker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.running import Inputs, call, copied, preserved_mode, preserved_state
from niwaki.surgery import BlockSparse

TIMED = 20  # runs of a layer, of which the quickest counts


def choose_products(model: nn.Module, inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Let every layer of blocks multiply by a dense weight where that is quicker on inputs like
    these.

    Returns:
        layer → milliseconds with blocks and with a dense weight.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BlockSparse)
    }
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), preserved_mode(model, training=False), preserved_state(model):
        hooks = [
            module.register_forward_pre_hook(_noting(seen, name)) for name, module in layers.items()
        ]
        try:
            call(model, copied(inputs))
        finally:
            for hook in hooks:
                hook.remove()
        times = {
            name: (_milliseconds(layers[name], x, False), _milliseconds(layers[name], x, True))
            for name, x in seen.items()
        }
    for name, (blocks, dense) in times.items():
        layers[name].dense = dense < blocks
    return times


def _noting(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.setdefault(name, args[0])

    return note


def _milliseconds(layer: BlockSparse, x: Tensor, dense: bool) -> float:
    layer.dense = dense
    best = float("inf")
    for _ in range(TIMED):
        start = time.perf_counter()
        layer(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        best = min(best, time.perf_counter() - start)
    return 1000 * best
