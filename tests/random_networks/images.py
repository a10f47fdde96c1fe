"""Parts of networks on images: (batch, channels, height, width) in and out, of the same area."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as everybody calls it
from torch.nn.utils import parametrizations

from random_networks.draw import Counts, Draw, Maker, Part, Residual


class Projected(nn.Module):
    """What a body makes of its input, added to what a convolution makes of it."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class Gated(nn.Module):
    """The first half of the channels times the sigmoid of the second."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * torch.sigmoid(second)


class Dense(nn.Module):
    """Its input and what a body makes of it, one behind the other."""

    def __init__(self, body: nn.Module, first: bool) -> None:
        super().__init__()
        self.body, self.first = body, first

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.body(x), x]
        return torch.cat(parts if self.first else parts[::-1], 1)


class Shuffle(nn.Module):
    """Channels of groups in turn, with the number of groups in an attribute."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class Gate(nn.Module):
    """Squeeze and excitation; where it asks for max and mean, over space or over channels."""

    def __init__(self, width: int, inner: int, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "space":
            self.layer: nn.Module = nn.Conv2d(2, 1, 3, padding=1)
        else:
            self.layer = nn.Sequential(
                nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "space":
            seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        elif self.how == "both":
            seen = x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)
        else:
            seen = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.layer(seen))


class Pyramid(nn.Module):
    """Down, changed, and up again to what it came from, joined with it."""

    def __init__(self, width: int, inner: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(inner, width, 2, stride=2) if how == "transposed" else None
        self.join = nn.Conv2d(width + (width if self.up else inner), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(x))
        if self.up is not None:
            y = self.up(y)[..., : x.shape[2], : x.shape[3]]
        else:
            y = F.interpolate(y, size=x.shape[2:], mode=self.how)
        out: Tensor = self.join(torch.cat([x, y], 1))
        return out


class Split(nn.Module):
    """Parts of the channels, each changed after the one before was added to it."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.size = width // parts
        self.layers = nn.ModuleList(
            nn.Conv2d(self.size, self.size, 3, padding=1) for _ in range(parts - 1)
        )
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.split(self.size, 1)
        outs, last = [first], first
        for layer, part in zip(self.layers, others, strict=True):
            last = F.relu(layer(part + last))
            outs.append(last)
        return torch.cat(outs, 1)


class Halves(nn.Module):
    """Half goes through, half is changed again and again; all of it is joined."""

    def __init__(self, width: int, inner: int, out: int, times: int) -> None:
        super().__init__()
        self.inner = inner
        self.first = nn.Conv2d(width, 2 * inner, 1)
        self.steps = nn.ModuleList(nn.Conv2d(inner, inner, 3, padding=1) for _ in range(times))
        self.last = nn.Conv2d((2 + times) * inner, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.first(x).split((self.inner, self.inner), 1))
        y.extend(F.silu(step(y[-1])) for step in self.steps)
        out: Tensor = self.last(torch.cat(y, 1))
        return out


class Norm2d(nn.Module):
    """A layer norm over channels that come first."""

    def __init__(self, width: int, written_out: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.shape, self.written_out = (width,), written_out

    def forward(self, x: Tensor) -> Tensor:
        if self.written_out:
            mean = x.mean(1, keepdim=True)
            spread = (x - mean).pow(2).mean(1, keepdim=True)
            x = (x - mean) / torch.sqrt(spread + 1e-6)
            return self.weight[:, None, None] * x + self.bias[:, None, None]
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


class Responses(nn.Module):
    """Every channel by how much it says, next to the mean of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        amount = x.norm(dim=(2, 3), keepdim=True)
        share = amount / (amount.mean(1, keepdim=True) + 1e-6)
        out: Tensor = x + self.scale * (x * share) + self.shift
        return out


class Merged(nn.Module):
    """Three branches in training, one kernel where its attribute says so."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_channels = width
        self.three, self.one = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.norm(x))


class Padded(nn.Module):
    """More channels by padding with zeros, beside what a convolution makes of them."""

    def __init__(self, width: int, more: int) -> None:
        super().__init__()
        self.more, self.layer = more, nn.Conv2d(width, width + more, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + F.pad(x, (0, 0, 0, 0, 0, self.more))
        return out


class Folded(nn.Module):
    """Space into channels and back, around a convolution."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4 * width, 4 * inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.pad(x, (0, w % 2, 0, h % 2))
        y = F.pixel_shuffle(self.layer(F.pixel_unshuffle(x, 2)), 2)
        return y[..., :h, :w]


class Patches(nn.Module):
    """Windows unfolded by hand into a matrix product."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, width * 9) / (width * 9) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight @ F.unfold(x, 3, padding=1)
        return y.view(x.shape[0], -1, *x.shape[2:])


class Tokens(Counts):
    """Attention between the places of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv = heads, nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        seen = (q.transpose(-2, -1) @ k * self.count(k, -2) ** -0.5).softmax(-1)
        out: Tensor = x + self.out((v @ seen.transpose(-2, -1)).reshape(b, c, h, w))
        return out


class Standardised(nn.Conv2d):
    """A convolution whose weight is standardised in forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        spread = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (weight - mean) / torch.sqrt(spread + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def _any_norm(draw: Draw, width: int) -> list[nn.Module]:
    norms = (
        nn.BatchNorm2d(width),
        nn.GroupNorm(draw.divisor(width, 1, 2, 4), width),
        nn.InstanceNorm2d(width, affine=draw.yes()),
        Norm2d(width, draw.yes()),
        Responses(width),
    )
    return [draw.of(norms[0], norms[0], *norms)] if draw.yes(0.7) else []


def _batch_norm(draw: Draw, width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width, affine=draw.yes())] if draw.yes() else []


def _conv(draw: Draw, width: int, norm: Callable[[Draw, int], list[nn.Module]] = _any_norm) -> Part:
    out = draw.size()
    layers: list[nn.Module] = [nn.Conv2d(width, out, draw.of(1, 3), padding="same")]
    layers += norm(draw, out)
    return nn.Sequential(*layers, draw.activation()), out


def _plain(draw: Draw, width: int) -> Part:
    """A convolution whose channels can go one by one: no statistics are taken over them."""
    return _conv(draw, width, _batch_norm)


def _grouped(draw: Draw, width: int) -> Part:
    groups = draw.divisor(width, 2, 3, 4)
    shuffle = [Shuffle(groups)] if draw.yes() else []
    layer = nn.Conv2d(width, groups * draw.of(2, 4), 3, padding=1, groups=groups)
    return nn.Sequential(layer, *shuffle, draw.activation()), layer.out_channels


def _depthwise(draw: Draw, width: int) -> Part:
    out = draw.size()
    deep = nn.Conv2d(width, width * draw.of(1, 2), 3, padding=1, groups=width)
    return nn.Sequential(deep, nn.BatchNorm2d(deep.out_channels), draw.activation(),
                         nn.Conv2d(deep.out_channels, out, 1)), out  # fmt: skip


def _residual(draw: Draw, width: int, conv: Maker = _conv) -> Part:
    one, inner = conv(draw, width)
    last = nn.Conv2d(inner, width, 3, padding=1)
    return Residual(nn.Sequential(one, last), nn.Identity()), width


def _projected(draw: Draw, width: int) -> Part:
    body, out = _plain(draw, width)
    return Projected(body, nn.Conv2d(width, out, 1, bias=False)), out


def _normed_weight(draw: Draw, width: int) -> Part:
    norms: list[Callable[[nn.Module], nn.Module]] = [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
    ]
    out, norm = draw.size(), draw.of(*norms)
    return nn.Sequential(norm(nn.Conv2d(width, out, 3, padding=1)), draw.activation()), out


def _dense(draw: Draw, width: int) -> Part:
    out = draw.size()
    return Dense(nn.Conv2d(width, out, 3, padding=1), draw.yes()), width + out


def _pool(draw: Draw, width: int) -> Part:
    return draw.of(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)), width


def _halves(draw: Draw, width: int) -> Part:
    out = draw.size()
    return Halves(width, draw.of(2, 4, 6), out, draw.of(1, 2)), out


def _folded(draw: Draw, width: int) -> Part:
    out = draw.of(2, 4, 6)
    return Folded(width, out), out


def _patches(draw: Draw, width: int) -> Part:
    out = draw.size()
    return Patches(width, out), out


def _standardised(draw: Draw, width: int) -> Part:
    out = draw.size()
    return nn.Sequential(Standardised(width, out, 3, padding=1), nn.ReLU()), out


def _padded(draw: Draw, width: int) -> Part:
    more = draw.of(2, 4)
    return Padded(width, more), width + more


MAKERS: dict[str, Maker] = {
    "conv": _conv,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "residual": _residual,
    "parametrised": _normed_weight,
    "dense": _dense,
    "gate": lambda draw, width: (
        Gate(width, draw.size(), draw.of("mean", "both", "space")),
        width,
    ),
    "pyramid": lambda draw, width: (
        Pyramid(width, draw.size(), draw.of("nearest", "bilinear", "transposed")),
        width,
    ),
    "split": lambda draw, width: (Split(width, draw.divisor(width, 2, 3, 4)), width),
    "halves": _halves,
    "merged": lambda draw, width: (Merged(width), width),
    "padded": _padded,
    "folded": _folded,
    "patches": _patches,
    "tokens": lambda draw, width: (Tokens(width, draw.divisor(width, 2, 4)), width),
    "standardised": _standardised,
    "pool": _pool,
}

# of which any units can go, so that a test may choose them freely
PLAIN: dict[str, Maker] = {
    "conv": _plain,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "residual": lambda draw, width: _residual(draw, width, _plain),
    "projected": _projected,
    "dense": _dense,
    "gated": lambda draw, width: (Gated(), width // 2) if width % 2 == 0 else _plain(draw, width),
    "pool": _pool,
}
