"""Channels that say nothing once blocks are gone: nothing reads them, or they are the same for
every input.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import within
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import niwaki
from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.plan import Kept, Plan
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.mint._layer_dependencies import Dependency, contiguous_groups
from niwaki.methods.mint.blocks import CutOff
from niwaki.pruning.trimming import Lean, Masks, retrained, trim, without_idle
from niwaki.surgery import idle_units

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def built(make: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for name in ("weight", "running_var"):
                    within.tensor(module, name).data.uniform_(0.5, 1.5)
                for name in ("bias", "running_mean"):
                    within.tensor(module, name).data.normal_()
        out: nn.Module = model
        return out


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def single(model: nn.Module, weight: str, kept: Tensor) -> LayerBlocks:
    """Blocks of one row and one column each."""
    rows, columns = model.get_parameter(weight).shape[:2]
    assert kept.shape == (rows, columns)
    return LayerBlocks(
        tuple(range(rows)), tuple(range(columns)), tuple(map(tuple, kept.nonzero().tolist()))
    )


def without_rows(model: nn.Module, weight: str, gone: list[int]) -> BlockPlan:
    kept = torch.ones(model.get_parameter(weight).shape[:2], dtype=torch.bool)
    kept[gone] = False
    return BlockPlan({weight: single(model, weight, kept)})


def assert_same(model: nn.Module, lean: Lean, plan: BlockPlan, x: Tensor) -> None:
    """The lean network computes what the masked one does, on inputs that it never saw."""
    masked = copy.deepcopy(model)
    Masks(plan, dict(masked.named_parameters()))(masked)
    with torch.no_grad():
        torch.testing.assert_close(lean.model(x), masked(x), rtol=1e-4, atol=1e-5)


class Mlp(nn.Module):
    def __init__(self, activation: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = (
            nn.Linear(6, 8),
            nn.Linear(8, 7),
            nn.Linear(7, 5),
            nn.Linear(5, 3),
        )
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.act(self.c(self.act(self.b(self.act(self.a(x)))))))
        return out


def test_a_unit_that_reads_nothing_leaves_and_its_constant_goes_into_the_bias() -> None:
    model = built(Mlp)
    plan = without_rows(model, "b.weight", [1, 4])
    lean = without_idle(niwaki.trace(model, noise(2, 6)), plan)
    assert lean.units.kept == {"b": (0, 2, 3, 5, 6)}
    assert (lean.unread, lean.constant) == (0, 2)
    wanted = within.tensor(model, "c.bias") + within.tensor(model, "c.weight")[
        :, [1, 4]
    ] @ torch.tanh(within.tensor(model, "b.bias")[[1, 4]])
    torch.testing.assert_close(within.tensor(lean.model, "c.bias"), wanted)
    assert (
        within.size(lean.model, "b.out_features") == within.size(lean.model, "c.in_features") == 5
    )
    assert_same(model, lean, plan, noise(9, 6))
    (said,) = lean.remarks
    assert said == (
        "0 channels left that nothing reads any more, and 2 that read nothing: their "
        "constants went into biases"
    )


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_what_leaves_is_what_a_brute_force_finds(seed: int) -> None:
    """Values over many inputs say what is constant; gradients, what is read. Tanh is never flat:
    neither can be by chance.
    """
    model = built(Mlp).double()
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((), generator=generator)
    plan = BlockPlan(
        {
            f"{name}.weight": single(
                model,
                f"{name}.weight",
                torch.rand(within.tensor(layer, "weight").shape, generator=generator) < share,
            )
            for name, layer in (("b", model.b), ("c", model.c))
        }
    )
    masked = copy.deepcopy(model)
    Masks(plan, dict(masked.named_parameters()))(masked)
    x, seen = noise(30, 6, seed=seed).double(), {}
    hidden = x
    for name in ("a", "b", "c"):
        hidden = torch.tanh(masked.get_submodule(name)(hidden))
        seen[name] = hidden
        hidden.retain_grad()
    within.layer(masked, "head")(hidden).square().sum().backward()
    lean = without_idle(niwaki.trace(model, noise(2, 6).double()), plan)
    for name, values in seen.items():
        assert values.grad is not None
        idle = (values.grad == 0).all(0) | ((values - values[:1]).abs() < 1e-12).all(0)
        wanted = (~idle).nonzero().squeeze(1).tolist() or [0]
        assert (
            list(lean.units[name].units if name in lean.units else range(values.shape[1])) == wanted
        ), name
    assert_same(model, lean, plan, noise(9, 6, seed=seed + 1).double())
    if all(len(kept.units) > 1 for kept in lean.units.values()):
        assert not idle_units(niwaki.trace(lean.model, noise(2, 6).double()), lean.blocks).plan.kept


class Conv(nn.Module):
    """A convolution with BatchNorm read by another; `padding` of the second."""

    def __init__(self, padding: int = 0, bias: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=padding, bias=bias)
        self.bn2 = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.second(F.relu(self.bn1(self.first(x))))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def with_shifts(model: nn.Module, shift: list[float]) -> nn.Module:
    """First-layer channels whose rows are gone will be these before the ReLU, whatever BatchNorm's
    statistics.
    """
    with torch.no_grad():
        within.tensor(model, "bn1.running_mean").zero_()
        within.tensor(model, "bn1.bias").copy_(torch.tensor(shift))
    return model


SHIFTS = [0.5, -0.5, 0.8, 0.1, 0.2, 0.3]


def plan_of_first(model: nn.Module) -> BlockPlan:
    return without_rows(model, "first.weight", [0, 1, 2])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_constants_behind_batchnorm_go_into_what_reads_them(bias: bool, norm: bool) -> None:
    """A bias, the stored mean of a normalisation that follows at once, or a new bias."""
    model = with_shifts(built(lambda: Conv(0, bias, norm)), SHIFTS)
    plan = plan_of_first(model)
    lean = without_idle(niwaki.trace(model, noise(2, 3, 7, 7)), plan)
    assert lean.units.kept == {"first": (3, 4, 5)}
    assert lean.constant == 3
    assert within.size(lean.model, "bn1.num_features") == 3
    assert (within.layer(lean.model, "second").bias is None) == (not bias and norm)
    assert_same(model, lean, plan, noise(4, 3, 7, 7, seed=8))


def test_a_border_of_zeros_keeps_constants_but_those_that_are_zero() -> None:
    model = with_shifts(built(lambda: Conv(1)), SHIFTS)
    plan = plan_of_first(model)
    lean = without_idle(niwaki.trace(model, noise(2, 3, 7, 7)), plan)
    assert lean.units.kept == {"first": (0, 2, 3, 4, 5)}
    assert (lean.unread, lean.constant) == (0, 1)
    assert lean.stays == (
        (
            "first: 2 units that read nothing stay: second pads with zeros, and does not see a "
            "constant at the border"
        ),
    )
    assert_same(model, lean, plan, noise(4, 3, 7, 7, seed=8))
    torch.testing.assert_close(
        within.tensor(lean.model, "second.bias"), within.tensor(model, "second.bias")
    )


def test_what_a_training_closes_leaves_after_it() -> None:
    model = with_shifts(built(lambda: Conv(1)), SHIFTS)
    lean = without_idle(niwaki.trace(model, noise(2, 3, 7, 7)), plan_of_first(model))
    with torch.no_grad():
        within.tensor(lean.model, "bn1.bias")[0] = -1.0  # 0 of the original
    again = retrained(lean, lambda model, hold: None)
    assert again.units == Plan({"first": Kept(6, (2, 3, 4, 5))})
    assert (again.unread, again.constant) == (0, 2)
    assert again.stays == (
        (
            "first: 1 unit that reads nothing stays: second pads with zeros, and does not see a "
            "constant at the border"
        ),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            again.model(noise(4, 3, 7, 7)), lean.model(noise(4, 3, 7, 7)), rtol=1e-4, atol=1e-5
        )
    assert not retrained(again, lambda model, hold: None).cut.plan.kept


def test_trimming_looks_again_after_its_retraining() -> None:
    class Deep(Conv):
        def __init__(self) -> None:
            super().__init__(1)
            self.stem = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stem(x))

    model, x = with_shifts(built(Deep), SHIFTS), noise(2, 3, 7, 7)
    (pair,) = [pair for pair in layer_pairs(niwaki.trace(model, x)) if pair.child == "first"]
    none = torch.zeros(0, dtype=torch.int64)
    values = torch.ones(6, 3).double()
    values[:3] = 0
    found = [Dependency(pair, values, contiguous_groups(6, 6), contiguous_groups(3, 3), none, none)]
    widths: list[int] = []

    def retrain(masked: nn.Module, hold: Any) -> None:
        widths.append(within.size(masked, "first.out_channels"))
        with torch.no_grad():
            within.tensor(masked, "bn1.bias").fill_(-1.0)

    result = trim(
        model,
        x,
        dependencies=found,
        cut_off=CutOff(share=0.0, upper_limit=1),
        only="first",
        retrain=retrain,
    )
    assert widths == [5]
    assert dict(result.plan) == {"first": Kept(6, (3, 4, 5))}
    assert within.part(result.model, "first.blocks.rows", tuple) == (3, 4, 5)
    assert "3 that read nothing" in " ".join(result.record.notes)
    assert "stay" not in " ".join(result.record.notes)


def test_readers_before_and_after_the_nonlinearity_get_constants_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            out: Tensor = self.b(hidden) + self.c(torch.sigmoid(hidden))
            return out

    model = built(Twice)
    plan = without_rows(model, "a.weight", [7])
    lean = without_idle(niwaki.trace(model, noise(2, 6)), plan)
    assert lean.units.kept == {"a": tuple(range(7))}
    torch.testing.assert_close(
        within.tensor(lean.model, "b.bias"),
        within.tensor(model, "b.bias")
        + within.tensor(model, "b.weight")[:, 7] * within.tensor(model, "a.bias")[7],
    )
    torch.testing.assert_close(
        within.tensor(lean.model, "c.bias"),
        within.tensor(model, "c.bias")
        + within.tensor(model, "c.weight")[:, 7] * torch.sigmoid(within.tensor(model, "a.bias")[7]),
    )
    assert_same(model, lean, plan, noise(9, 6))


def test_constants_of_constants_and_readers_of_readers_leave_at_once() -> None:
    model = built(Mlp)
    b, c = torch.ones(7, 8, dtype=torch.bool), torch.ones(5, 7, dtype=torch.bool)
    b[0] = False  # b0 reads nothing
    c[1, 1:] = False  # c1 reads b0 alone
    c[:, 6] = False  # nothing reads b6
    b[:6, 3] = False  # and b6 alone reads a3
    plan = BlockPlan(
        {"b.weight": single(model, "b.weight", b), "c.weight": single(model, "c.weight", c)}
    )
    lean = without_idle(niwaki.trace(model, noise(2, 6)), plan)
    assert lean.units.kept == {"a": (0, 1, 2, 4, 5, 6, 7), "b": (1, 2, 3, 4, 5), "c": (0, 2, 3, 4)}
    assert (lean.unread, lean.constant) == (2, 2)
    assert_same(model, lean, plan, noise(9, 6))


def test_a_stream_is_constant_only_where_all_that_write_into_it_are() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            out: Tensor = self.head(torch.tanh(x + self.branch(torch.tanh(x))))
            return out

    model = built(Stream)
    stem, branch = torch.ones(6, 4, dtype=torch.bool), torch.ones(6, 6, dtype=torch.bool)
    stem[[1, 2]], branch[[2, 3]] = False, False
    parts = {"stem.weight": stem, "branch.weight": branch}
    plan = BlockPlan({name: single(model, name, kept) for name, kept in parts.items()})
    lean = without_idle(niwaki.trace(model, noise(2, 4)), plan)
    assert lean.units.kept == {"stem": (0, 1, 3, 4, 5)}
    assert_same(model, lean, plan, noise(9, 4))


def test_a_pooling_that_counts_a_border_of_zeros_makes_no_constant() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(F.avg_pool2d(self.conv(x), 3, 2, padding=1))
            return out

    model = built(Pooled)
    plan = without_rows(model, "conv.weight", [0, 5])
    lean = without_idle(niwaki.trace(model, noise(2, 3, 8, 8)), plan)
    assert lean.units.kept == {}
    (said,) = lean.stays
    assert said.startswith(
        "conv: 2 units that read nothing stay: what they put out differs from place to place"
    )
    assert_same(model, lean, plan, noise(4, 3, 8, 8))


def test_units_whose_statistics_others_share_stay() -> None:
    """A LayerNorm over them would see other statistics without them: the masked network does
    not.
    """

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.norm(self.a(x)))
            return out

    model = built(Normed)
    kept = torch.ones(4, 8, dtype=torch.bool)
    kept[:, :4] = False
    plan = BlockPlan({"b.weight": single(model, "b.weight", kept)})
    lean = without_idle(niwaki.trace(model, noise(2, 5)), plan)
    assert lean.units.kept == {}
    assert_same(model, lean, plan, noise(9, 5))


def test_two_rounds_with_a_new_bias_are_saved_and_loaded(tmp_path: Path) -> None:
    x = noise(2, 3, 7, 7)
    model = with_shifts(built(lambda: Conv(0, bias=False)), SHIFTS)
    first = without_idle(niwaki.trace(model, x), plan_of_first(model))
    assert within.layer(first.model, "second").bias is not None
    second = without_idle(
        niwaki.trace(first.model, x), without_rows(first.model, "second.weight", [0])
    )
    assert first.units.then(second.units).kept == {"first": (3, 4, 5), "second": (1, 2, 3, 4)}
    result = replace(niwaki.prune(model, x, budget=0.1), model=second.model)
    niwaki.save(result, tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(niwaki.load(tmp_path / "out", model)(x), second.model(x))
