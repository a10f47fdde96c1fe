"""Random networks on sequences, of attention, gates, splits, reshapes, windows, grouped
convolutions and token mixing.

Whatever `prune` hands back computes, on other inputs and another batch size, what the masked
original computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
import within
from hypothesis import event, given
from hypothesis import strategies as st
from torch import Tensor, nn

import niwaki
from niwaki.methods.base.cut import Cut
from niwaki.proof.reference import reference_outputs

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")

TOKENS, SIDE = 16, 4


class Attention(nn.Module):
    """Fused or separate projections, whole or grouped keys, written out or by torch, its sizes
    asked for or inferred.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dim: int,
        shared: int,
        layout: str,
        written_out: bool,
        asks: bool,
    ) -> None:
        super().__init__()
        self.heads, self.dim, self.shared = heads, dim, shared
        self.layout, self.written_out, self.asks = layout, written_out, asks
        if layout == "separate":
            self.q, self.k, self.v = (
                nn.Linear(width, n * dim) for n in (heads, heads // shared, heads // shared)
            )
        else:
            self.qkv = nn.Linear(width, 3 * heads * dim)
        self.out = nn.Linear(heads * dim, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        heads = self.heads if self.asks else -1
        if self.layout == "separate":
            q = self.q(x).view(b, n, heads, self.dim).transpose(1, 2)
            k, v = (layer(x).view(b, n, -1, self.dim).transpose(1, 2) for layer in (self.k, self.v))
            if self.shared > 1:
                k, v = (part.repeat_interleave(self.shared, 1) for part in (k, v))
        elif self.layout == "parts":
            q, k, v = (
                part.view(b, n, heads, self.dim).transpose(1, 2)
                for part in self.qkv(x).chunk(3, -1)
            )
        elif self.layout == "outer":
            q, k, v = self.qkv(x).view(b, n, 3, heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = self.qkv(x).view(b, n, heads, 3, self.dim).permute(3, 0, 2, 1, 4)
        if self.written_out:
            seen = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v
        else:
            seen = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        out: Tensor = self.out(seen.transpose(1, 2).reshape(b, n, -1))
        return out


class Windows(nn.Module):
    """Runs its body on windows of four tokens."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        b, _, c = x.shape
        cut = x.view(b, 2, 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        out: Tensor = (
            self.body(cut).view(b, 2, 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, TOKENS, -1)
        )
        return out


class Mlp(nn.Module):
    """Plain, gated by the half of one layer, or gated by a second layer."""

    def __init__(self, width: int, inner: int, kind: str, activation: nn.Module) -> None:
        super().__init__()
        self.kind, self.activation = kind, activation
        self.up = nn.Linear(width, 2 * inner if kind == "halves" else inner)
        if kind == "two":
            self.gate = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.kind == "halves":
            y, gate = y.chunk(2, -1)
            y = y * self.activation(gate)
        else:
            y = self.activation(y) * (self.gate(x) if self.kind == "two" else 1)
        out: Tensor = self.down(y)
        return out


class AsImage(nn.Module):
    """Tokens as an image, through convolutions, and back."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        image = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], SIDE, SIDE)
        out: Tensor = self.body(image).flatten(2).transpose(1, 2)
        return out


class Parts(nn.Module):
    """Splits the channels unevenly, changes the first part, and puts them together again, maybe the
    other way round.
    """

    def __init__(self, width: int, first: int, swap: bool) -> None:
        super().__init__()
        self.sizes, self.swap = [first, width - first], swap
        self.change = nn.Linear(first, first)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split(self.sizes, -1)
        a = torch.relu(self.change(a))
        return torch.cat([b, a] if self.swap else [a, b], -1)


class OverTokens(nn.Module):
    """Mixes tokens instead of channels."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(TOKENS, inner), nn.Linear(inner, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(torch.tanh(self.up(x.transpose(1, 2)))).transpose(1, 2)
        return out


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


class Network(nn.Module):
    """Pre-normalised blocks on a stream with positions, some of them residual; pooled, or the first
    token read.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: list[tuple[nn.Module, nn.Module, bool]],
        last: nn.Module,
        pooled: bool,
    ) -> None:
        super().__init__()
        width = within.size(stem, "out_features")
        self.stem, self.last, self.pooled = stem, last, pooled
        self.positions = nn.Parameter(torch.randn(1, TOKENS, width))
        self.norms = nn.ModuleList(norm for norm, _, _ in blocks)
        self.bodies = nn.ModuleList(body for _, body, _ in blocks)
        self.residual = [residual for _, _, residual in blocks]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.positions
        for norm, body, residual in zip(self.norms, self.bodies, self.residual, strict=True):
            x = x + body(norm(x)) if residual else body(norm(x))
        out: Tensor = self.last(x.mean(1) if self.pooled else x[:, 0])
        return out


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 2**16)))
    width = draw(st.sampled_from([4, 6, 8, 12]))
    activations = st.sampled_from([nn.GELU, nn.ReLU, nn.SiLU])
    norms: list[Callable[[int], nn.Module]] = [nn.LayerNorm, RmsNorm, lambda _: nn.Identity()]

    def attention() -> nn.Module:
        heads = draw(st.sampled_from([2, 3, 4]))
        layout = draw(st.sampled_from(["separate", "parts", "outer", "inner"]))
        shared = (
            draw(st.sampled_from([n for n in (1, 2, 4) if heads % n == 0]))
            if layout == "separate"
            else 1
        )
        dim = draw(st.sampled_from([2, 3, 5]))
        return Attention(
            width, heads, dim, shared, layout, draw(st.booleans()), draw(st.booleans())
        )

    def body() -> nn.Module:
        kind = draw(
            st.sampled_from(
                ["attention", "attention", "windows", "mlp", "mlp", "image", "parts", "tokens"]
            )
        )
        if kind == "attention":
            return attention()
        if kind == "windows":
            return Windows(attention())
        if kind == "mlp":
            inner = draw(st.sampled_from([4, 7, 10]))
            return Mlp(
                width, inner, draw(st.sampled_from(["plain", "halves", "two"])), draw(activations)()
            )
        if kind == "image":
            groups = draw(st.sampled_from([g for g in (1, 2, 3, width) if width % g == 0]))
            inner = draw(st.sampled_from([6, 8]))
            first = nn.Conv2d(width, inner, 1)
            return AsImage(
                nn.Sequential(
                    nn.Conv2d(width, width, 3, padding=1, groups=groups),
                    first,
                    nn.GELU(),
                    nn.Conv2d(inner, width, 1),
                )
            )
        if kind == "parts":
            return Parts(width, draw(st.integers(1, width - 1)), draw(st.booleans()))
        return OverTokens(draw(st.sampled_from([5, 8])))

    blocks = [
        (draw(st.sampled_from(norms))(width), body(), draw(st.booleans()))
        for _ in range(draw(st.integers(1, 4)))
    ]
    return (
        Network(nn.Linear(5, width), blocks, nn.Linear(width, 3), draw(st.booleans()))
        .double()
        .eval()
    )


@given(
    networks(),
    st.sampled_from([0.25, 0.5, 0.7]),
    st.sampled_from(["local", "global"]),
    st.sampled_from(["l2", "random"]),
)
def test_what_comes_back_is_the_masked_original(
    model: nn.Module, share: float, scope: Any, criterion: str
) -> None:
    x = torch.randn(2, TOKENS, 5, dtype=torch.float64)
    try:
        result = niwaki.prune(
            model, x, criterion=criterion, budget=share, scope=scope, compensation="none"
        )
    except niwaki.NiwakiError as error:
        event(f"refused: {type(error).__name__}")
        return
    left_whole = [name for name, note in result.notes.items() if note.startswith("left whole")]
    event("a group was left whole" if left_whole else "all groups were pruned")
    graph, other = niwaki.trace(model, x), torch.randn(2, TOKENS, 5, dtype=torch.float64)
    wanted, found = (
        reference_outputs(Cut(graph, result.plan), other),
        oracle.outputs(result.model, other),
    )
    assert oracle.distance(wanted, found) < 1e-10
    one_by_one = torch.cat([oracle.outputs(result.model, other[i : i + 1])[0] for i in range(2)])
    assert oracle.distance([one_by_one], found) < 1e-10
    if oracle.is_simple(graph, result.plan):
        assert (
            oracle.distance(oracle.outputs(oracle.masked(graph, result.plan, {}), other), found)
            < 1e-10
        )


def test_every_kind_of_block_is_pruned() -> None:
    """The families above are not refused: half of each goes, and what each keeps for itself is
    smaller.
    """
    torch.manual_seed(0)
    bodies: dict[str, nn.Module] = {
        f"{layout}, {'asks' if asks else 'infers'}": Attention(
            8, 4, 3, shared, layout, written, asks
        )
        for layout, shared in (
            ("separate", 1),
            ("separate", 2),
            ("parts", 1),
            ("outer", 1),
            ("inner", 1),
        )
        for asks in (True, False)
        for written in (True,)
    }
    bodies["windows"] = Windows(Attention(8, 4, 3, 1, "parts", False, True))
    bodies.update({kind: Mlp(8, 10, kind, nn.GELU()) for kind in ("plain", "halves", "two")})
    bodies["image"] = AsImage(
        nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 6, 1),
            nn.GELU(),
            nn.Conv2d(6, 8, 1),
        )
    )
    bodies["tokens"] = OverTokens(8)
    for name, body in bodies.items():
        model = (
            Network(nn.Linear(5, 8), [(nn.LayerNorm(8), body, True)], nn.Linear(8, 3), True)
            .double()
            .eval()
        )
        result = niwaki.prune(
            model, torch.randn(2, TOKENS, 5, dtype=torch.float64), compensation="none"
        )
        inside = [group for group in result.plan.kept if group.startswith("bodies.0")]
        assert inside, name
        before, after = (
            niwaki.count_params(network.get_submodule("bodies"))
            for network in (model, result.model)
        )
        assert after < 0.6 * before, name
