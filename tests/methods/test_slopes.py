"""What the answer loses to first order, against networks that are linear in what is cut, and
against the measurement.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.plan import Kept, Plan
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.distortion import quick
from niwaki.methods.distortion.probes import Probes
from niwaki.methods.distortion.slopes import slopes
from niwaki.methods.none import NoCompensation
from niwaki.methods.reconstruction.repair import Reconstruct

DRAWS = 20_000


def both(model: nn.Module, inputs: Tensor, kept: dict[str, Kept]) -> tuple[Any, Any]:
    """Losses to first order, and measured."""
    graph = niwaki.trace(model.eval(), inputs[:4])
    cut = Cut(graph, Plan(kept))
    with torch.no_grad():
        return slopes(graph, [inputs], [cut], DRAWS)[0], Probes(graph, [inputs]).alone([cut])[0]


def test_a_network_that_is_linear_behind_its_readers_is_told_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(inplace=True), nn.Linear(9, 7), nn.Linear(7, 3))
    kept = {"0": Kept(9, (0, 2, 3, 8)), "2": Kept(7, (1, 2, 3))}
    told, measured = both(model, torch.randn(4000, 5), kept)
    assert told.keys() == measured.keys() == kept.keys()
    for name, loss in measured.items():
        assert told[name] == pytest.approx(loss, rel=0.1)


def test_what_a_normalisation_drops_counts_once() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.norm, self.leave = nn.Linear(4, 32), nn.LayerNorm(32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.leave(self.norm(self.enter(x)))
            return answer

    torch.manual_seed(0)
    told, measured = both(Stream(), torch.randn(3000, 4), {"enter": Kept(32, tuple(range(31)))})
    assert told["enter"] == pytest.approx(measured["enter"], rel=0.3)


def test_convolutions_with_a_shortcut_are_near_what_is_measured() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(2, 8, 3, padding=1)
            self.one, self.norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
            self.two, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            x = torch.relu_(x + self.two(torch.relu_(self.norm(self.one(x)))))
            answer: Tensor = self.head(x.mean((2, 3)))
            return answer

    torch.manual_seed(0)
    kept = {"stem": Kept(8, tuple(range(7))), "one": Kept(12, tuple(range(11)))}
    told, measured = both(Block(), torch.randn(512, 2, 8, 8), kept)
    for name, loss in measured.items():
        assert told[name] == pytest.approx(loss, rel=0.5)


def test_answers_without_a_derivative_are_refused() -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.net(x)
            return scores.argmax(1)

    graph = niwaki.trace(Classes().eval(), torch.randn(4, 4))
    cut = Cut(graph, Plan({graph.groups[0].name: Kept(6, (0, 1))}))
    with pytest.raises(RuntimeError, match="none of its outputs has a derivative"):
        slopes(graph, [torch.randn(4, 4)], [cut], 8)


@pytest.mark.parametrize("repair", ["none", "reconstruct"])
def test_quick_curves_end_at_zero_and_never_rise(repair: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(300, 6)
    graph = niwaki.trace(model.eval(), inputs[:4])
    evidence = Evidence(graph, Calibration.of([inputs[:150], inputs[150:]]))
    scores = niwaki.score(graph, "l2")
    equal = niwaki.select(scores, 0.4).plan
    method = NoCompensation() if repair == "none" else Reconstruct()
    known = quick(scores, evidence, method, equal)
    assert known.cuts[0].plan == equal
    for name, curve in known.curves.items():
        assert len(curve) == graph[name].width + 1
        assert curve[-1] == 0
        assert bool((curve.diff() <= 0).all())
        assert curve[len(equal[name].units)] > 0
