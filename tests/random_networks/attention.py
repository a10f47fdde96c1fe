"""Attention as people write it, for random networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as everybody calls it

from random_networks.draw import Draw, Maker, Part, Residual


class Attention(nn.Module):
    """Projections apart, in one, or in one by heads; masked or not, with what its code keeps."""

    def __init__(self, width: int, heads: int, how: str, mask: str, rotary: bool) -> None:
        super().__init__()
        self.width, self.heads, self.how, self.mask = width, heads, how, mask
        self.dim = width // heads
        self.rotary = rotary and self.dim % 2 == 0
        if how == "apart":
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        future = torch.full((32, 32), float("-inf")).triu(1)
        self.future: Tensor
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.projected(x)
        if self.rotary:
            q, k = _turned(q), _turned(k)
        if self.mask == "causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.dim)
            if self.mask == "buffer":
                scores = scores + self.future[:t, :t]
            elif self.mask == "sentinel":
                late = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
                scores = scores.masked_fill(late, -1e9)
            y = scores.softmax(-1) @ v
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, t, self.width))
        return out

    def projected(self, x: Tensor) -> list[Tensor]:
        """q, k, v: (batch, heads, time, dim)."""
        b, t, _ = x.shape
        if self.how == "apart":
            parts = [self.q(x), self.k(x), self.v(x)]
            return [p.view(b, t, self.heads, self.dim).transpose(1, 2) for p in parts]
        qkv = self.qkv(x)
        if self.how == "chunk":
            return [p.view(b, t, self.heads, self.dim).transpose(1, 2) for p in qkv.chunk(3, -1)]
        if self.how == "split":
            return [
                p.reshape(b, t, self.heads, -1).transpose(1, 2) for p in qkv.split(self.width, -1)
            ]
        return list(qkv.view(b, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0))


class Grouped(nn.Module):
    """Fewer heads of keys and values than of queries."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.dim = heads, shared, width // heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = (nn.Linear(width, width // shared) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (
            layer(x).view(b, t, -1, self.dim).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        k, v = (part.repeat_interleave(self.shared, 1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Torchs(nn.Module):
    """torch's own attention, with or without a mask."""

    def __init__(self, width: int, heads: int, mask: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.mask:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        out: Tensor = self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]
        return out


class Linear(nn.Module):
    """Attention without a softmax over time: keys and values meet first."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
        kv = torch.einsum("btc,btd->bcd", k, self.v(x))
        scale = torch.einsum("btc,bc->bt", q, k.sum(1)) + 1e-6
        out: Tensor = self.out(torch.einsum("btc,bcd->btd", q, kv) / scale[..., None])
        return out


class Pooled(nn.Module):
    """A learned query looks at all steps; what it sees is added to each."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(inner))
        self.key, self.value = nn.Linear(width, inner), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = (self.key(x) @ self.query).softmax(1)
        out: Tensor = x + (self.value(x) * seen[..., None]).sum(1, keepdim=True)
        return out


def _turned(x: Tensor) -> Tensor:
    """Rotary positions, by halves."""
    t, d = x.shape[-2:]
    angle = torch.arange(t, device=x.device)[:, None] * 100 ** -(
        torch.arange(0, d, 2, device=x.device) / d
    )
    cos, sin = (f(angle).to(x.dtype).repeat(1, 2) for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def _own(draw: Draw, width: int) -> Part:
    heads = draw.divisor(width, 2, 4)
    how, mask = (
        draw.of("apart", "chunk", "split", "view"),
        draw.of("", "causal", "buffer", "sentinel"),
    )
    body = Attention(width, heads, how, mask, draw.yes(0.3))
    return Residual(body, draw.of(nn.LayerNorm(width), nn.Identity())), width


def _grouped(draw: Draw, width: int) -> Part:
    heads = draw.divisor(width, 2, 4)
    return Residual(Grouped(width, heads, 2 if heads > 1 else 1), nn.LayerNorm(width)), width


def _torchs(draw: Draw, width: int) -> Part:
    heads = draw.divisor(width, 2, 4)
    if draw.yes(0.4):
        layer = nn.TransformerEncoderLayer(
            width, heads, draw.size(), dropout=0.0, batch_first=True, norm_first=draw.yes()
        )
        return layer, width
    return Residual(Torchs(width, heads, draw.yes()), nn.LayerNorm(width)), width


MAKERS: dict[str, Maker] = {
    "attention": _own,
    "grouped attention": _grouped,
    "torch's attention": _torchs,
    "linear attention": lambda draw, width: (Linear(width, draw.size()), width),
    "pooled attention": lambda draw, width: (Pooled(width, draw.size()), width),
}
