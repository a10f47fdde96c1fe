"""Networks in which absent channels are NaN: whatever sums over channels, or counts them, is told
to pass over NaN, and anything else carries it along.

So the original at full size says what the smaller network must compute, with no tape, no terms and
no rule of niwaki's: `nan` is written where a unit's numbers stood in the parameters, and torch's
own functions do the rest. What is not taught here lets NaN through to the outputs, where it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as everybody calls it
from torch.overrides import TorchFunctionMode

NAN = float("nan")


def absent(value: Tensor, axis: int) -> Tensor:
    """Which indices of an axis are absent: hold NaN where no other axis does throughout."""
    missing = value.isnan()
    if not bool(missing.any()):
        return torch.zeros(value.shape[axis], dtype=torch.bool)
    missing = missing.movedim(axis, -1)
    others = ~missing.all(-1)  # places of the other axes that are there
    if not bool(others.any()):
        return torch.ones(value.shape[axis], dtype=torch.bool)
    return missing[others].any(0)


def without(value: Tensor, axis: int, gone: Tensor) -> Tensor:
    """The value with zeros at some indices of an axis."""
    shape = [1] * value.ndim
    shape[axis] = -1
    return torch.where(gone.view(shape), 0.0, value) if bool(gone.any()) else value


def contracted(a: Tensor, a_axis: int, b: Tensor, b_axis: int) -> tuple[Tensor, Tensor]:
    """Two operands with zeros at what is absent of the axes that are summed over together."""
    gone = absent(a, a_axis) | absent(b, b_axis)
    return without(a, a_axis, gone), without(b, b_axis, gone)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(*contracted(x, -1, weight, -1), bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(*contracted(a, -1, b, -2 if b.ndim > 1 else -1))


def conv(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = without(x, 1, absent(x, 1))
        if "transpose" in plain.__name__:
            return plain(x, without(weight, 0, absent(weight, 0)), *args, **kwargs)
        groups = kwargs.get("groups", args[4] if len(args) > 4 else 1)
        if groups == 1 or weight.shape[1] > 1:
            weight = without(weight, 1, absent(weight, 1))
        return plain(x, weight, *args, **kwargs)

    return run


def einsum(formula: str, *operands: Any) -> Tensor:
    values = list(operands[0] if isinstance(operands[0], (list, tuple)) else operands)
    inputs, output = formula.replace(" ", "").split("->")
    for letter in set(inputs) - set(output) - {","}:
        places = [(n, part.index(letter)) for n, part in enumerate(inputs.split(","))
                  if letter in part]  # fmt: skip
        gone = torch.stack([absent(values[n], axis) for n, axis in places]).any(0)
        for n, axis in places:
            values[n] = without(values[n], axis, gone)
    return torch.einsum(formula, *values)


def moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and mean square deviation of what is there."""
    mean = x.nanmean(axes, keepdim=True)
    return mean, (x - mean).pow(2).nanmean(axes, keepdim=True)


def layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    mean, spread = moments(x, list(range(-len(shape), 0)))
    return _affine((x - mean) / torch.sqrt(spread + eps), weight, bias)


def rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    square = x.pow(2).nanmean(list(range(-len(shape), 0)), keepdim=True)
    return _affine(x * torch.rsqrt(square + eps), weight, None)


def group_norm(
    x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    parts = x.reshape(len(x), groups, -1)
    mean, spread = moments(parts, [-1])
    y = ((parts - mean) / torch.sqrt(spread + eps)).view_as(x)
    shape = [-1] + [1] * (x.ndim - 2)
    return _affine(y, *(p if p is None else p.view(shape) for p in (weight, bias)))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
           is_causal: bool = False, scale: float | None = None, **_: Any) -> Tensor:  # fmt: skip
    scores = matmul(q, k.transpose(-2, -1)) * (scale or q.shape[-1] ** -0.5)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        masked = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
    return matmul(scores.softmax(-1), v)


def torchs_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int,
    weight: Tensor, bias: Tensor, _k: Any, _v: Any, _z: Any, _p: Any,
    out_weight: Tensor, out_bias: Tensor, attn_mask: Any = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As `nn.MultiheadAttention` calls it, for keys and values of one width: (time, batch, …)."""
    t, b, _width = query.shape
    parts = (linear(x, w, c) for x, w, c in
             zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True))  # fmt: skip
    q, k, v = (part.view(len(part), b, num_heads, -1).permute(1, 2, 0, 3) for part in parts)
    seen = attend(q, k, v, attn_mask).permute(2, 0, 1, 3).reshape(t, b, -1)
    return linear(seen, out_weight, out_bias), None


def over(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction of what is there; NaN where nothing is."""

    def run(x: Tensor, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:
        dim = more.pop("axis", dim)
        axes = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
        nothing = x.isnan().all(axes[0], keepdim=True) if len(axes) == 1 else None
        if nothing is None:
            count = (~x.isnan()).sum(axes, keepdim=True)
            nothing = count == 0
        result = torch.where(nothing, NAN, reduce(x, axes, **more))
        return result if keepdim else result.squeeze(axes)

    return run


def norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    assert p in (2, "fro", None)
    return over(lambda y, axes: y.pow(2).nansum(axes, keepdim=True).sqrt())(x, dim, keepdim)


def _var(x: Tensor, axes: list[int], unbiased: bool = True, correction: Any = None) -> Tensor:
    correction = int(unbiased) if correction is None else correction
    count = (~x.isnan()).sum(axes, keepdim=True)
    out: Tensor = moments(x, axes)[1] * count / (count - correction)
    return out


def _amax(x: Tensor, axes: list[int]) -> Tensor:
    return x.nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(axes, keepdim=True)


def pad(x: Tensor, pads: Any, *args: Any, **kwargs: Any) -> Tensor:
    """What is absent at every place is absent at the new ones too."""
    result = F.pad(x, pads, *args, **kwargs)
    for axis in range(x.ndim):
        if result.shape[axis] == x.shape[axis]:
            gone = x.isnan().movedim(axis, -1).reshape(-1, x.shape[axis]).all(0)
            shape = [1] * x.ndim
            shape[axis] = -1
            result = result.masked_fill(gone.view(shape), NAN)
    return result


def softmax(x: Tensor, dim: int = -1, *_: Any, **__: Any) -> Tensor:
    # a mask that was filled in hides NaN of an absent head: only what is NaN throughout is absent
    gone = x.isnan().movedim(dim, -1).reshape(-1, x.shape[dim]).all(0)
    shape = [1] * x.ndim
    shape[dim] = -1
    return torch.softmax(x.masked_fill(gone.view(shape), -torch.inf), dim)


def recurrent(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrent layer step by step, so that each product passes over what is absent."""
    cell = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu)}[
        plain.__name__
    ]

    def run(
        x: Tensor, state: Any, weights: Any, biases: bool, layers: int, _dropout: float,
        _training: bool, both_ways: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        assert len(weights) == layers * (2 if both_ways else 1) * (4 if biases else 2)
        x = x.transpose(0, 1) if batch_first else x
        each = 4 if biases else 2
        last = []
        for layer in range(layers):
            directions = []
            for way in range(2 if both_ways else 1):
                number = layer * (2 if both_ways else 1) + way
                w_x, w_h, *b = weights[each * number : each * (number + 1)]
                own = [s[number] for s in (state if isinstance(state, tuple) else (state,))]
                outs = []
                for step in x.flip(0) if way else x:
                    given = linear(step, w_x, b[0] if b else None)
                    own = cell(given, lambda h: linear(h, w_h, b[1] if b else None), own)  # noqa: B023
                    outs.append(own[0])
                out = torch.stack(outs)
                directions.append(out.flip(0) if way else out)
                last.append(own)
            x = torch.cat(directions, -1)
        out = x.transpose(0, 1) if batch_first else x
        return (out, *(torch.stack(parts) for parts in zip(*last, strict=True)))

    return run


Recur = Callable[[Tensor], Tensor]


def _lstm(given: Tensor, recur: Recur, state: list[Tensor]) -> list[Tensor]:
    i, f, g, o = (given + recur(state[0])).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * cell.tanh(), cell]


def _gru(given: Tensor, recur: Recur, state: list[Tensor]) -> list[Tensor]:
    (r, z, n), (hr, hz, hn) = given.chunk(3, -1), recur(state[0]).chunk(3, -1)
    new, z = (n + (r + hr).sigmoid() * hn).tanh(), (z + hz).sigmoid()
    return [(1 - z) * new + z * state[0]]


def _rnn(act: Callable[[Tensor], Tensor]) -> Callable[..., list[Tensor]]:
    return lambda given, recur, state: [act(given + recur(state[0]))]


TAUGHT: dict[Any, Callable[..., Any]] = {
    **{f: recurrent(f) for f in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},
    F.linear: linear,
    F.pad: pad,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.mm), matmul),
    Tensor.__rmatmul__: lambda a, b: matmul(b, a),
    torch.einsum: einsum,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.scaled_dot_product_attention: attend,
    F.multi_head_attention_forward: torchs_attention,
    **dict.fromkeys((torch.norm, Tensor.norm, torch.linalg.vector_norm), norm),
    **dict.fromkeys((torch.mean, Tensor.mean), over(lambda x, axes: x.nanmean(axes, keepdim=True))),
    **dict.fromkeys((torch.sum, Tensor.sum), over(lambda x, axes: x.nansum(axes, keepdim=True))),
    **dict.fromkeys((torch.var, Tensor.var), over(_var)),
    **dict.fromkeys((torch.amax, Tensor.amax), over(_amax)),
    **dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), softmax),
    **{f: conv(f) for f in (F.conv1d, F.conv2d, F.conv_transpose2d)},
}


class PassingOverNan(TorchFunctionMode):
    """Under this, torch's functions pass over NaN where they sum over channels."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        taught = TAUGHT.get(func, func)
        if taught is not func and not any(_holds_nan(value) for value in _flat(args)):
            taught = func
        return taught(*args, **(kwargs or {}))


def _flat(args: Any) -> Iterator[Any]:
    """Arguments, and what lists among them hold."""
    for value in args:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _holds_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def erase(tensor: nn.Parameter | Tensor, axis: int, index: Tensor) -> None:
    """Write NaN where some indices of an axis stood."""
    if tensor.is_floating_point():
        tensor.data.index_fill_(axis, index, NAN)
