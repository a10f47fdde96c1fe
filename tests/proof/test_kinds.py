"""Kinds of networks that misled a proof or a cut once, each in other forms: whatever comes back is
right on the example, on other values, lengths and batches, and in training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
import within
from fuzzing import Judge, distance, run
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SurgeryError

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def held(
    model: nn.Module, x: Any, *others: Any, training: bool = False, least: float = 0.9, **more: Any
) -> niwaki.Result:
    """A network pruned by half, which computes what the masked original computes on all of these."""
    model = model.double().eval()
    result = niwaki.prune(model, x, compensation="none", **more)
    judge = Judge(niwaki.trace(model, x), result.cut)
    for given in (x, *others):
        wanted = judge(given, False)
        assert wanted is not None
        assert not any(bool(t.isnan().any()) for t in wanted), (
            "the oracle does not know this network"
        )
        assert distance(wanted, run(result.model, given, False)) < 1e-9
        if training:
            expected = judge(given, True)
            assert expected is not None
            assert distance(expected, run(result.model, given, True)) < 1e-9
    assert niwaki.count_params(result.model) < least * niwaki.count_params(model)
    return result


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Supervised(nn.Module):
    """Heads at several depths, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 12)])
        self.aside = nn.ModuleDict({"0": nn.Linear(12, 2), "1": nn.Linear(12, 3)})
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        extra = []
        for number, step in enumerate(self.steps):
            x = torch.relu(step(x))
            if self.training and str(number) in self.aside:
                extra.append(self.aside[str(number)](x))
        return [self.last(x), *extra] if self.training else self.last(x)


class Momentum(nn.Module):
    """A twin that is only asked in training, for what the first should say."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
        self.target = copy.deepcopy(self.online)
        self.predict = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))

    def forward(self, x: Tensor) -> Any:
        y = self.online(x)
        return (self.predict(y), self.target(x)) if self.training else self.predict(y)


class Dropped(nn.Module):
    """A branch that training leaves out as its counter says."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body = nn.Linear(6, 12), nn.Linear(12, 12)
        self.instead, self.last = nn.Linear(12, 12, bias=False), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = x + (self.instead(x) if self.training else self.body(x))
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize("model", [Supervised, Momentum, Dropped])
def test_what_only_training_runs(model: Callable[[], nn.Module]) -> None:
    held(model(), rows(4, 6), rows(7, 6), training=True)


class Limit(nn.Module):
    """Sequences are cut to a number of steps that is a width by accident."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.limit, self.how = 12, how
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "first":
            x = x[:, : self.limit]
        elif self.how == "last":
            x = x[:, -self.limit :]
        elif self.how == "padded":
            x = F.pad(x, (0, 0, 0, max(0, self.limit - x.shape[1])))
        elif self.how == "asked" and x.shape[1] > self.limit:
            x = x[:, 1:]
        elif self.how == "pooled":
            x = F.adaptive_avg_pool1d(x.transpose(1, 2), self.limit).transpose(1, 2)
        out: Tensor = self.last(torch.relu(self.first(x)))
        return out


@pytest.mark.parametrize("how", ["first", "last", "padded", "asked", "pooled"])
def test_a_limit_that_equals_a_width(how: str) -> None:
    result = held(Limit(how), rows(2, 9, 5), rows(2, 20, 5), rows(3, 13, 5), rows(1, 4, 5))
    assert result.model.limit == 12
    assert within.size(result.model, "first.out_features") == 6


class Counted(nn.Module):
    """A number that is computed from a count of channels, as code of that kind does."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.how == "root":
            x = x / x.shape[-1] ** 0.5
        elif self.how == "sum":
            x = x - x.sum(-1, keepdim=True) / x.size(-1)
        elif self.how == "rows":
            x = x * len(self.first.weight) ** -0.5
        elif self.how == "numel":
            x = x * (x[0, 0].numel() / 3)
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize("how", ["root", "sum", "rows", "numel"])
def test_numbers_from_counts_of_channels_are_said_or_refused(how: str) -> None:
    model, x = Counted(how).double().eval(), rows(2, 4, 5)
    if how == "numel":  # any function of a count cannot be told from a number
        with pytest.raises(SurgeryError, match=r"differs is the model \(aten.mul\)"):
            niwaki.prune(model, x, compensation="none")
        return
    result = niwaki.prune(model, x, compensation="none")
    kept = result.plan.kept.get("first")
    if kept:
        assert any("counts of channels" in note for note in result.record.notes)
        y = torch.tanh(model.first(x))[..., list(kept)]
        share = {"root": len(kept) ** -0.5, "rows": len(kept) ** -0.5}
        y = y - y.mean(-1, keepdim=True) if how == "sum" else y * share[how]
        wanted = F.linear(y, model.last.weight[:, list(kept)], model.last.bias)
        assert torch.allclose(wanted, result.model(x), atol=1e-10)


class OverChannels(nn.Module):
    """A reduction over channels that is no sum."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second, self.last = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        reductions: dict[str, Callable[[], Tensor]] = {
            "max": lambda: x.max(-1, keepdim=True).values,
            "amin": lambda: x.amin(-1, keepdim=True),
            "logsumexp": lambda: x.logsumexp(-1, keepdim=True),
            "softmax": lambda: x.softmax(-1),
            "std": lambda: x.std(-1, keepdim=True),
            "norm": lambda: x.norm(dim=-1, keepdim=True),
            "top": lambda: x.topk(2, -1).values.sum(-1, keepdim=True),
            "median": lambda: x.median(-1, keepdim=True).values,
        }
        seen = reductions[self.how]()
        out: Tensor = self.last(torch.relu(self.second(x)) + seen.mean(-1, keepdim=True))
        return out


@pytest.mark.parametrize(
    "how", ["max", "amin", "logsumexp", "softmax", "std", "norm", "top", "median"]
)
def test_reductions_over_channels_are_right_or_left_whole(how: str) -> None:
    model, x = OverChannels(how).double().eval(), rows(6, 5)
    result = niwaki.prune(model, x, compensation="none")
    assert niwaki.count_params(result.model) < 0.9 * niwaki.count_params(model)
    kept = result.plan.kept
    a = torch.relu(model.first(x))[..., list(kept.get("first", range(12)))]
    b = model.second.weight[:, list(kept.get("first", range(12)))]
    twin = copy.deepcopy(model)
    twin.first = nn.Identity()  # type: ignore[assignment]  # the sum stands in for it
    twin.second = nn.Linear(b.shape[1], 12).double()
    twin.second.weight.data, twin.second.bias.data = b.detach(), model.second.bias.detach().clone()
    for layer, axis in ((twin.second, 0), (twin.last, 1)):
        index = torch.tensor(kept.get("second", range(12)))
        layer.weight.data = layer.weight.data.index_select(axis, index)
    twin.second.bias.data = twin.second.bias.data[list(kept.get("second", range(12)))]
    assert torch.allclose(twin(a), result.model(x), atol=1e-10)


class Gathered(nn.Module):
    """Rows summed by where they belong, in one of the ways that torch has."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        place = torch.arange(len(x)) % 3
        whole, spread = x.new_zeros(3, x.shape[1]), place[:, None].expand_as(x)
        if self.how == "put":
            whole = whole.index_put((place,), x, accumulate=True)
        elif self.how == "scatter":
            whole = whole.scatter_add(0, spread, x)
        elif self.how == "mean":
            whole = whole.scatter_reduce(0, spread, x, "mean", include_self=False)
        elif self.how == "largest":
            whole = whole.scatter_reduce(0, spread, x, "amax")
        elif self.how == "one hot":
            whole = F.one_hot(place, 3).to(x.dtype).T @ x
        elif self.how == "copied":
            whole = whole.index_copy(0, torch.arange(3), x[:3])
        out: Tensor = self.last(whole)
        return out


@pytest.mark.parametrize("how", ["put", "scatter", "mean", "largest", "one hot", "copied"])
def test_rows_that_are_gathered(how: str) -> None:
    held(Gathered(how), rows(8, 5), rows(11, 5))


class Marks(nn.Module):
    """Outputs with a number in them that stands for none."""

    def __init__(self, mark: float, how: str) -> None:
        super().__init__()
        self.mark, self.how = mark, how
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Any:
        y = self.last(torch.relu(self.first(x)))
        none = torch.arange(6) % 2 == 1
        if self.how == "filled":
            return y.masked_fill(none, self.mark)
        if self.how == "added":
            return y + torch.where(none, self.mark, 0.0)
        if self.how == "apart":
            return {"scores": y, "mask": torch.full_like(y, self.mark)}
        return torch.cat([y, torch.full_like(y[:, :1], self.mark)], 1)


@pytest.mark.parametrize("how", ["filled", "added", "apart", "behind"])
@pytest.mark.parametrize("mark", [-1e9, float("-inf"), -1e30, -1e4])
def test_marks_hide_no_wrong_cut(mark: float, how: str) -> None:
    model, x = Marks(mark, how).double().eval(), rows(4, 5)
    result = held(model, x, rows(6, 5))
    with torch.no_grad():
        within.tensor(result.model, "last.weight")[0] += 1e-3
    with pytest.raises(SurgeryError):
        niwaki.check(result.cut, result.model)


class Transposed(nn.Module):
    """A reader that is no plain layer, for repairs to write into."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first = how, nn.Conv1d(3, 12, 3, padding=1)
        readers: dict[str, Callable[[], nn.Module]] = {
            "transposed": lambda: nn.ConvTranspose1d(12, 4, 3),
            "grouped": lambda: nn.Conv1d(12, 4, 3, groups=2),
            "depthwise": lambda: nn.Sequential(
                nn.Conv1d(12, 12, 3, groups=12), nn.Conv1d(12, 4, 1)
            ),
            "recurrent": lambda: nn.GRU(12, 4, batch_first=True),
            "einsum": nn.Identity,
            "flat": lambda: nn.Linear(12 * 8, 4),
            "flat last": lambda: nn.Linear(12 * 8, 4),
        }
        self.last = readers[how]()
        self.weight = nn.Parameter(torch.randn(12, 4)) if how == "einsum" else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.how == "recurrent":
            y: Tensor = self.last(x.transpose(1, 2))[0]
            return y
        if self.weight is not None:
            return torch.einsum("bct,co->bto", x, self.weight)
        if "flat" in self.how:
            x = (x.transpose(1, 2) if "last" in self.how else x).flatten(1)
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize(
    "how", ["transposed", "grouped", "depthwise", "recurrent", "einsum", "flat", "flat last"]
)
@pytest.mark.parametrize("compensation", ["reconstruct", "moments", "merge", "fold", "match"])
def test_repairs_write_into_any_reader(how: str, compensation: str) -> None:
    model, x = Transposed(how).double().eval(), rows(6, 3, 8)
    batches = [rows(9, 3, 8), rows(1, 3, 8)]
    result = niwaki.prune(model, x, compensation=compensation, calibration=batches, criterion="l1")
    judge = Judge(niwaki.trace(model, x), result.cut)
    for given in (x, rows(2, 3, 8)):
        wanted = judge(given, False)
        assert wanted is not None
        assert distance(wanted, run(result.model, given, False)) < 1e-9


class Product(nn.Module):
    """A weight that is made of other parameters in forward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.base, self.last = how, nn.Linear(8, 12), nn.Linear(12, 3)
        self.a, self.b = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(12, 4))
        self.m = nn.Parameter(torch.rand(12) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight
        if self.how == "added":
            weight = weight + self.b @ self.a
        elif self.how == "times":
            weight = weight * (self.b @ self.a)
        elif self.how == "magnitude":
            weight = weight + self.b @ self.a
            weight = self.m[:, None] * weight / weight.norm(dim=1, keepdim=True)
        elif self.how == "gated":
            weight = weight * torch.sigmoid(self.m)[:, None]
        elif self.how == "beside":
            y: Tensor = self.last(torch.relu(self.base(x) + x @ self.a.T @ self.b.T))
            return y
        out: Tensor = self.last(torch.relu(F.linear(x, weight, self.base.bias)))
        return out


@pytest.mark.parametrize("how", ["added", "times", "magnitude", "gated", "beside"])
def test_products_of_parameters(how: str) -> None:
    held(Product(how), rows(4, 8), rows(9, 8))


class Spectral(nn.Module):
    """A Fourier transform over an axis or two."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.weight = nn.Parameter(torch.randn(8, 1, 1, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.how == "two":
            x = torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=x.shape[-2:])
        elif self.how == "whole":
            x = torch.fft.ifftn(torch.fft.fftn(x, dim=(2, 3)) * self.weight, dim=(2, 3)).real
        elif self.how == "amount":
            x = torch.fft.rfft(x, dim=-1).abs()
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize("how", ["two", "whole", "amount"])
def test_fourier_transforms_over_space(how: str) -> None:
    model, x = Spectral(how), rows(2, 2, 8, 8)
    model.first.double(), model.last.double()
    result = niwaki.prune(model.eval(), x, compensation="none")
    assert within.size(result.model, "first.out_channels") == 4
    full = oracle.masked(niwaki.trace(model, x), result.plan, {})
    other = rows(3, 2, 10, 10)
    assert oracle.distance(oracle.outputs(full, other), oracle.outputs(result.model, other)) < 1e-9
