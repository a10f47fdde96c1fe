"""Integers of the user's own modules: what follows a cut, what stays, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SurgeryError
from niwaki.surgery import least_sizes, size_guesses
from niwaki.surgery.by_value import Sizes

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Net(nn.Module):
    """Two layers of 32; what stands between them reads integers of the module."""

    hidden: int
    limit: int
    shape: Sequence[int]
    _hidden: int
    rows: int
    columns: int

    def __init__(self, **numbers: object) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)
        for name, number in numbers.items():
            setattr(self, name, number)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(torch.relu(self.b(self.between(torch.relu(self.a(x))))))
        return out


class Viewed(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, self.hidden)


class ThroughArithmetic(Net):
    def between(self, x: Tensor) -> Tensor:
        return torch.stack([x, -x], -1).view(-1, 2 * self.hidden).view(-1, self.hidden, 2)[..., 0]


class ThroughAShape(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(x.shape[1] // self.hidden, x.shape[0], self.hidden)[0]


class EntryOfATuple(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, self.shape[1])


class EntryOfAList(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, self.shape[1])


class Private(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), self._hidden)


class SourceForgotten(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.clamp(max=int(self.limit)).view(-1, int(self.hidden))


class Clamped(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.limit).view(-1, self.hidden)


class Divided(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, self.hidden) / (1.0 * self.limit)


class SlicedBeyond(Net):
    def between(self, x: Tensor) -> Tensor:
        return x[:, : self.limit].view(-1, self.hidden)


class InAMessage(Net):
    def between(self, x: Tensor) -> Tensor:
        assert x.ndim == 2, f"{self.limit}"
        return x.view(-1, self.hidden)


class InZeros(Net):
    def between(self, x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape[0], self.hidden, dtype=x.dtype)


class InANorm(Net):
    def between(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (self.hidden,))


class Compared(Net):
    def between(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.hidden:
            raise ValueError("another width")
        return x


class Sliced(Net):
    """The first half gates the second; both are repeated."""

    def between(self, x: Tensor) -> Tensor:
        gated = x[:, : self.hidden] * x[:, self.hidden :].sigmoid()
        return torch.cat([gated, gated], 1)


class Split(Net):
    def between(self, x: Tensor) -> Tensor:
        one, other = x.split(self.hidden, 1)
        return torch.cat([one * other, one - other], 1)


def pruned(model: nn.Module, **options: Any) -> niwaki.Result:
    torch.manual_seed(0)
    options = {"compensation": "none", **options}
    return niwaki.prune(model.double().eval(), torch.randn(4, 8).double(), **options)


@pytest.mark.parametrize(
    ("model", "attribute", "wanted"),
    [
        (Viewed(hidden=32), "hidden", 16),
        (ThroughArithmetic(hidden=32), "hidden", 16),
        (ThroughAShape(hidden=32), "hidden", 16),
        (EntryOfATuple(shape=(7, 32)), "shape", (7, 16)),
        (EntryOfAList(shape=[7, 32]), "shape", [7, 16]),
        (Private(_hidden=32), "_hidden", 16),
        (SourceForgotten(hidden=32, limit=32), "hidden", 16),
        (InZeros(hidden=32), "hidden", 16),
        (InANorm(hidden=32), "hidden", 16),
        (Compared(hidden=32), "hidden", 16),
        (Sliced(hidden=16), "hidden", 8),
        (Split(hidden=16), "hidden", 8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_size_follows(model: nn.Module, attribute: str, wanted: object) -> None:
    result = pruned(model)
    assert getattr(result.model, attribute) == wanted
    assert type(getattr(result.model, attribute)) is type(wanted)
    assert result.record.after.params < 0.5 * result.record.before.params
    assert not any("left whole" in note for note in result.record.notes)


@pytest.mark.parametrize(
    "kind", [SourceForgotten, Clamped, Divided, SlicedBeyond, InAMessage], ids=lambda k: k.__name__
)
def test_what_only_equals_a_size_stays(kind: type[Net]) -> None:
    result = pruned(kind(hidden=32, limit=32))
    assert (within.size(result.model, "hidden"), within.size(result.model, "limit")) == (16, 32)
    assert not any("left whole" in note for note in result.record.notes)


class Heads(nn.Module):
    """The width of a head is computed where it is used, its scale when the module is made."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads, self.scale = width, heads, (width // heads) ** -0.5
        self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 3)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        shape = (*x.shape[:2], self.num_heads, self.dim // self.num_heads)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attention = (q @ k.transpose(2, 3) * self.scale).softmax(-1)
        out: torch.Tensor = self.leave(
            (attention @ v).transpose(1, 2).reshape(*x.shape[:2], self.dim)
        )
        return out


@pytest.mark.parametrize(("width", "heads"), [(32, 4), (48, 6), (16, 4)])
def test_a_quotient_of_two_sizes_follows(width: int, heads: int) -> None:
    model = Heads(width, heads).eval()
    result = niwaki.prune(model, torch.randn(2, 5, 6), compensation="none")
    assert (within.size(result.model, "dim"), within.size(result.model, "num_heads")) == (
        width // 2,
        heads // 2,
    )
    assert within.size(result.model, "q.out_features") == width // 2


class Spectrum(nn.Module):
    """No size has to change, but one equals the width."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.first, self.mix, self.last = nn.Linear(window, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x.unfold(1, self.window, self.window // 2)))
        batch, frames, channels = h.shape
        h = torch.relu(self.mix(h.view(batch * frames, channels)))
        out: torch.Tensor = self.last(h.view(batch, frames, -1)).mean(1)
        return out


@pytest.mark.parametrize("window", [28, 32, 36])
def test_no_change_is_tried_first(window: int) -> None:
    graph = niwaki.trace(Spectrum(window).eval(), torch.randn(2, 160))
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), "channels=0.5").plan
    assert next(size_guesses(graph, plan)) == {}
    result = niwaki.prune(Spectrum(window).eval(), torch.randn(2, 160), compensation="none")
    assert result.model.window == window
    assert result.record.after.params < 0.6 * result.record.before.params


class Own(nn.Module):
    """A layer that states its sizes, with as many inputs as outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.table = nn.Parameter(torch.randn(outputs, inputs, 3) / inputs**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        basis = torch.stack([x, x.square(), x.sin()], -1).view(-1, 3 * self.in_features)
        return nn.functional.linear(basis, self.table.view(self.out_features, -1))


@pytest.mark.parametrize("kept", [(12, 12), (19, 8), (5, 23)])
def test_inputs_and_outputs_of_one_width_are_told_apart(kept: tuple[int, int]) -> None:
    model, x = (
        nn.Sequential(Own(10, 24), Own(24, 24), Own(24, 3)).double().eval(),
        torch.randn(4, 10),
    )
    graph = niwaki.trace(model, x.double())
    groups = [group.name for group in graph.groups]
    units = {
        name: niwaki.Kept(24, tuple(range(count))) for name, count in zip(groups, kept, strict=True)
    }
    smaller = niwaki.shrink(niwaki.Cut(graph, niwaki.Plan(units)))
    niwaki.check(niwaki.Cut(graph, niwaki.Plan(units)), smaller)
    assert (within.size(smaller, "1.in_features"), within.size(smaller, "1.out_features")) == kept


class Branches(nn.Module):
    """Branches that are merged into one convolution for deployment."""

    def __init__(self, width: int, attribute: str) -> None:
        super().__init__()
        setattr(self, attribute, width)
        self.kernel_size = self.steps = width
        self.wide, self.skip = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.wide(x) + self.skip(x))


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "num_features", "width", "out_ch"])
def test_a_size_that_forward_does_not_read_follows_by_its_name(name: str) -> None:
    blocks = [Branches(16, name), Branches(16, name)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *blocks, nn.Flatten(), nn.Linear(16 * 36, 3)).eval()
    small = niwaki.prune(model, torch.randn(2, 3, 8, 8), compensation="none").model
    assert within.size(small, f"1.{name}") == within.size(small, "1.wide.in_channels") == 8
    assert (within.size(small, "1.kernel_size"), within.size(small, "1.steps")) == (16, 16)


class Factors(Net):
    """A width out of two numbers of which either could have become smaller."""

    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, self.rows * self.columns)


class ForgottenFactors(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.view(-1, int(self.rows) * int(self.columns) // 32)


class OneForBoth(Net):
    """One number states two sizes."""

    def between(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(x.view(-1, self.hidden))
        return y.view(-1, self.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(torch.relu(self.between(torch.relu(self.a(x)))))
        return out


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Factors(rows=4, columns=8), "rows and columns cannot be told apart: aten.view"),
        (ForgottenFactors(rows=32, columns=32), "cannot be told apart"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_told_apart_is_said_and_left_whole(model: nn.Module, says: str) -> None:
    result = pruned(model)
    said = [why for why in result.notes.values() if why.startswith("left whole")]
    assert said
    assert all(says in why for why in said)
    assert result.record.after.params < result.record.before.params  # the other group goes on


@pytest.mark.parametrize("kept", [(16, 20), (31, 16), (8, 32)])
def test_one_number_for_two_sizes_is_said(kept: tuple[int, int]) -> None:
    graph = niwaki.trace(OneForBoth(hidden=32).eval(), torch.randn(4, 8))
    names = [group.name for group in graph.groups]
    units = {
        name: niwaki.Kept(32, tuple(range(count))) for name, count in zip(names, kept, strict=True)
    }
    with pytest.raises(SurgeryError, match=r"hidden states several sizes.*test_sizes.py:"):
        list(size_guesses(graph, niwaki.Plan(units)))


def test_sizes_that_are_needed_are_all_kept_and_no_others() -> None:
    graph = niwaki.trace(Viewed(hidden=32, limit=32).eval(), torch.randn(4, 8))
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), "channels=0.5").plan
    shown = next(size_guesses(graph, plan))
    assert shown == {"": {"hidden": 16}}
    asked: list[object] = []

    def proves(sizes: object) -> bool:
        asked.append(sizes)
        return True

    wide: Sizes = {"": {"hidden": 16, "limit": 16}}
    assert least_sizes(graph, plan, wide, proves) == shown
    assert asked == [shown]  # what an operator showed is not doubted
    asked.clear()
    assert least_sizes(graph, plan, shown, proves) == shown
    assert not asked


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d])
def test_an_instance_norm_without_tensors_follows(norm: type[nn.Module]) -> None:
    axes = int(norm.__name__[-2])
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    model = nn.Sequential(conv(3, 8, 1), norm(8), nn.ReLU(), conv(8, 2, 1)).eval()
    result = niwaki.prune(model, torch.randn(2, 3, *[4] * axes), compensation="none")
    assert (
        within.size(result.model, "1.num_features")
        == within.size(result.model, "0.out_channels")
        == 4
    )
