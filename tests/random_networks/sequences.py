"""Parts of networks on sequences: (batch, time, channels) in, (batch, time, channels) out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as everybody calls it
from torch.nn.utils import parametrizations

from random_networks.draw import Counts, Draw, Maker, Part, Residual, Rms


class OverTime(nn.Module):
    """Runs a layer that wants channels before time."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.transpose(1, 2)).transpose(1, 2)
        return out


class Recurrent(nn.Module):
    """A recurrent layer without its state, maybe on its input turned round."""

    def __init__(self, layer: nn.RNNBase, turned: bool) -> None:
        super().__init__()
        self.layer, self.turned = layer, turned

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flip(1) if self.turned else x)[0]
        out: Tensor = y.flip(1) if self.turned else y
        return out


class Gated(nn.Module):
    """Two halves of one layer, one the gate of the other, taken apart in one of several ways."""

    def __init__(self, width: int, inner: int, how: str) -> None:
        super().__init__()
        self.up, self.down, self.how = nn.Linear(width, 2 * inner), nn.Linear(inner, width), how
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.how == "glu":
            whole: Tensor = self.down(F.glu(y, -1))
            return whole
        if self.how == "chunk":
            a, b = y.chunk(2, -1)
        elif self.how == "split":
            a, b = y.split(self.inner, -1)
        elif self.how == "slices":
            a, b = y[..., : self.inner], y[..., self.inner :]
        else:
            a, b = y.view(*y.shape[:2], 2, -1).unbind(2)
        out: Tensor = self.down(a * F.silu(b))
        return out


class LowRank(nn.Module):
    """A linear layer with a product of two small matrices beside it, or added to its weight."""

    def __init__(self, width: int, out: int, rank: int, merged: bool) -> None:
        super().__init__()
        self.base, self.merged = nn.Linear(width, out), merged
        self.a = nn.Parameter(torch.randn(rank, width) / width**0.5)
        self.b = nn.Parameter(torch.randn(out, rank) / rank**0.5)
        self.scaling = 2 / rank

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return F.linear(x, self.base.weight + self.scaling * self.b @ self.a, self.base.bias)
        out: Tensor = self.base(x) + F.linear(F.linear(x, self.a), self.b) * self.scaling
        return out


class Positions(nn.Module):
    """A table that is sliced to the length, or looked up, and added; it is longer than needed."""

    def __init__(self, width: int, limit: int, how: str) -> None:
        super().__init__()
        self.how, self.limit = how, limit
        self.table = nn.Parameter(torch.randn(limit, width)) if how == "slice" else None
        self.looked = nn.Embedding(limit, width) if how != "slice" else None

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[1]
        if self.table is not None:
            x = x[:, : self.limit]
            return x + self.table[:time]
        assert self.looked is not None
        places = torch.arange(time, device=x.device)
        if self.how == "clamped":
            y: Tensor = x + self.looked(places.clamp(max=self.limit - 1))
            return y
        out: Tensor = x + self.looked(places % self.limit)
        return out


class Relative(nn.Module):
    """Mixes over time by a bias table that is looked up by distance: a gather of a parameter."""

    def __init__(self, width: int, heads: int, limit: int) -> None:
        super().__init__()
        self.heads, self.limit = heads, limit
        self.table = nn.Parameter(torch.randn(2 * limit + 1, heads))
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        places = torch.arange(t, device=x.device)
        far = (places[:, None] - places).clamp(-self.limit, self.limit) + self.limit
        seen = self.table[far].permute(2, 0, 1).softmax(-1)
        value = self.value(x).view(b, t, self.heads, c // self.heads).transpose(1, 2)
        out: Tensor = self.out((seen @ value).transpose(1, 2).reshape(b, t, -1))
        return out


class ByValue(nn.Module):
    """One of two bodies, as the input's values say."""

    def __init__(self, one: nn.Module, other: nn.Module, limit: float) -> None:
        super().__init__()
        self.one, self.other, self.limit = one, other, limit

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) if float(x.mean()) > self.limit else self.other(x)
        return out


class ByLength(nn.Module):
    """Another body for long inputs than for short ones."""

    def __init__(self, one: nn.Module, other: nn.Module, limit: int) -> None:
        super().__init__()
        self.one, self.other, self.limit = one, other, limit

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) if x.shape[1] <= self.limit else self.other(x)
        return out


class Experts(nn.Module):
    """Each token goes to the expert that a router chooses."""

    def __init__(self, width: int, inner: int, count: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat, out = x.reshape(-1, x.shape[-1]), torch.zeros_like(x).reshape(-1, x.shape[-1])
        weight, chosen = self.router(flat).softmax(-1).max(-1)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero().squeeze(1)
            if len(mine):
                out = out.index_add(0, mine, expert(flat[mine]) * weight[mine, None])
        return out.view_as(x)


class Reused(nn.Module):
    """One layer that is called several times."""

    def __init__(self, body: nn.Module, times: int) -> None:
        super().__init__()
        self.body, self.times = body, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.body(x)
        return x


class Scaled(Counts):
    """Multiplied by a number that is computed from the count of channels."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.count(x) ** -0.5
        return out


@dataclass
class Settings:
    """Sizes that a module does not keep among its own attributes."""

    width: int
    heads: int


class Configured(nn.Module):
    """Its sizes stand in a plain object, a dict or a list."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.config: Any = {
            "dataclass": Settings(width, heads),
            "dict": {"width": width, "heads": heads},
            "list": [width, heads],
        }[how]
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def sizes(self) -> tuple[int, int]:
        """Width and heads."""
        config = self.config
        if self.how == "dataclass":
            return config.width, config.heads
        return (config["width"], config["heads"]) if self.how == "dict" else tuple(config)

    def forward(self, x: Tensor) -> Tensor:
        width, heads = self.sizes()
        y = self.up(x).view(*x.shape[:2], heads, width // heads)
        out: Tensor = self.down(torch.relu(y).reshape(*x.shape[:2], width))
        return out


class Windowed(nn.Module):
    """Adds the mean of the last few steps: a limit that may equal a width."""

    def __init__(self, width: int, limit: int) -> None:
        super().__init__()
        self.limit, self.layer = limit, nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + x[:, -self.limit :].mean(1, keepdim=True)
        return out


class Dense(nn.Module):
    """What a body makes of its input, behind it or before it."""

    def __init__(self, body: nn.Module, first: bool) -> None:
        super().__init__()
        self.body, self.first = body, first

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.body(x), x]
        return torch.cat(parts if self.first else parts[::-1], -1)


class Partial(nn.Module):
    """Only the first channels are changed."""

    def __init__(self, width: int, first: int) -> None:
        super().__init__()
        self.first, self.layer = first, nn.Linear(first, first)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x[..., : self.first]), x[..., self.first :]], -1)


class Rearranged(nn.Module):
    """Steps in another order, a cumulative sum, or a pad: nothing that channels notice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "roll":
            return torch.roll(x, 1, 1)
        if self.how == "cumsum":
            return x.cumsum(1) / x.shape[1]
        if self.how == "pad":
            return F.pad(x, (0, 0, 1, 0))[:, :-1]
        if self.how == "sort":
            return x.sort(1).values
        return x.gather(1, x.detach().argsort(1))


class SetInForward(nn.Module):
    """A weight that forward computes from another one: standardised, or cut to a length of one."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.weight, self.how = nn.Parameter(torch.randn(out, width)), how

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self.how == "rows":
            weight = weight / weight.norm(dim=1, keepdim=True)
        elif self.how == "centred":
            weight = weight - weight.mean(1, keepdim=True)
        return F.linear(x, weight)


def _linear(draw: Draw, width: int) -> Part:
    out = draw.size()
    return nn.Sequential(nn.Linear(width, out, bias=draw.yes(0.8)), draw.activation()), out


def _norm(draw: Draw, width: int) -> nn.Module:
    return draw.of(
        nn.LayerNorm(width),
        nn.LayerNorm(width, elementwise_affine=False),
        Rms(width),
        Rms(width, root=True),
        nn.RMSNorm(width),
        OverTime(nn.BatchNorm1d(width)),
        OverTime(nn.GroupNorm(draw.divisor(width, 2, 4), width)),
        nn.Identity(),
    )


def _mlp(draw: Draw, width: int) -> Part:
    inner = draw.size()
    how = draw.of("glu", "chunk", "split", "slices", "view", "plain", "plain")
    body: nn.Module = nn.Sequential(
        nn.Linear(width, inner), draw.activation(), nn.Linear(inner, width)
    )
    if how != "plain":
        body = Gated(width, inner, how)
    return Residual(body, _norm(draw, width), draw.yes(0.3)), width


def _recurrent(draw: Draw, width: int) -> Part:
    hidden, both = draw.size(), draw.yes(0.3)
    kind = draw.of(nn.LSTM, nn.GRU, nn.RNN)
    more: dict[str, Any] = {"num_layers": draw.of(1, 1, 2), "bidirectional": both}
    if kind is nn.LSTM and draw.yes(0.2) and hidden > 4:
        more["proj_size"] = 4
    layer = kind(width, hidden, batch_first=True, **more)
    return Recurrent(layer, draw.yes(0.2)), more.get("proj_size", hidden) * (1 + both)


def _normed_weight(draw: Draw, width: int) -> Part:
    norms: list[Callable[[nn.Module], nn.Module]] = [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
    ]
    out, norm = draw.size(), draw.of(*norms)
    return nn.Sequential(norm(nn.Linear(width, out)), draw.activation()), out


def _orders(draw: Draw, width: int) -> Part:
    return Rearranged(draw.of("roll", "cumsum", "pad", "sort", "gather")), width


def _low_rank(draw: Draw, width: int) -> Part:
    out = draw.size()
    return LowRank(width, out, draw.of(2, 4), draw.yes()), out


def _convolved(draw: Draw, width: int) -> Part:
    out = draw.size()
    groups = draw.of(1, 1, width) if out % width == 0 else 1
    layer = nn.Conv1d(width, out, 3, padding=1, groups=groups)
    return OverTime(nn.Sequential(layer, draw.activation())), out


def _two(draw: Draw, width: int) -> tuple[nn.Module, nn.Module]:
    one, other = (
        nn.Sequential(
            nn.Linear(width, inner := draw.size()), draw.activation(), nn.Linear(inner, width)
        )
        for _ in range(2)
    )
    return one, other


def _dense(draw: Draw, width: int) -> Part:
    out = draw.size()
    return Dense(nn.Linear(width, out), draw.yes()), width + out


def _set_in_forward(draw: Draw, width: int) -> Part:
    out = draw.size()
    return SetInForward(width, out, draw.of("rows", "centred", "plain")), out


MAKERS: dict[str, Maker] = {
    "linear": _linear,
    "mlp": _mlp,
    "recurrent": _recurrent,
    "parametrised": _normed_weight,
    "order": _orders,
    "low rank": _low_rank,
    "conv1d": _convolved,
    "positions": lambda draw, width: (
        Positions(width, draw.of(12, 16, 24), draw.of("slice", "clamped", "modulo")),
        width,
    ),
    "relative": lambda draw, width: (
        Relative(width, draw.divisor(width, 2, 4), draw.size()),
        width,
    ),
    "by value": lambda draw, width: (ByValue(*_two(draw, width), draw.of(0.0, -0.1)), width),
    "by length": lambda draw, width: (ByLength(*_two(draw, width), draw.size()), width),
    "experts": lambda draw, width: (Experts(width, draw.size(), draw.of(2, 3)), width),
    "reused": lambda draw, width: (
        Reused(Residual(nn.Linear(width, width), _norm(draw, width)), 2),
        width,
    ),
    "scaled": lambda draw, width: (Scaled(), width),
    "configured": lambda draw, width: (
        Configured(width, draw.divisor(width, 2, 4), draw.of("dataclass", "dict", "list")),
        width,
    ),
    "windowed": lambda draw, width: (Windowed(width, draw.size()), width),
    "dense": _dense,
    "partial": lambda draw, width: (Partial(width, width // draw.of(2, 2, 4)), width),
    "set in forward": _set_in_forward,
}
