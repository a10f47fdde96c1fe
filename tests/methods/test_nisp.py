"""NISP against |W|ᵀ·s written out, and on networks where the answer is known."""

from __future__ import annotations

import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.nisp import infinite_feature_selection, last_reads, propagated

pytestmark = pytest.mark.usefixtures("one_thread")


def test_absolute_products_are_the_worked_example() -> None:
    model = nn.Sequential(
        nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    ).double()
    with torch.no_grad():
        within.tensor(model, "2.weight").copy_(torch.tensor([[3.0, -1.0], [0.0, 2.0]]))
    graph = niwaki.trace(model, torch.randn(4, 3, dtype=torch.float64))
    (read,) = last_reads(graph)
    final = [(read, torch.tensor([1.0, 2.0], dtype=torch.float64))]
    scores = propagated(graph, final, {})
    assert scores["2"].tolist() == [1, 2]
    assert scores["0"].tolist() == [3, 5]
    pruned = propagated(graph, final, {"2": Kept(2, (0,))})
    assert pruned["0"].tolist() == [3, 1]


def test_convolutions_normalisations_and_pools_are_transposed() -> None:
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)]
    model = (
        nn.Sequential(*first, nn.Conv2d(3, 4, 2, padding=1), nn.Flatten(), nn.Linear(36, 2))
        .double()
        .eval()
    )
    norm = model[1]
    with torch.no_grad():
        within.tensor(norm, "weight").copy_(torch.tensor([1.0, -2.0, 0.5]))
        within.tensor(norm, "running_var").copy_(torch.tensor([0.5, 2.0, 3.0]))
    inputs = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    graph = niwaki.trace(model, inputs)
    (read,) = last_reads(graph)
    final = torch.rand(36, dtype=torch.float64)
    scores = propagated(graph, [(read, final)], {})
    torch.testing.assert_close(scores["4"], final.view(4, 9).sum(1), rtol=1e-10, atol=0)
    # through the second convolution: its transpose with absolute weights
    maps = F.conv_transpose2d(
        final.view(1, 4, 3, 3), within.tensor(model, "4.weight").detach().abs(), padding=1
    )
    torch.testing.assert_close(scores["0"], maps.sum((0, 2, 3)), rtol=1e-10, atol=0)


class Stream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False)
        self.back, self.out = nn.Linear(5, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.out(x + self.back(self.inner(x).relu()))
        return out


def test_of_a_sum_every_branch_gets_the_importance() -> None:
    torch.manual_seed(0)
    model = Stream().double()
    graph = niwaki.trace(model, torch.randn(2, 3, dtype=torch.float64))
    (read,) = last_reads(graph)
    final = torch.rand(4, dtype=torch.float64)
    scores = propagated(graph, [(read, final)], {})
    inner, back = (model.inner.weight.detach().abs(), model.back.weight.detach().abs())
    torch.testing.assert_close(scores["inner"], back.T @ final, rtol=1e-10, atol=0)
    # the stream is read by the classifier and by the branch
    by_hand = final + inner.T @ back.T @ final
    torch.testing.assert_close(scores["stem"], by_hand, rtol=1e-10, atol=0)


def test_infinite_feature_selection_is_the_sum_over_all_paths() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 4, dtype=torch.float64)
    spread = features.std(0, correction=0)
    spread = spread / spread.max()
    ranks = features.argsort(0).argsort(0).double()
    edges = torch.empty(4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            rho = float(torch.corrcoef(ranks[:, [i, j]].T)[0, 1])
            edges[i, j] = 0.3 * max(spread[i], spread[j]) + 0.7 * (1 - abs(rho))
    step = 0.9 / torch.linalg.eigvalsh(edges).abs().max() * edges
    paths, total = step.clone(), step.clone()
    for _ in range(600):
        paths = paths @ step
        total = total + paths
    found = infinite_feature_selection(features, 0.3)
    torch.testing.assert_close(found, total.sum(1), rtol=1e-10, atol=0)


def test_a_response_that_copies_another_or_never_varies_matters_less() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 4, dtype=torch.float64)
    features[:, 1] = features[:, 0]
    features[:, 3] = 1.0
    scores = infinite_feature_selection(features, 0.5)
    assert scores[2] > scores[0]
    assert float(scores[0]) == pytest.approx(float(scores[1]))
    assert scores.argmin() == 3


def test_a_plan_is_refined_from_the_last_group_to_the_first() -> None:
    """The unit that only a pruned response reads loses to one that a kept response reads."""
    model = nn.Sequential(
        nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)
    ).double()
    with torch.no_grad():
        # unit 1 of the first layer is heard by response 2 alone, which says next to nothing new
        within.tensor(model, "2.weight").copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 4.0]]))
        within.tensor(model, "2.bias").copy_(torch.tensor([1.0, 1.0, 100.0]))
        within.tensor(model, "0.weight").copy_(torch.tensor([[1.0, 0.0], [0.0, 1e-6]]))
    inputs = torch.randn(64, 2, dtype=torch.float64)
    graph, criterion = niwaki.trace(model, inputs), CRITERIA.build("nisp:alpha=1")
    seen = niwaki.Calibration.of([inputs])
    scores = niwaki.score(graph, criterion, calibration=seen)
    assert scores["2"].argmin() == 2
    assert scores["0"].argmin() == 0
    plan = niwaki.Plan({"0": Kept(2, (1,)), "2": Kept(3, (0, 1))})
    refined = niwaki.refine(graph, plan, criterion, calibration=seen)
    assert refined.kept == {"0": (0,), "2": (0, 1)}


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="alpha"):
        CRITERIA.build("nisp:alpha=2")
