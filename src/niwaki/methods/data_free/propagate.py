"""Means and covariances of channels without any data: what the weights and the stored statistics
say of them.

The operators of the tape are walked once with a Gaussian in the place of every value. What is known
of the inputs is a
prior: zero mean, unit variance, and neighbouring places that are alike, cov = w·[same place] + (1 -
    w)·exp(-distance/reach).
Products carry the covariance through their weights; a normalisation by stored statistics states
mean and scale, and leaves the correlations. Branches that are added or multiplied are taken to be
independent. What an operator without a rule puts out is taken to be white, as if it were an input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.graph.inference import Norm
from niwaki.graph.operators.elementwise import RULES as ELEMENTWISE
from niwaki.graph.operators.elementwise import pointwise
from niwaki.methods.data_free.gaussian import TINY, Gaussian, Prior
from niwaki.running import Op, Ref, preserved_rng

Known = dict[Ref, Gaussian]


@dataclass
class _Walk:
    """What is known of the values so far; tensors that are made of parameters alone are
    computed.
    """

    graph: Graph
    prior: Prior
    known: Known = field(default_factory=dict)
    tensors: dict[Ref, Tensor] = field(default_factory=dict)
    norms: dict[int, Norm] = field(default_factory=dict)
    position: int = 0

    def operand(self, op: Op, slot: int) -> Gaussian | None:
        ref = op.args[slot] if slot < len(op.args) else None
        return self.known.get(ref) if isinstance(ref, Ref) else None

    def tensor(self, ref: Any) -> Tensor | None:
        return self.tensors.get(ref) if isinstance(ref, Ref) else None

    def shape(self, ref: Ref) -> tuple[int, ...]:
        return self.graph.inference.tape.shapes[ref.index]


def gaussians(graph: Graph, prior: Prior, wanted: Mapping[int, int]) -> dict[int, Gaussian]:
    """The Gaussian of one operand of some operators, where anything is known of it.

    Args:
        wanted: operator → the argument that is asked for.
    """
    tape = graph.inference.tape
    walk = _Walk(graph, prior, norms={norm.position: norm for norm in graph.inference.norms})
    # copies, as the operators that are computed on them may write into them: a buffer that counts,
    # a running mean
    for ref, name in tape.parameters.items():
        tensor = graph.state[name].detach()
        dtype = (
            torch.float64 if tensor.is_floating_point() else tensor.dtype
        )  # numbers that are indices stay so
        walk.tensors[ref] = tensor.to("cpu", dtype, copy=True)
    walk.tensors.update(
        {ref: tensor.detach().to("cpu", copy=True) for ref, tensor in tape.constants.items()}
    )
    for ref in tape.inputs:
        shape = walk.shape(ref)
        if len(shape) == 4 or len(shape) == 2:
            walk.known[ref] = Gaussian.white(shape[1], shape[2:])
    found = {}
    with torch.no_grad(), preserved_rng():
        for position, op in enumerate(tape.ops):
            walk.position = position
            given = walk.operand(op, wanted[position]) if position in wanted else None
            if given is not None:
                found[position] = given
            _advance(walk, op)
    return found


def _advance(walk: _Walk, op: Op) -> None:
    if all(ref in walk.tensors for ref in op.tensors):
        _compute(walk, op)
        return
    rule = _RULES.get(op.name.removeprefix("aten.").rstrip("_"), _keep)
    result = rule(walk, op)
    for place, ref in enumerate(op.outputs):
        given = (
            result[place]
            if isinstance(result, list) and place < len(result)
            else result
            if place == 0
            else None
        )
        if ref is not None and isinstance(given, Gaussian):
            walk.known[ref] = _placed(walk, ref, given)
        elif ref is not None:
            walk.known.pop(ref, None)


def _compute(walk: _Walk, op: Op) -> None:
    """An operator on parameters and constants alone."""

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return walk.tensors[leaf]
        return type(leaf)(map(value, leaf)) if isinstance(leaf, (list, tuple)) else leaf

    try:
        result = op.func(*value(op.args), **{name: value(item) for name, item in op.kwargs.items()})
    except (
        Exception
    ):  # operators raise of all kinds where one operand is float64 now and another is not
        return
    for ref, made in zip(
        op.outputs, result if isinstance(result, (tuple, list)) else (result,), strict=True
    ):
        if ref is not None:
            walk.tensors[ref] = made


def _placed(walk: _Walk, ref: Ref, given: Gaussian) -> Gaussian:
    """With the sizes of the map that the value is now, where it is one."""
    shape = walk.shape(ref)
    return replace(given, space=shape[2:]) if len(shape) == 4 and shape[1] == given.size else given


Result = Gaussian | list[Gaussian] | None
GaussianRule = Callable[[_Walk, Op], Result]


def _keep(walk: _Walk, op: Op) -> Result:
    """Views, pooling, dropout: the channels are what they were, if their number can be."""
    ref = op.tensors[0] if op.tensors else None
    given = walk.known.get(ref) if ref is not None else None
    if given is None or op.outputs[0] is None:
        return None
    size = math.prod(walk.shape(op.outputs[0]))
    return given if size % given.size == 0 else None


def _product(walk: _Walk, op: Op, slot: int, weight: Tensor | None, bias: Tensor | None) -> Result:
    """rows · weight (in, out) + bias."""
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return None
    given = walk.operand(op, slot) or Gaussian.white(len(weight))
    weight = weight.double()
    if len(weight) % given.size:
        given = Gaussian.white(len(weight))
    places = len(weight) // given.size
    space = given.space if math.prod(given.space) == places else (places,)
    table = weight.T.reshape(-1, given.size, places)
    return replace(
        given.through(table, walk.prior.correlation(space), _vector(bias, weight.shape[1])),
        space=(),
    )


def _vector(bias: Tensor | None, size: int) -> Tensor | None:
    return bias.double() if bias is not None and tuple(bias.shape) == (size,) else None


def _mm(walk: _Walk, op: Op) -> Result:
    return _product(walk, op, 0, walk.tensor(op.args[1]), None)


def _addmm(walk: _Walk, op: Op) -> Result:
    return _product(walk, op, 1, walk.tensor(op.args[2]), walk.tensor(op.args[0]))


def _linear(walk: _Walk, op: Op) -> Result:
    weight = walk.tensor(op.args[1])
    return _product(
        walk, op, 0, None if weight is None else weight.T, walk.tensor(op.arg(2, "bias"))
    )


def _convolution(walk: _Walk, op: Op) -> Result:
    weight, groups, transposed = (
        walk.tensor(op.args[1]),
        op.arg(8, "groups", 1),
        op.arg(6, "transposed", False),
    )
    channels = walk.shape(op.args[0])[1]
    given = walk.operand(op, 0)
    if weight is None:
        return None
    given = given if given is not None and given.size == channels else Gaussian.white(channels)
    weight = weight.double()
    kernel = tuple(weight.shape[2:])
    if transposed:  # (in, out/groups, …)
        weight = torch.unflatten(weight, 0, [groups, -1]).transpose(1, 2).flatten(0, 1)
    inner, out = weight.shape[1], weight.shape[0]
    table = torch.zeros(out, channels, math.prod(kernel), dtype=torch.float64, device="cpu")
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        table[rows, group * inner : (group + 1) * inner] = weight[rows].flatten(2)
    correlation = walk.prior.correlation(kernel, tuple(op.arg(5, "dilation", [1] * len(kernel))))
    return given.through(table, correlation, _vector(walk.tensor(op.arg(2, "bias")), out))


def _stored_norm(walk: _Walk, op: Op) -> Result:
    """Mean and scale as the stored statistics and the affine map state them; correlations as they
    come in.
    """
    given, norm = walk.operand(op, 0), walk.norms.get(walk.position)
    channels = walk.shape(op.args[0])[1]
    if norm is None:
        return None
    given = given if given is not None and given.size == channels else Gaussian.white(channels)
    state = walk.graph.state
    var = state[norm.var].detach().double().cpu()
    scale = state[norm.scale].detach().double().cpu() if norm.scale else torch.ones_like(var)
    shift = state[norm.shift].detach().double().cpu() if norm.shift else torch.zeros_like(var)
    inside = given.covariance.diagonal().clamp(min=TINY).sqrt()
    outside = scale * (var / (var + norm.eps)).sqrt()
    return replace(given.scaled(outside / inside), mean=shift)


def _layer_norm(walk: _Walk, op: Op) -> Result:
    """The mean over the channels goes; what is left is divided by its expected size."""
    given = walk.operand(op, 0)
    if given is None or len(op.args[1]) != 1 or op.args[1][0] != given.size:
        return None
    centred = torch.eye(given.size, dtype=torch.float64, device="cpu") - 1 / given.size
    mean, covariance = centred @ given.mean, centred @ given.covariance @ centred
    size = (mean.square() + covariance.diagonal()).mean().clamp(min=TINY).sqrt()
    made = replace(given, mean=mean / size, covariance=covariance / size**2)
    scale, shift = walk.tensor(op.args[2]), walk.tensor(op.args[3])
    made = made if scale is None else made.scaled(scale.double())
    return made if shift is None else replace(made, mean=made.mean + shift)


def _pointwise(walk: _Walk, op: Op) -> Result:
    given = walk.operand(op, 0)
    if given is None or len(op.tensors) != 1:
        return None
    return given.mapped(lambda values: op.func(values.clone(), *op.args[1:], **op.kwargs))


def _add(walk: _Walk, op: Op, sign: float = 1.0) -> Result:
    """Two independent branches, or a branch and a parameter or number."""
    factor = sign * float(op.kwargs.get("alpha", 1))
    parts = [walk.known.get(ref) if isinstance(ref, Ref) else None for ref in op.args[:2]]
    a, b = parts
    if a is not None and b is not None:
        if a.size != b.size:
            return None
        return replace(
            a, mean=a.mean + factor * b.mean, covariance=a.covariance + factor**2 * b.covariance
        )
    return _with_constant(
        walk, op, lambda made, constant: replace(made, mean=made.mean + factor * constant)
    )


def _mul(walk: _Walk, op: Op) -> Result:
    parts = [walk.known.get(ref) if isinstance(ref, Ref) else None for ref in op.args[:2]]
    a, b = parts
    if a is not None and b is not None:
        if a.size != b.size:
            return max(
                parts, key=lambda part: part.size if part else 0
            )  # a gate for each channel, or for all
        covariance = a.covariance * b.covariance
        covariance = (
            covariance
            + a.covariance * torch.outer(b.mean, b.mean)
            + b.covariance * torch.outer(a.mean, a.mean)
        )
        return replace(a, mean=a.mean * b.mean, covariance=covariance)
    return _with_constant(walk, op, lambda made, constant: made.scaled(constant.expand(made.size)))


def _div(walk: _Walk, op: Op) -> Result:
    if walk.operand(op, 1) is not None:
        return walk.operand(op, 0)
    return _with_constant(
        walk, op, lambda made, constant: made.scaled(1 / constant.expand(made.size))
    )


def _with_constant(walk: _Walk, op: Op, change: Callable[[Gaussian, Tensor], Gaussian]) -> Result:
    """A branch changed by a number or by a parameter of one entry a channel; by any other it stays
    as it is.
    """
    made = next((walk.known[ref] for ref in op.tensors if ref in walk.known), None)
    if made is None:
        return None
    other = next(
        (item for item in op.args[:2] if not (isinstance(item, Ref) and item in walk.known)), None
    )
    tensor = (
        walk.tensor(other)
        if isinstance(other, Ref)
        else torch.as_tensor(other, device="cpu")
        if other is not None
        else None
    )
    if tensor is None or tensor.numel() not in (1, made.size):
        return made
    return change(made, tensor.double().flatten())


def _select(walk: _Walk, op: Op) -> Result:
    """One of several equal parts, where the axis is the outermost part of the channels."""
    given, dim, index = walk.operand(op, 0), op.args[1], op.args[2]
    if given is None:
        return None
    shape = walk.shape(op.args[0])
    size = shape[dim]
    rest = given.size // size
    if given.size % size or not _is_channels(walk, op, dim, given):
        return given
    return given.block((index % size) * rest, (index % size + 1) * rest)


def _unbind(walk: _Walk, op: Op) -> Result:
    given, dim = walk.operand(op, 0), op.arg(1, "dim", 0)
    size = len(op.outputs)
    if given is None or given.size % size or not _is_channels(walk, op, dim, given):
        return None
    return [given.block(i * given.size // size, (i + 1) * given.size // size) for i in range(size)]


def _split(walk: _Walk, op: Op) -> Result:
    given, dim = walk.operand(op, 0), op.arg(2, "dim", 0)
    if given is None:
        return None
    if walk.shape(op.args[0])[dim] != given.size:
        return [given for _ in op.outputs]
    sizes = [walk.shape(ref)[dim] if ref is not None else 0 for ref in op.outputs]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [given.block(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _slice(walk: _Walk, op: Op) -> Result:
    given, dim = walk.operand(op, 0), op.arg(1, "dim", 0)
    size = walk.shape(op.args[0])[dim]
    if given is None or size != given.size or op.arg(4, "step", 1) != 1:
        return _keep(walk, op)
    start = op.arg(2, "start", 0) or 0
    start = start + size if start < 0 else start
    return given.block(start, start + walk.shape(op.result)[dim])


def _is_channels(walk: _Walk, op: Op, dim: int, given: Gaussian) -> bool:
    """Whether an axis, before which the channels' axes do not begin, is part of them: 3 ⊗ heads ⊗
    head_dim.
    """
    shape = walk.shape(op.args[0])
    return shape[dim] != given.size and given.size % shape[dim] == 0 and len(shape) >= 4


def _cat(walk: _Walk, op: Op) -> Result:
    """Channels one behind the other, each part independent; tokens one behind the other are all
    alike.
    """
    parts = [walk.known.get(ref) for ref in op.args[0]]
    dim = op.arg(1, "dim", 0)
    known = [part for part in parts if part is not None]
    if not known:
        return None
    sizes = [walk.shape(ref)[dim] for ref in op.args[0]]
    if any(part is not None and part.size != size for part, size in zip(parts, sizes, strict=True)):
        return known[0]
    made = [part or Gaussian.white(size) for part, size in zip(parts, sizes, strict=True)]
    covariance: Tensor = torch.block_diag(*(part.covariance for part in made))  # type: ignore[no-untyped-call]
    return Gaussian(torch.cat([part.mean for part in made]), covariance, known[0].space)


def _attention(walk: _Walk, op: Op) -> Result:
    """A mean of values: their channels are mixed with no others."""
    return walk.operand(op, 2)


def _embedding(walk: _Walk, op: Op) -> Result:
    """Every entry of the table as likely as any other."""
    table = walk.tensor(op.args[0])
    return (
        None
        if table is None
        else Gaussian(table.double().mean(0), torch.cov(table.double().T, correction=0))
    )


def _second(walk: _Walk, op: Op) -> Result:
    """Attention written out: the values are what the scores multiply."""
    return walk.operand(op, 1)


def _unknown(walk: _Walk, op: Op) -> Result:
    return None


_RULES: dict[str, GaussianRule] = {
    **{
        name: _pointwise
        for name, rule in ELEMENTWISE.items()
        if isinstance(rule, partial)
        and rule.func is pointwise
        and rule.keywords["kind"].value in ("homogeneous", "other")
    },
    "mm": _mm,
    "addmm": _addmm,
    "linear": _linear,
    "convolution": _convolution,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        _stored_norm,
    ),
    "native_layer_norm": _layer_norm,
    "add": _add,
    "sub": partial(_add, sign=-1.0),
    "mul": _mul,
    "div": _div,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "slice": _slice,
    "cat": _cat,
    "embedding": _embedding,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
        ),
        _attention,
    ),
    "bmm": _second,
    **dict.fromkeys(("baddbmm", "_softmax"), _unknown),
}
