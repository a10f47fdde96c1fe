"""What a group's loss of units does: the curve against a plain least squares, and the measurement
against the pruned network itself.
"""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.plan import Kept, Plan
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.distortion.curves import through, with_curves
from niwaki.methods.distortion.probes import Distance, Probes
from niwaki.methods.distortion.shape import RIDGE, Shape
from niwaki.methods.none import NoCompensation
from niwaki.methods.reconstruction.repair import Reconstruct
from niwaki.running import Playback
from niwaki.running.tape import Op


def test_the_curve_is_what_least_squares_leaves_at_every_count() -> None:
    torch.manual_seed(0)
    mixed, weight = torch.randn(7, 7).double(), torch.randn(4, 7).double()
    covariance, gram, order = mixed @ mixed.T, weight.T @ weight, torch.randperm(7)
    shape = Shape(order)
    shape.add(covariance, gram)
    curve = shape.curve()
    assert curve is not None
    level = covariance.diagonal().mean()
    damped = covariance + RIDGE * level * torch.eye(7).double()
    for count in range(8):
        kept, gone = order[:count], order[count:]
        left = damped[gone][:, gone] - damped[gone][:, kept] @ torch.linalg.solve(
            damped[kept][:, kept], damped[kept][:, gone]
        )
        wanted = (gram[gone][:, gone] * left).sum() / (gram * covariance).sum()
        torch.testing.assert_close(curve[count], wanted)


def test_units_in_parts_add_up_to_a_block_diagonal() -> None:
    torch.manual_seed(0)
    blocks = [torch.randn(n, 9).double() for n in (3, 4)]
    parts = [block @ block.T for block in blocks]
    weight, order = torch.randn(5, 7).double(), torch.randperm(7)
    gram = weight.T @ weight
    whole, apart = Shape(order), Shape(order)
    whole.add(torch.block_diag(*parts), gram * torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)))
    apart.add(parts[0], gram[:3, :3])
    apart.add(parts[1], gram[3:, 3:], 3)
    one, other = whole.curve(), apart.curve()
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)  # ridges are of other means


def test_a_curve_passes_through_what_was_measured_and_never_rises() -> None:
    shape = torch.tensor([1.0, 0.6, 0.4, 0.1, 0.0]).double()
    curve = through(shape, {1: 3.0, 3: 0.2})
    assert curve[1] == pytest.approx(3.0)
    assert curve[3] == pytest.approx(0.2)
    assert curve[-1] == 0
    assert bool((curve.diff() <= 0).all())
    assert through(shape, {1: 0.1, 2: 5.0})[1] == pytest.approx(5.0)  # made to fall


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    ).eval()


def test_one_group_alone_is_what_its_pruned_network_answers() -> None:
    model, inputs = convolutions(), torch.randn(6, 2, 8, 8)
    graph = niwaki.trace(model, inputs)
    plans = [Plan({name: Kept(width, (0, 2, 3))}) for name, width in (("0", 6), ("2", 8))]
    seen = Evidence(graph, Calibration.of([inputs]))
    cuts = [Reconstruct(order="parallel").apply(seen, plan) for plan in plans]
    measured = Probes(graph, [inputs[:4], inputs[4:]]).alone(cuts)
    for cut, losses in zip(cuts, measured, strict=True):
        smaller = niwaki.shrink(cut)
        with torch.no_grad():
            whole, found = model(inputs), smaller(inputs)
        spread = sum((part - part.mean(0)).square().sum() for part in (whole[:4], whole[4:]))
        wanted = (found - whole).square().sum() / spread
        assert list(losses.values()) == [pytest.approx(float(wanted), rel=1e-3)]


def test_all_together_is_what_the_pruned_network_answers() -> None:
    model, inputs = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 1)), torch.randn(20, 4)
    graph = niwaki.trace(model, inputs)
    cut = Cut(graph, Plan({"0": Kept(9, (1, 2, 3))}))
    with torch.no_grad():
        wanted, found = model(inputs), niwaki.shrink(cut)(inputs)
    share = (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert Probes(graph, [inputs]).together(cut) == pytest.approx(float(share), rel=1e-4)


def test_a_fork_does_not_see_what_the_other_writes() -> None:
    model, inputs = convolutions(), torch.randn(2, 2, 8, 8)
    graph = niwaki.trace(model, inputs)
    tape = graph.inference.tape

    def zero(position: int, op: Op, args: Any, kwargs: Any) -> Any:
        return op.func(*args, **kwargs).zero_()

    def plain(position: int, op: Op, args: Any, kwargs: Any) -> Any:
        return op.func(*args, **kwargs)

    run = Playback(tape, graph.state, inputs)
    run.until(1, plain)  # the next writes in place
    fork = run.fork()
    fork.until(len(tape.ops), zero)
    run.until(len(tape.ops), plain)
    with torch.no_grad():
        torch.testing.assert_close(run.outputs[0], model(inputs))
    assert not fork.outputs[0].any()


def test_a_network_that_cannot_be_measured_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = convolutions(), torch.randn(2, 2, 8, 8)
    said: list[str] = []
    graph = niwaki.trace(model, inputs)

    def fails(*_: object) -> None:
        raise RuntimeError("an operator that is not to be played back")

    monkeypatch.setattr(Probes, "alone", fails)
    scores = Scores(
        graph,
        {group.name: torch.rand(group.width) for group in graph.groups},
        Evidence(graph, say=said.append),
    )
    curves = with_curves(scores, NoCompensation(), ["0", "2"]).curves
    assert {len(curve) for curve in curves.values()} == {7, 9}
    assert "not to be played back" in said[0]


class Routed(nn.Module):
    """Experts whose rows are looked up by what a router says, in several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.route, self.last = nn.Linear(6, 16), nn.Linear(16, 5), nn.Linear(16, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 16)) for _ in range(5)
        )

    def reached(self, which: Tensor) -> list[int]:
        if self.how == "unique":
            return which.unique().tolist()  # type: ignore[no-any-return]
        if self.how == "one_hot":
            return [int(row) for row in nn.functional.one_hot(which, 5).sum(0).nonzero()]
        hits = torch.zeros(5)
        hits[which] = 1.0
        return [int(row) for (row,) in hits.nonzero()]

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        which = self.route(h).argmax(-1)
        more = torch.zeros_like(h)
        for number in self.reached(which):
            rows = (which == number).nonzero().flatten()
            more = more.index_add(0, rows, self.experts[number](h[rows]))
        return self.last(torch.relu(h + more))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["unique", "one_hot", "written"])
def test_masked_networks_that_take_another_path_are_passed_over(how: str) -> None:
    torch.manual_seed(0)
    model, x = Routed(how).eval(), 3 * torch.randn(12, 6)
    result = niwaki.prune(model, x, 0.5, quality="best")
    assert niwaki.count_params(result.model) < niwaki.count_params(model)
    masked = oracle.masked(result.cut.graph, result.plan, result.cut.mixings).eval()
    for seed in range(3):
        other = 3 * torch.randn(30, 6, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(masked(other), result.model(other), rtol=1e-3, atol=1e-4)


def test_answers_that_are_no_measures_count_by_how_many_are_others() -> None:
    wanted, other = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 0])
    total = Distance()
    total.add([wanted], [other])
    total.add([wanted], [torch.tensor([1, 2])])  # of another shape: none of it is right
    assert float(total) == (2 + 4) / 8
    assert float(Distance()) == 0.0
    turned = Distance()
    turned.add([torch.tensor([1j, -1j])], [torch.tensor([1j, 0j])])
    assert float(turned) == pytest.approx(1 / 2)


class Classes(nn.Module):
    """Gives class numbers, of which one in three layers decides little."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.relu(self.second(torch.relu(self.first(x)))))
        return scores.argmax(1)


@pytest.mark.parametrize("scope", ["quick", "auto"])
def test_a_network_that_gives_class_numbers_is_divided_by_these(scope: str) -> None:
    seen = [torch.randn(64, 6, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    result = niwaki.prune(Classes().eval(), seen[0][:8], "macs=0.4", calibration=seen, scope=scope)
    assert any("answers are off by" in note for note in result.record.notes)
