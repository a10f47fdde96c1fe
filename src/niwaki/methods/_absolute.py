"""A network made linear: its absolute weights, no biases and no constants, the identity for every
function of one number, average pooling for maximum pooling, a sum where two activations are
multiplied.

A gradient through it says how much of everything arrives where, whatever the signs are (`nisp`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from niwaki.graph import Graph
from niwaki.graph.inference import Read
from niwaki.graph.operators import Facts, is_function
from niwaki.running import Op, Playback, Ref

Pool = Callable[[Op, tuple[Any, ...]], Tensor]
Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


def absolute_run(graph: Graph, step: Step, until: int) -> None:
    """Play the operators before `until` on float64 ones in the place of the example inputs, with
    gradients; `step` ends in `absolute_step`.
    """
    tape = graph.inference.tape
    constants = {ref: _wide(value) for ref, value in tape.constants.items()}
    inputs = tree_map(_ones, graph.inputs)
    playback = Playback(replace(tape, constants=constants), _state(graph), inputs)

    def tracked(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with torch.enable_grad():
            return step(position, op, *tree_map(_wide, (args, kwargs)))

    playback.until(until, tracked)


def _state(graph: Graph) -> dict[str, Tensor]:
    """Absolute weights and scales, variances as they are, and zeros for all that is added."""
    inference = graph.inference
    kept = {norm.var for norm in inference.norms}
    factors = set(inference.scales)
    for read in inference.reads:
        if read.weight is not None:
            factors |= set(inference.origins[read.weight].names)
    learned = {name for name, _ in graph.model.named_parameters()}
    added = (learned - factors) | {norm.mean for norm in inference.norms}
    state: dict[str, Tensor] = {}
    for name, tensor in graph.state.items():
        wide = tensor.detach().double() if tensor.is_floating_point() else tensor
        state[name] = wide if name in kept else wide * 0 if name in added else wide.abs()
    return state


def absolute_step(
    graph: Graph, position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What an operator of the linear network gives."""
    inference = graph.inference
    if is_function(op):
        return args[0]
    mean = MEANS.get(op)
    if mean is not None:
        return _with_first(op, args, kwargs, mean(op, args))
    for read in inference.reads:
        if read.position == position and read.statistics and _keeps_shape(graph, op, read):
            return _normalised(graph, op, args, kwargs, read)
    factors = [ref for ref in op.tensors if inference.is_activation(ref)]
    if op.name.rstrip("_") == "aten.mul" and len(factors) == 2:
        return args[0] + args[1]
    return op.func(*args, **kwargs)


def _keeps_shape(graph: Graph, op: Op, read: Read) -> bool:
    """Whether an operator that takes statistics gives back what it took them of (no mean does)."""
    operand, shapes = op.args[read.slot], graph.inference.tape.shapes
    return isinstance(operand, Ref) and shapes[operand.index] == shapes[op.result.index]


def _normalised(
    graph: Graph, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], read: Read
) -> Any:
    """A normalisation by its own statistics, as its scale alone; other results are not used."""
    operand: Tensor = args[read.slot]
    tape, result = graph.inference.tape, operand
    for ref, scale in zip(op.args, args, strict=True):
        if isinstance(ref, Ref) and tape.parameters.get(ref) in graph.inference.scales:
            over_last = "layer" in op.name or "rms" in op.name  # others scale axis 1
            result = operand * (scale if over_last else scale.view(-1, *[1] * (operand.ndim - 2)))
    return _with_first(op, args, kwargs, result)


def _with_first(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Any:
    """What an operator gives, but for its first result."""
    results = op.func(*args, **kwargs)
    return (result, *results[1:]) if isinstance(results, (tuple, list)) else result


def _pooled(rank: int) -> Pool:
    """Maximum pooling of so many axes as average pooling of the same windows."""
    pools: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)

    def pool(op: Op, args: tuple[Any, ...]) -> Tensor:
        """Average pooling of the same windows."""
        kernel, stride, padding = op["kernel_size"], op["stride"], op["padding"]
        return pools[rank - 1](args[0], kernel, stride or kernel, padding, op["ceil_mode"])

    return pool


def _adaptive(rank: int) -> Pool:
    pools: tuple[Callable[..., Tensor], ...] = (
        F.adaptive_avg_pool1d,
        F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d,
    )

    def pool(op: Op, args: tuple[Any, ...]) -> Tensor:
        """Average pooling to the same size."""
        return pools[rank - 1](args[0], op["output_size"])

    return pool


MEANS: Facts[Pool] = Facts(
    "made linear",
    "what stands for it in the network of absolute weights; nisp asks",
    {
        **{f"max_pool{rank}d_with_indices": _pooled(rank) for rank in (1, 2, 3)},
        **{f"max_pool{rank}d": _pooled(rank) for rank in (1, 2, 3)},
        **{f"adaptive_max_pool{rank}d": _adaptive(rank) for rank in (1, 2, 3)},
    },
)


def _ones(leaf: Any) -> Any:
    """Numbers as ones; indices as they are."""
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return torch.ones_like(leaf, dtype=torch.float64) if floating else leaf


def _wide(leaf: Any) -> Any:
    """Floating point as float64: tensors, and the types among an operator's arguments."""
    if isinstance(leaf, Tensor):
        return leaf.double() if leaf.is_floating_point() else leaf
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf
