"""Neuron Merging: against its formulas written out one pair at a time, and exact where a unit is a
multiple of another.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.methods.neuron_merging import Merge

pytestmark = pytest.mark.usefixtures("one_thread")

Bn = Literal["derived", "published"]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))


def norm(a: list[float]) -> float:
    return math.sqrt(sum(x * x for x in a))


def linear_matrix(rows: list[list[float]], kept: list[int], threshold: float) -> list[list[float]]:
    """PAPERS.md, section 1: the kept row with the highest cosine, times the ratio of the norms;
    none below the threshold.
    """
    matrix = [[0.0] * len(kept) for _ in rows]
    for place, unit in enumerate(kept):
        matrix[unit][place] = 1.0
    for unit, row in enumerate(rows):
        if unit in kept:
            continue
        best, place = -2.0, -1
        for candidate, keeper in enumerate(kept):
            if cosine(row, rows[keeper]) > best:
                best, place = cosine(row, rows[keeper]), candidate
        if best >= threshold:
            matrix[unit][place] = norm(row) / norm(rows[kept[place]])
    return matrix


def conv_matrix(
    rows: list[list[float]],
    bn: nn.BatchNorm2d,
    kept: list[int],
    threshold: float,
    lam: float,
    variant: Bn,
) -> list[list[float]]:
    """The same with a BatchNorm behind: S for the ratio, and λ between the cosine distance and the
    share of B.
    """
    gamma, beta = bn.weight.tolist(), bn.bias.tolist()
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean, var = bn.running_mean.tolist(), bn.running_var.tolist()
    matrix = [[0.0] * len(kept) for _ in rows]
    for place, unit in enumerate(kept):
        matrix[unit][place] = 1.0
    for one, row in enumerate(rows):
        if one in kept:
            continue
        table = []
        for two in kept:
            s = norm(row) / norm(rows[two])
            if variant == "derived":
                sigma1, sigma2 = math.sqrt(var[one] + bn.eps), math.sqrt(var[two] + bn.eps)
                scale = s * gamma[one] / gamma[two] * sigma2 / sigma1
                constant = (
                    gamma[one]
                    / sigma1
                    * (s * mean[two] - s * sigma2 * beta[two] / gamma[two] - mean[one])
                    + beta[one]
                )
            else:  # the two change places, and the variance stands for its root
                scale = s * gamma[two] / gamma[one] * var[one] / var[two]
                constant = (
                    gamma[two]
                    / var[two]
                    * (s * mean[one] - s * var[one] * beta[one] / gamma[one] - mean[two])
                    + beta[two]
                )
            table.append((1 - cosine(row, rows[two]), abs(constant) / scale, scale))
        low, high = min(entry[1] for entry in table), max(entry[1] for entry in table)
        least, found = math.inf, -1
        for place, (distance, share, scale) in enumerate(table):
            if variant == "derived" and scale <= 0:
                continue  # a negative multiple does not pass a ReLU
            total = lam * distance + (1 - lam) * (
                (share - low) / (high - low) if high > low else 0.0
            )
            if total < least:
                least, found = total, place
        if found >= 0 and 1 - table[found][0] >= threshold:
            matrix[one][found] = table[found][2]
    return matrix


def mixing(model: nn.Module, x: Tensor, group: str, kept: list[int], method: Merge) -> Tensor:
    graph = niwaki.trace(model, x)
    found, note = method.mix(graph[group], kept, graph.state)
    assert found is not None, note
    return found.matrix


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [None, -1.0, 0.2, 0.9])
def test_linear_with_bias_is_the_paper_pair_by_pair(seed: int, threshold: float | None) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4)).double()
    kept = sorted(torch.randperm(9)[:4].tolist())
    rows = [
        [*row, bias]
        for row, bias in zip(
            within.tensor(model, "0.weight").tolist(),
            within.tensor(model, "0.bias").tolist(),
            strict=True,
        )
    ]
    wanted = linear_matrix(rows, kept, 0.45 if threshold is None else threshold)
    found = mixing(model, torch.randn(2, 3).double(), "0", kept, Merge(threshold=threshold))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("variant", ["derived", "published"])
@pytest.mark.parametrize(("threshold", "lam"), [(None, 0.85), (-1.0, 0.0), (0.3, 0.5), (-1.0, 1.0)])
def test_convolution_with_batchnorm_is_the_paper_pair_by_pair(
    seed: int, variant: Bn, threshold: float | None, lam: float
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 9, 2, bias=False),
        nn.BatchNorm2d(9, eps=1e-3),
        nn.ReLU(),
        nn.Conv2d(9, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
    )
    model.double().eval()
    bn: Any = model[1]
    with torch.no_grad():
        bn.weight.copy_(
            torch.rand(9) + 0.2
        )  # published scales may be negative; both formulas are defined there only for one
        bn.bias.normal_()
        bn.running_mean.normal_()
        bn.running_var.copy_(torch.rand(9) + 0.2)
        if variant == "derived":
            bn.weight[::3] *= -1
    kept = sorted(torch.randperm(9)[:4].tolist())
    rows = within.tensor(model, "0.weight").flatten(1).tolist()
    wanted = conv_matrix(rows, bn, kept, 0.1 if threshold is None else threshold, lam, variant)
    found = mixing(
        model,
        torch.randn(2, 2, 4, 4).double(),
        "0",
        kept,
        Merge(threshold=threshold, lam=lam, bn=variant),
    )
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_a_bias_before_the_batchnorm_is_part_of_its_mean() -> None:
    torch.manual_seed(0)
    biased = (
        nn.Sequential(nn.Conv2d(2, 8, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))
        .double()
        .eval()
    )
    plain = (
        nn.Sequential(
            nn.Conv2d(2, 8, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)
        )
        .double()
        .eval()
    )
    with torch.no_grad():
        for tensor in biased[1].buffers():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(8) + 0.2)
        within.tensor(plain, "0.weight").copy_(within.tensor(biased, "0.weight"))
        plain[1].load_state_dict(biased[1].state_dict())
        within.tensor(plain, "1.running_mean").sub_(within.tensor(biased, "0.bias"))
        plain[3].load_state_dict(biased[3].state_dict())
    x = torch.randn(2, 2, 4, 4).double()
    torch.testing.assert_close(plain(x), biased(x))
    one, two = (mixing(model, x, "0", [0, 2, 5], Merge(threshold=-1)) for model in (biased, plain))
    torch.testing.assert_close(one, two)


# exactness: a unit that is a positive multiple of a kept one is lost without a trace


def twins(layer: Any, pairs: dict[int, tuple[int, float]]) -> None:
    """Make unit `a` of a layer the `c`-fold of unit `b`."""
    with torch.no_grad():
        for a, (b, c) in pairs.items():
            layer.weight[a] = c * layer.weight[b]
            if layer.bias is not None:
                layer.bias[a] = c * layer.bias[b]


def batchnorm_twins(conv: Any, bn: Any, pairs: dict[int, tuple[int, float]]) -> None:
    """… and with a normalisation behind that makes the normalised one the 2-fold: S = 2 and B =
    0.
    """
    with torch.no_grad():
        bn.weight.uniform_(0.5, 1.5)
        bn.bias.normal_()
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 1.5)
        twins(conv, pairs)
        for a, (b, c) in pairs.items():
            sigma_a, sigma_b = (
                (bn.running_var[a] + bn.eps).sqrt(),
                (bn.running_var[b] + bn.eps).sqrt(),
            )
            # γ₁(c·x - μ₁)/σ₁ + β₁ = 2·(γ₂(x - μ₂)/σ₂ + β₂)
            bn.weight[a] = 2 * bn.weight[b] * sigma_a / (c * sigma_b)
            bias_a = 0 if conv.bias is None else conv.bias[a]
            bias_b = 0 if conv.bias is None else conv.bias[b]
            shift = bn.weight[a] * (bias_a - bn.running_mean[a]) / sigma_a
            bn.bias[a] = (
                2 * (bn.weight[b] * (bias_b - bn.running_mean[b]) / sigma_b + bn.bias[b]) - shift
            )


PAIRS = {1: (0, 3.0), 4: (5, 0.2), 6: (0, 0.7)}
KEPT = (0, 2, 3, 5, 7)


def lossless(model: nn.Module, x: Tensor, name: str, merge: str = "merge") -> None:
    x = x.double()
    graph = niwaki.trace(model, x)
    plan = Plan({name: Kept(8, KEPT)})
    done = niwaki.compensate(niwaki.Cut(graph, plan), merge)
    assert done.notes[name] == "merged 3 of 3 dropped units"
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, done.mixings))
    niwaki.check(niwaki.Cut(graph, plan, done.mixings), pruned)
    other = torch.randn_like(x)
    torch.testing.assert_close(pruned(other), model(other), rtol=1e-9, atol=1e-9)
    bare = niwaki.shrink(niwaki.Cut(graph, plan))
    assert (bare(other) - model(other)).abs().max() > 1e-3


def test_linear_twins_go_without_a_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))
    model.double().eval()
    twins(model[0], PAIRS)
    lossless(model, torch.randn(5, 3), "0")


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity()])
def test_convolution_twins_go_without_a_trace_across_flatten(activation: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), activation, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )
    model.double().eval()
    twins(model[0], PAIRS)
    lossless(model, torch.randn(3, 2, 6, 6), "0")


@pytest.mark.parametrize("bias", [False, True])
def test_batchnorm_twins_go_without_a_trace(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 4, 1),
    )
    model.double().eval()
    batchnorm_twins(model[0], model[1], PAIRS)
    lossless(model, torch.randn(3, 2, 6, 6), "0")


@pytest.mark.parametrize("bias", [False, True])
def test_batchnorm_twins_go_without_a_trace_across_flatten(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    model.double().eval()
    batchnorm_twins(model[0], model[1], PAIRS)
    lossless(model, torch.randn(3, 2, 6, 6), "0")


class TwoReaders(nn.Module):
    """Two layers read the units, one of them with others in front."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Linear(3, 8),
            nn.Linear(3, 5),
            nn.Linear(8, 4),
            nn.Linear(13, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        units = torch.relu(self.a(x))
        out: Tensor = self.c(units) + self.d(torch.cat([torch.relu(self.b(x)), units], 1))
        return out


def test_twins_with_two_readers_go_without_a_trace() -> None:
    torch.manual_seed(0)
    model = TwoReaders()
    model.double().eval()
    twins(model.a, PAIRS)
    lossless(model, torch.randn(5, 3), "a")


# where it cannot be exact, it says why


class Fork(nn.Module):
    """The same units are read normalised and as they are: no one factor is right for both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.left(torch.relu(self.bn(x))) + self.right(torch.relu(x))
        return out


class LateBias(nn.Module):
    """What is added is the same for all units, so that a multiple of a unit's weights is no
    multiple of the unit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.position, self.out = (
            nn.Conv2d(3, 8, 3, bias=False),
            nn.Parameter(torch.randn(4, 4)),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.conv(x) + self.position))
        return out


class MapBias(nn.Module):
    """A bias of its own for every position, and a normalisation behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.position, self.bn = (
            nn.Conv2d(3, 8, 3, bias=False),
            nn.Parameter(torch.randn(8, 4, 4)),
            nn.BatchNorm2d(8),
        )
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.bn(self.conv(x) + self.position)))
        return out


class Standardised(nn.Module):
    """The weight is computed from the parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.randn(8, 3)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(
            torch.relu(x.mean((2, 3)) @ (self.weight / self.weight.std(1, keepdim=True)).T)
        )
        return out


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.out = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.out(x + self.conv(torch.relu(x)))
        return out


def between_convolutions(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Conv2d(8, 4, 1))


OBSTACLES: list[tuple[nn.Module, str, str]] = [
    (between_convolutions(nn.GELU()), "0", "aten.gelu in 1 is not positively homogeneous"),
    (between_convolutions(nn.Sigmoid()), "0", "aten.sigmoid in 1 is not positively homogeneous"),
    (
        between_convolutions(nn.ReLU(), nn.BatchNorm2d(8)),
        "0",
        "normalises what is not a product and its bias",
    ),
    (between_convolutions(nn.GroupNorm(1, 8), nn.ReLU()), "0", "aten.native_group_norm in 1"),
    (
        between_convolutions(nn.Conv2d(8, 8, 3, groups=8)),
        "0",
        "carried through aten.convolution in 1",
    ),
    (Residual(), "stem", "joins it with another activation"),
    (Fork(), "conv", "read in several forms, with and without a bias or normalisation"),
    (LateBias(), "conv", "adds a parameter that is not the bias of a product"),
    (MapBias(), "conv", "normalises what is not a product and its bias"),
    (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.Flatten(),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 4),
        ),
        "0",
        "normalises what is not a product and its bias",
    ),
    (Standardised(), "weight", "written through a computed weight by aten.mm"),
]


@pytest.mark.parametrize(
    ("model", "group", "reason"), OBSTACLES, ids=[reason for _, _, reason in OBSTACLES]
)
@pytest.mark.usefixtures("quick_latency")
def test_what_cannot_be_merged_is_pruned_plainly_and_says_why(
    model: nn.Module, group: str, reason: str
) -> None:
    result = niwaki.prune(model, torch.randn(2, 3, 6, 6), compensation="merge", only=group)
    note = result.notes[group]
    assert note.startswith("not merged: ")
    assert reason in note
    assert any(reason in line for line in result.record.notes)
    assert len(result.plan[group].units) == 4


def test_dead_and_zero_units_are_dropped_plainly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        within.tensor(model, "0.weight")[[0, 3]] = 0
        within.tensor(model, "0.bias")[[0, 3]] = 0
    matrix = mixing(model, torch.randn(2, 3).double(), "0", [2, 3, 5], Merge(threshold=-1))
    assert bool(torch.isfinite(matrix).all())
    assert matrix[0].tolist() == [0, 0, 0]
    assert matrix[1:, 1].nonzero().flatten().tolist() == [
        2
    ]  # the kept zero unit stands for itself only


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("merge:threshold=1.5", "merge:threshold is a cosine"),
        ("merge:threshold=nan", "merge:threshold is a cosine"),
        ("merge:lam=-0.1", "merge:lam must be in"),
        ("merge:bn=other", "merge:bn is one of derived, published; got 'other'"),
    ],
)
def test_settings_out_of_range_are_refused(spec: str, message: str) -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(SettingError, match=message):
        niwaki.prune(model, torch.randn(2, 3), compensation=spec)
