"""Criteria by activations and by ranks, against a plain reading of their formulas."""

from __future__ import annotations

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import UnknownNameError
from niwaki.methods.flap import Flap
from niwaki.methods.isomorphic import Isomorphic, kind_of
from niwaki.methods.lamp import Lamp
from niwaki.methods.wanda import Wanda

pytestmark = pytest.mark.usefixtures("one_thread")


class Constant(nn.Module):
    """Unit 0 of `a` gives 3 and 4 (5 in the second example), unit 1 the double."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0], [2.0]]))
            self.b.weight.copy_(torch.tensor([[1.0, 1.0], [-2.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x).relu())
        return out


def evidence(model: nn.Module, inputs: Tensor) -> niwaki.Evidence:
    return niwaki.Evidence(niwaki.trace(model, inputs), niwaki.Calibration.of([inputs]))


def test_the_worked_examples() -> None:
    model = Constant().double()
    seen = evidence(model, torch.tensor([[3.0], [4.0]], dtype=torch.float64))
    assert Wanda().scores(seen)["a"].tolist() == pytest.approx([15, 10])
    seen = evidence(model, torch.tensor([[3.0], [5.0]], dtype=torch.float64))
    assert Flap(standardise=False).scores(seen)["a"].tolist() == pytest.approx([10, 8])
    assert Flap().scores(seen)["a"].tolist() == pytest.approx([1, -1])


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(20, 3)).double()


def test_wanda_and_flap_of_maps_and_of_a_flattened_map() -> None:
    model, inputs = cnn(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    first, second = model[:2](inputs).detach(), model[:4](inputs).detach()
    seen = evidence(model, inputs)
    # all places of a channel are read by one column
    rows, weight = first.movedim(1, -1).reshape(-1, 4), within.tensor(model, "2.weight").detach()
    wanda, flap = Wanda().scores(seen), Flap(standardise=False).scores(seen)
    size = weight.abs().sum((0, 2, 3))
    torch.testing.assert_close(wanda["0"] * 1, rows.norm(dim=0) * size, rtol=1e-10, atol=0)
    by_hand = rows.var(0) * weight.square().sum((0, 2, 3))
    torch.testing.assert_close(flap["0"], by_hand, rtol=1e-10, atol=0)
    # a flattened map has a column for every place
    rows, weight = second.flatten(1), within.tensor(model, "5.weight").detach()
    by_hand = (rows.norm(dim=0) * weight.abs().sum(0)).view(5, 4).sum(1)
    torch.testing.assert_close(wanda["2"], by_hand, rtol=1e-10, atol=0)
    by_hand = (rows.var(0) * weight.square().sum(0)).view(5, 4).sum(1)
    torch.testing.assert_close(flap["2"], by_hand, rtol=1e-10, atol=0)


def test_batches_do_not_change_what_is_counted() -> None:
    model, inputs = cnn(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    graph = niwaki.trace(model, inputs)
    for name in ("wanda", "flap"):
        whole = niwaki.score(graph, name, calibration=niwaki.Calibration.of([inputs]))
        parts = niwaki.score(graph, name, calibration=niwaki.Calibration.of(inputs.split(2)))
        for group, scores in whole.items():
            torch.testing.assert_close(parts[group], scores, rtol=1e-9, atol=1e-12)


def test_flap_puts_constant_units_into_biases_without_a_loss() -> None:
    """Units 1 and 3 give the same on every input: the network without them computes the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        within.tensor(model, "0.weight")[[1, 3]] = 0
        within.tensor(model, "0.bias")[[1, 3]] = torch.tensor([2.0, 7.0], dtype=torch.float64)
    inputs = torch.randn(9, 3, dtype=torch.float64)
    result = niwaki.prune(
        model, inputs, criterion="flap", budget=1 / 3, compensation="flap", calibration=[inputs]
    )
    assert result.plan.kept == {"0": (0, 2, 4, 5)}
    torch.testing.assert_close(result.model(inputs), model(inputs), rtol=1e-10, atol=1e-10)
    assert "means" in result.notes["0"]


def test_lamp_keeps_the_heaviest_of_every_layer_and_orders_like_the_norm() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        within.tensor(model, "2.weight").mul_(
            1e-3
        )  # one threshold over norms would empty this layer
    graph = niwaki.trace(model, torch.randn(2, 3))
    scores, norms = niwaki.score(graph, "lamp"), niwaki.score(graph, "l2")
    for name, values in scores.items():
        assert float(values.max()) == 1
        assert torch.equal(values.argsort(), norms[name].argsort())
    plan = niwaki.select(niwaki.Scores(graph, scores), 0.5, niwaki.Selection(scope="global")).plan
    assert all(len(kept.units) >= 2 for kept in plan.values())
    assert Lamp().comparable


class TwoKinds(nn.Module):
    """Two blocks of one kind (linear), and a convolution in front."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 1), nn.Linear(4, 2)
        self.second, self.out = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().mean((2, 3))
        out: Tensor = self.out(self.second(self.first(x).relu()).relu())
        return out


def test_groups_compete_within_their_kind_only() -> None:
    graph = niwaki.trace(TwoKinds(), torch.randn(1, 1, 2, 2))
    kinds = [kind_of(graph, graph[name]) for name in ("first", "second", "stem")]
    assert kinds[0] == kinds[1] != kinds[2]
    given = {"first": [1.0, 5.0], "second": [2.0, 3.0], "stem": [900.0, 700.0, 950.0, 800.0]}

    class Fixed(niwaki.Criterion):
        comparable = True

        def score(self, group: niwaki.Group, evidence: niwaki.Evidence) -> Tensor:
            return torch.tensor(given[group.name])

    scores = niwaki.score(graph, Isomorphic(Fixed()))
    assert scores["first"].tolist() == [0.25, 1.0]
    assert scores["second"].tolist() == [0.5, 0.75]
    assert scores["stem"].tolist() == [0.75, 0.25, 1.0, 0.5]
    plan = niwaki.select(niwaki.Scores(graph, scores), 0.5, niwaki.Selection(scope="global")).plan
    assert plan.kept == {"stem": (0, 2), "first": (1,), "second": (1,)}


def test_isomorphic_takes_a_criterion_by_name_and_refuses_others() -> None:
    graph = niwaki.trace(TwoKinds(), torch.randn(1, 1, 2, 2))
    by_name, l1 = niwaki.score(graph, "isomorphic:criterion=l1"), niwaki.score(graph, "l1")
    assert torch.equal(by_name["stem"].argsort(), l1["stem"].argsort())
    with pytest.raises(UnknownNameError, match="known: "):
        niwaki.score(graph, "isomorphic:criterion=l9")


@pytest.mark.parametrize(
    "name",
    [
        "taylor",
        "taylor-activation",
        "fisher",
        "hessian",
        "wanda",
        "flap",
        "nisp",
        "thinet",
        "lamp",
        "isomorphic",
        "pruning-filters",
    ],
)
def test_torch_s_default_device_plays_no_part(name: str) -> None:
    model, inputs = cnn(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    graph, seen = niwaki.trace(model, inputs), niwaki.Calibration.of([inputs])
    wanted = niwaki.score(graph, name, calibration=seen)
    with torch.device("meta"):
        scores = niwaki.score(graph, name, calibration=seen)
    assert all(torch.equal(scores[group], values) for group, values in wanted.items())
