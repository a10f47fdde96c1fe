"""Operators that carry channels, each in several variants: pruned, proved, and held against the
masked original.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import within
from proving import left, proved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import niwaki
from niwaki.models.factory import provenance

Step = Callable[[Tensor], Tensor]
WIDTH = 12


class Image(nn.Module):
    """A map of 12 channels, something done to it, and a head that reads `out` channels."""

    shape = (2, 3, 8, 8)

    def __init__(self, step: Step, out: int = WIDTH) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(out, 4, 1)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.step(torch.relu(self.first(x))))
        return out


class Sequence(nn.Module):
    """The same for six steps of 12 channels."""

    shape = (2, 6, 5)

    def __init__(self, step: Step, out: int = WIDTH) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, WIDTH), nn.Linear(out, 3)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.step(torch.relu(self.first(x))))
        return out


def halved(model: Image | Sequence) -> None:
    """Half of the twelve channels go, by both proofs, and every operator is known."""
    torch.manual_seed(0)
    x = torch.randn(model.shape)
    assert not niwaki.trace(model.eval(), x).unknown
    small = proved(model, x).model
    assert within.tensor(small, "first.weight").shape[0] == WIDTH // 2


def whole(model: Image | Sequence, why: str) -> None:
    """The channels stay, for this reason."""
    graph = niwaki.trace(model.eval(), torch.randn(model.shape))
    assert not graph.groups
    assert any(why in str(item.reason) for item in graph.frozen), str(graph)


def per_map(x: Tensor) -> Tensor:
    return x[..., None, None]


EXTREMES: dict[str, Step] = {
    "max over channels": lambda x: x * torch.sigmoid(torch.max(x, 1, keepdim=True)[0]),
    "max over channels, no axis kept": lambda x: x * x.max(1)[0][:, None],
    "max of all": lambda x: x / (1 + x.max()),
    "max over space": lambda x: per_map(x.flatten(2).max(2)[0]),
    "amax": lambda x: x / (1 + x.amax()),
    "median over space": lambda x: per_map(x.flatten(2).median(2)[0]),
    "kthvalue over space": lambda x: per_map(x.flatten(2).kthvalue(3, 2)[0]),
    "positions of space used": lambda x: x + per_map(x.flatten(2).max(2)[1]),
    "aminmax": lambda x: x / (1 + torch.aminmax(x, dim=1, keepdim=True)[1]),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(name: str) -> None:
    halved(Image(EXTREMES[name]))


def test_a_minimum_over_channels_is_taken_over_the_kept_ones() -> None:
    def step(x: Tensor) -> Tensor:
        return x * torch.sigmoid((x + 1).min(1, keepdim=True)[0])

    torch.manual_seed(0)
    model, x = Image(step), torch.randn(2, 3, 8, 8)
    result = proved(model, x, silence=False)  # a silenced unit would be the least
    kept = list(result.plan["first"].units)
    maps = torch.relu(model.first(x))[:, kept]
    by_hand = F.conv2d(step(maps), model.last.weight[:, kept], model.last.bias)
    assert torch.allclose(by_hand, result.model(x), atol=1e-5)


@pytest.mark.parametrize("name", ["max", "min", "median", "mode"])
def test_channels_whose_position_is_read_stay(name: str) -> None:
    whole(Image(lambda x: x + getattr(torch, name)(x, 1, keepdim=True)[1]), "told apart by")


def rows(x: Tensor) -> Tensor:
    return torch.tensor([1, 0, 2, 2, 5, 3])[None, :, None].expand(x.shape)


SCATTERS: dict[str, Step] = {
    "scatter": lambda x: torch.zeros_like(x).scatter(1, rows(x), x),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, rows(x), x),
    "scatter_reduce amax": lambda x: torch.zeros_like(x).scatter_reduce(1, rows(x), x, "amax"),
    "scatter_reduce mean": lambda x: x.new_zeros(x.shape).scatter_reduce(1, rows(x), x, "mean"),
    "scatter of a number": lambda x: x.scatter(1, rows(x)[:, :1], 0.5),
    "gather": lambda x: x.gather(1, rows(x)),
    "gather by order": lambda x: x.gather(1, x.argsort(1)),
    "take_along_dim": lambda x: torch.take_along_dim(x, torch.arange(6).view(1, 6, 1), 1),
    "index_copy": lambda x: torch.zeros_like(x).index_copy(1, torch.arange(6).flip(0), x),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([0]), 0.5),
    "slice_scatter": lambda x: torch.slice_scatter(torch.zeros_like(x), x[:, :3], 1, 0, 3),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
}


@pytest.mark.parametrize("name", SCATTERS)
def test_writing_and_reading_by_rows(name: str) -> None:
    halved(Sequence(SCATTERS[name]))


def test_channels_that_are_written_by_index_stay() -> None:
    index = torch.arange(WIDTH).flip(0)[None, None].expand(2, 6, -1)
    whole(Sequence(lambda x: torch.zeros_like(x).scatter(2, index, x)), "written by index by")


def graph_layer(how: str) -> type[nn.Module]:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            source, target = edges
            sums, index = torch.zeros_like(x), target[:, None].expand(-1, x.shape[1])
            if how == "scatter_add":
                y: Tensor = self.last(sums.scatter_add(0, index, x[source]))
                return y
            if how == "index_add":
                whole: Tensor = self.last(sums.index_add(0, target, x[source]))
                return whole
            out: Tensor = self.last(sums.scatter_reduce(0, index, x[source], how))
            return out

    return Layer


@pytest.mark.parametrize("how", ["scatter_add", "index_add", "amax", "sum", "mean"])
def test_messages_between_nodes(how: str) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(9, 5), torch.randint(0, 9, (2, 30)))
    assert within.tensor(proved(graph_layer(how)(), inputs).model, "first.weight").shape[0] == 6


def unpooled(x: Tensor, size: int = 2) -> Tensor:
    y, places = F.max_pool2d(x, size, size, return_indices=True)
    return F.max_unpool2d(y, places, [size, size], [size, size])


def unpooled_again(x: Tensor) -> Tensor:
    y, first = F.max_pool2d(x, 2, return_indices=True)
    z, second = F.max_pool2d(y, 2, return_indices=True)
    return F.max_unpool2d(torch.sigmoid(F.max_unpool2d(z, second, [2, 2])), first, [2, 2])


def unpooled_volume(x: Tensor) -> Tensor:
    y, places = F.max_pool3d(x[:, :, None], (1, 2, 2), return_indices=True)
    return F.max_unpool3d(y, places, (1, 2, 2))[:, :, 0]


@pytest.mark.parametrize(
    "step", [unpooled, lambda x: unpooled(x, 4), unpooled_again, unpooled_volume]
)
def test_unpooling_by_stored_positions(step: Step) -> None:
    halved(Image(step))


FOURIER: dict[str, Step] = {
    "there and back": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=x.shape[-2:]),
    "real part": lambda x: torch.fft.fft2(x).real,
    "shifted magnitude": lambda x: torch.fft.fftshift(torch.fft.fft2(x).abs(), dim=(-2, -1)),
    "both parts": lambda x: torch.view_as_real(torch.fft.rfft(x)).sum(-1),
    "low frequencies": lambda x: torch.fft.irfft(torch.fft.rfft(x)[..., :3], n=x.shape[-1]),
    "phase": lambda x: torch.fft.fft(x).angle(),
    "conjugate": lambda x: torch.fft.ifft(torch.fft.fft(x).conj()).imag,
}


@pytest.mark.parametrize("name", FOURIER)
def test_transforms_over_space(name: str) -> None:
    halved(Image(FOURIER[name]))


def test_transforms_over_time_carry_channels_and_over_channels_they_do_not() -> None:
    halved(Sequence(lambda x: torch.fft.fft(x, dim=1).real))
    whole(Sequence(lambda x: torch.fft.fft(x, dim=2).real), "transformed by")


def test_pairs_of_channels_as_complex_numbers_go_in_pairs() -> None:
    def turned(x: Tensor) -> Tensor:
        angles = torch.polar(torch.ones(6, 1), torch.arange(6.0)[:, None])
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * angles).flatten(-2)

    torch.manual_seed(0)
    result = proved(Sequence(turned), torch.randn(2, 6, 5))
    assert within.tensor(result.model, "first.weight").shape[0] == 6


class Spectral(nn.Module):
    """A Fourier layer with complex weights."""

    def __init__(self, modes: int = 4) -> None:
        super().__init__()
        self.first, self.last, self.modes = nn.Conv1d(2, 12, 1), nn.Conv1d(12, 1, 1), modes
        self.weight = nn.Parameter(torch.randn(12, 12, modes, dtype=torch.cfloat) / 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        low = torch.fft.rfft(x)[..., : self.modes]
        mixed = torch.einsum("bim,iom->bom", low, self.weight)
        out: Tensor = self.last(torch.relu(torch.fft.irfft(mixed, n=x.shape[-1])))
        return out


@pytest.mark.filterwarnings("error:Casting complex")
@pytest.mark.parametrize("modes", [1, 4, 8])
def test_complex_weights_are_cut(modes: int) -> None:
    torch.manual_seed(0)
    small = proved(Spectral(modes), torch.randn(2, 2, 16)).model
    assert small.weight.shape == (6, 6, modes)
    given = [torch.randn(8, 2, 16)]
    for repair, inputs in (("moments", None), ("moments", given), ("reconstruct", given)):
        model, x = Spectral(modes).eval(), torch.randn(2, 2, 16)
        result = niwaki.prune(model, x, compensation=repair, calibration=inputs)
        assert "complex numbers" in result.notes["first"]


def sampled(x: Tensor, mode: str = "bilinear") -> Tensor:
    turn = torch.tensor([[1.0, 0.2, 0], [0, 0.9, 0.1]]).expand(x.shape[0], 2, 3)
    grid = F.affine_grid(turn, [x.shape[0], 1, 5, 7], align_corners=False)
    return F.grid_sample(x, grid, mode=mode, align_corners=False)


PLACES: dict[str, Step] = {
    "grid_sample": sampled,
    "grid_sample nearest": lambda x: sampled(x, "nearest"),
    "affine_grid of all sizes": lambda x: F.grid_sample(
        x,
        F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), list(x.shape), align_corners=True),
        align_corners=True,
    ),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "fold without overlap": lambda x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2),
    "roll": lambda x: torch.roll(x, (1, 2), (2, 3)),
    "flip": lambda x: x.flip(-1) + x.flip(2),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "rot90 twice": lambda x: x + torch.rot90(x, 2, (2, 3)),
    "instance norm": F.instance_norm,
    "layer norm over space": lambda x: F.layer_norm(x, x.shape[2:]),
    "softmax over space": lambda x: x * x.flatten(2).softmax(-1).view_as(x),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "pad reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pad circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    **{
        f"interpolate {mode}": partial(F.interpolate, scale_factor=2, mode=mode)
        for mode in ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
    },
    "interpolate smoothly": lambda x: F.interpolate(x, size=5, mode="bilinear", antialias=True),
    "every other channel": lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 3),
    "channel_shuffle of two": lambda x: F.channel_shuffle(x, 2),
    "unshuffle and shuffle": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2),
}


@pytest.mark.parametrize("name", PLACES)
def test_channels_keep_to_themselves(name: str) -> None:
    if "channel" in name:
        shuffled(Image(PLACES[name]))
    else:
        halved(Image(PLACES[name]))


def shuffled(model: Image) -> None:
    """Channels that are tied in twos or threes go so."""
    torch.manual_seed(0)
    result = proved(model, torch.randn(model.shape))
    assert within.tensor(result.model, "first.weight").shape[0] == WIDTH // 2


STEPS: dict[str, Step] = {
    "cumsum": lambda x: x.cumsum(1),
    "cummax": lambda x: x.cummax(1)[0],
    "cumprod": lambda x: x.cumprod(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "diff": lambda x: x.diff(dim=1),
    "sort": lambda x: x.sort(1)[0],
    "stable sort": lambda x: x.sort(dim=1, stable=True)[0],
    "topk": lambda x: x.topk(3, 1)[0],
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "repeats by tensor": lambda x: x.repeat_interleave(torch.tensor([1, 2, 1, 1, 2, 1]), 1),
    "tile": lambda x: x.tile(1, 2, 1),
    "tril": lambda x: torch.ones(6, 6).tril() @ x,
    "triu of products": lambda x: (x @ x.transpose(1, 2)).triu() @ x,
    "tril_indices": lambda x: x[:, torch.tril_indices(6, 6)[0]],
    "unique": lambda x: x + torch.unique(torch.arange(6)).float()[:, None],
    "nansum": lambda x: x * x.nansum(1, keepdim=True),
    "count_nonzero": lambda x: x / (1 + x.count_nonzero(1)[:, None]),
    "any": lambda x: x * (x > 0).any(1, keepdim=True),
    "distances": lambda x: (-torch.cdist(x, x)).softmax(-1) @ x,
    "distances by ones": lambda x: (-torch.cdist(x, x, p=1.0)).softmax(-1) @ x,
    "windows": lambda x: x.unfold(1, 3, 1).mean(-1),
    "complex": lambda x: torch.complex(x, x).abs(),
}


@pytest.mark.parametrize("name", STEPS)
def test_channels_through_operators_over_time(name: str) -> None:
    halved(Sequence(STEPS[name]))


def test_gates_of_two_halves_stay_halves() -> None:
    torch.manual_seed(0)
    result = proved(Sequence(lambda x: F.glu(x, -1), out=6), torch.randn(2, 6, 5))
    assert within.tensor(result.model, "first.weight").shape[0] == 6
    assert within.tensor(result.model, "last.weight").shape[1] == 3


class Bag(nn.Module):
    def __init__(self, mode: str, weighted: bool = False) -> None:
        super().__init__()
        self.weighted, self.table = weighted, nn.EmbeddingBag(20, WIDTH, mode=mode)
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, words: Tensor) -> Tensor:
        by = torch.full(words.shape, 0.5) if self.weighted else None
        out: Tensor = self.last(torch.relu(self.table(words, per_sample_weights=by)))
        return out


@pytest.mark.parametrize(
    ("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False), ("max", False)]
)
def test_bags_of_embeddings(mode: str, weighted: bool) -> None:
    torch.manual_seed(0)
    small = proved(Bag(mode, weighted), torch.randint(0, 20, (4, 3))).model
    assert within.tensor(small, "table.weight").shape == (20, 6)
    assert within.size(small, "table.embedding_dim") == 6


class Packed(nn.Module):
    def __init__(self, kind: type[nn.Module], ordered: bool) -> None:
        super().__init__()
        self.first, self.last, self.ordered = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3), ordered
        self.cells = kind(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            torch.relu(self.first(x)), lengths, batch_first=True, enforce_sorted=self.ordered
        )
        out: Tensor = self.last(pad_packed_sequence(self.cells(packed)[0], batch_first=True)[0])
        return out


@pytest.mark.parametrize(("kind", "ordered"), [(nn.GRU, False), (nn.LSTM, True), (nn.RNN, False)])
def test_packed_sequences(kind: type[nn.Module], ordered: bool) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(3, 6, 5), torch.tensor([6, 4, 3]))
    model = Packed(kind, ordered).eval()
    assert not niwaki.trace(model, inputs).unknown
    result = proved(model, inputs)
    assert left(model, result) < 0.5


class Bins(nn.Module):
    edges: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.how, self.table = how, nn.Embedding(12, WIDTH)
        self.register_buffer("edges", torch.linspace(-2, 2, 11))

    def forward(self, x: Tensor) -> Tensor:
        value = x[..., 0].contiguous()
        if self.how == "bucketize":
            place = torch.bucketize(value, self.edges)
        elif self.how == "searchsorted":
            place = torch.searchsorted(self.edges, value)
        else:
            place = torch.searchsorted(self.edges.expand(len(x), -1).contiguous(), value)
        out: Tensor = self.last(torch.relu(self.first(x)) + self.table(place))
        return out


@pytest.mark.parametrize("how", ["bucketize", "searchsorted", "rows of edges"])
def test_bins_of_values(how: str) -> None:
    torch.manual_seed(0)
    model, x = Bins(how).eval(), torch.randn(2, 6, 5)
    assert not niwaki.trace(model, x).unknown
    assert within.tensor(proved(model, x).model, "table.weight").shape == (12, 6)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(WIDTH,), (6, WIDTH)])
def test_norms_with_and_without_weights(name: str, affine: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Sequence(getattr(nn, name)(shape, elementwise_affine=affine))
    x = torch.randn(2, 6, 5)
    result = proved(model, x, silence=False)
    kept = list(result.plan["first"].units)
    assert within.part(result.model, "step.normalized_shape", tuple) == (*shape[:-1], 6)
    assert provenance(result.model)["attributes"]["step"]["normalized_shape"] == list(shape)
    inner = torch.relu(model.first(x))[..., kept]
    if affine:
        return
    norm = F.layer_norm if name == "LayerNorm" else F.rms_norm
    by_hand = F.linear(
        norm(inner, [*shape[:-1], 6]),
        within.tensor(model, "last.weight")[:, kept],
        within.tensor(model, "last.bias"),
    )
    assert torch.allclose(by_hand, result.model(x), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norms(groups: int, affine: bool) -> None:
    torch.manual_seed(0)
    result = proved(
        Image(nn.GroupNorm(groups, WIDTH, affine=affine)), torch.randn(2, 3, 8, 8), silence=False
    )
    norm = within.part(result.model, "step", nn.GroupNorm)
    width = within.tensor(result.model, "first.weight").shape[0]
    assert width == {1: 6, 3: 8, 12: 6}[groups]
    assert (norm.num_channels, norm.num_groups) == (
        width,
        {1: 1, 3: 2, 12: 6}[groups],
    )


class Attention(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        shared = 8 if settings.get("enable_gqa") else 16
        self.q, self.k, self.v = nn.Linear(5, 16), nn.Linear(5, shared), nn.Linear(5, shared)
        self.last, self.settings = nn.Linear(16, 3), settings

    def forward(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        q, k, v = (f(x).view(n, steps, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, **self.settings)
        out: Tensor = self.last(y.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"enable_gqa": True},
        {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril()},
        {"attn_mask": torch.zeros(2, 1, 6, 6)},
    ],
)
def test_attention_loses_half_of_its_heads(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    result = proved(Attention(**settings), torch.randn(2, 6, 5))
    assert within.tensor(result.model, "last.weight").shape == (3, 8)


EQUATIONS = {
    "btc,cd->btd": (12, 12),
    "btc,hcd->bthd": (3, 12, 12),
    "btc,c->btc": (12,),
    "btc,cdt->btd": (12, 12, 6),
    "btc,ts->bsc": (6, 6),
}


class Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation, self.weight = equation, nn.Parameter(torch.randn(EQUATIONS[equation]))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(torch.einsum(self.equation, x, self.weight))
        return out.flatten(0, 1) if out.ndim > 3 else out


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    torch.manual_seed(0)
    small = proved(Sequence(Einsum(equation)), torch.randn(2, 6, 5)).model
    assert within.tensor(small, "first.weight").shape[0] == 6


class Sparse(nn.Module):
    """A graph convolution by an adjacency matrix that is given, or made in the forward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(WIDTH, 3)
        self.first = nn.Linear(5, WIDTH)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.how == "inside":
            near = torch.sparse_coo_tensor(near, torch.ones(near.shape[1]), (len(x), len(x)))
        out: Tensor = self.last(
            torch.sparse.mm(near, x) if self.how == "mm" else torch.spmm(near, x)
        )
        return out


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("how", ["coo", "csr", "mm", "inside"])
@pytest.mark.parametrize("repair", ["none", "auto"])
def test_sparse_adjacency(how: str, repair: str) -> None:
    torch.manual_seed(0)
    dense = (torch.rand(9, 9) > 0.6).float()
    near = {
        "csr": dense.to_sparse_csr,
        "inside": lambda: dense.nonzero().T.contiguous(),
    }.get(how, dense.to_sparse)()
    model, x = Sparse(how).eval(), torch.randn(9, 5)
    result = niwaki.prune(model, (x, near), compensation=repair)
    kept = list(result.plan["first"].units)
    if repair == "none":
        inner = torch.relu(model.first(x))[:, kept]
        by_hand = F.linear(dense @ inner, model.last.weight[:, kept], model.last.bias)
        assert torch.allclose(by_hand, result.model(x, near), atol=1e-5)
    assert len(kept) == 6


class Lora(nn.Module):
    """A weight that is made of two others, or of a fixed one and two others."""

    def __init__(self, how: str, rank: int = 4) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(3, 8), nn.Linear(6, 2)
        self.base = nn.Parameter(torch.randn(6, 8))
        self.down, self.up = nn.Parameter(torch.randn(rank, 8)), nn.Parameter(torch.randn(6, rank))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.up @ self.down
        if self.how == "added":
            weight = self.base + 0.5 * weight
        elif self.how == "multiplied":
            weight = self.base * weight
        out: Tensor = self.last(torch.relu(F.linear(torch.relu(self.first(x)), weight)))
        return out


@pytest.mark.parametrize("how", ["alone", "added", "multiplied"])
def test_products_of_parameters(how: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3)
    small = proved(Lora(how), x).model
    assert (small.up.shape, small.down.shape) == ((3, 2), (2, 4))
    for repair, inputs in (
        ("auto", None),
        ("moments", None),
        ("reconstruct", [torch.randn(16, 3)]),
    ):
        result = niwaki.prune(Lora(how).eval(), x, compensation=repair, calibration=inputs)
        assert "summed between parameters" in result.notes["up"]
