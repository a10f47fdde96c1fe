"""The guard: a repair that loses against plain pruning is weakened or dropped, one that does not is
left as it is, and what it is judged on is not what it was fitted to.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.graph import Masked
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.examples import judged_on
from niwaki.methods.base.guard import guarded
from niwaki.methods.base.held_out import Split
from niwaki.methods.base.trial import weakened
from niwaki.running import batch_size, play


def dense() -> nn.Sequential:
    layers = (nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    return nn.Sequential(*layers)


def images() -> nn.Sequential:
    first = (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    rest = (nn.Conv2d(8, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 4))
    return nn.Sequential(*first, *rest)


class Twice(nn.Module):
    """One layer reads two groups at once, and is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both = nn.Linear(6, 8), nn.Linear(6, 10), nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        def once(x: Tensor) -> Tensor:
            both = torch.cat([torch.relu(self.a(x)), torch.tanh(self.b(x))], 1)
            out: Tensor = self.both(both)
            return out

        return once(x) - once(-x)


CASES = {"dense": (dense, (6,)), "images": (images, (3, 6, 6)), "twice": (Twice, (6,))}


def built(case: str) -> tuple[niwaki.Graph, niwaki.Plan, Tensor]:
    make, shape = CASES[case]
    torch.manual_seed(0)
    model = make().double().eval()
    x = torch.randn(60, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    graph = niwaki.trace(model, x[:8])
    return graph, niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5).plan, x


def good(graph: niwaki.Graph, plan: niwaki.Plan, x: Tensor) -> Cut:
    return niwaki.compensate(
        niwaki.Cut(graph, plan),
        "reconstruct:order=parallel",
        calibration=niwaki.Calibration.of([x]),
    )


def split(graph: niwaki.Graph, x: Tensor) -> Split:
    return Split.of(niwaki.Evidence(graph, niwaki.Calibration.of([x])), "the test")


def error(graph: niwaki.Graph, plan: niwaki.Plan, made: Cut, x: Tensor) -> float:
    masked = Masked(graph, plan, made.mixings)
    (found,) = play(graph.inference.tape, graph.state, x, masked.run)
    return float((found - graph.model(x)).norm().detach())


@pytest.mark.parametrize("case", CASES)
def test_a_repair_that_does_not_lose_is_left_as_it_is(case: str) -> None:
    graph, plan, x = built(case)
    made = good(graph, plan, x)
    kept = guarded(made, graph, plan, split(graph, x))
    assert kept.mixings.keys() == made.mixings.keys()
    assert kept.notes == made.notes
    assert not kept.remarks


@pytest.mark.parametrize("case", CASES)
def test_a_repair_that_harms_is_dropped_and_the_others_stay(case: str) -> None:
    graph, plan, x = built(case)
    made = good(graph, plan, x)
    bad = next(iter(made.mixings))
    wrong = weakened(made.mixings[bad], plan.kept[bad], -20.0)
    harmful = replace(made, mixings={**made.mixings, bad: wrong})
    kept = guarded(harmful, graph, plan, split(graph, x))
    assert kept.mixings.keys() == made.mixings.keys() - {bad}
    assert kept.notes[bad].startswith("not repaired: on held-out calibration inputs")
    assert "1 of" in kept.remarks[-1]
    plain = Cut(graph, plan)
    assert error(graph, plan, kept, x[:8]) < error(graph, plan, plain, x[:8])


@pytest.mark.parametrize("case", CASES)
def test_a_repair_that_goes_too_far_is_weakened(case: str) -> None:
    graph, plan, x = built(case)
    made = good(graph, plan, x)
    far = next(iter(made.mixings))
    wrong = weakened(made.mixings[far], plan.kept[far], 2.5)
    kept = guarded(replace(made, mixings={far: wrong}), graph, plan, split(graph, x))
    assert "weakened to 0." in kept.notes[far]
    plain = Cut(graph, plan)
    assert error(graph, plan, kept, x[:8]) < error(graph, plan, plain, x[:8])


def test_a_mixing_of_nan_is_dropped() -> None:
    graph, plan, x = built("dense")
    made = good(graph, plan, x)
    broken = {name: replace(m, matrix=m.matrix * torch.nan) for name, m in made.mixings.items()}
    kept = guarded(replace(made, mixings=broken), graph, plan, split(graph, x))
    assert not kept.mixings
    assert all(note.startswith("not repaired") for note in kept.notes.values())


@pytest.mark.parametrize("sizes", [(60,), (30, 15, 7), (128, 128, 3)])
def test_a_tenth_is_held_out_and_not_fitted_to(sizes: tuple[int, ...]) -> None:
    graph, _, _ = built("dense")
    batches = [torch.randn(size, 6, dtype=torch.float64) for size in sizes]
    parts = Split.of(niwaki.Evidence(graph, niwaki.Calibration.of(batches)), "the test")
    fitted = [inputs for inputs, _ in parts.evidence.batches("the test")]
    held = sum(batch_size(inputs) for inputs in parts.held)
    assert held == sum(size // 10 for size in sizes)
    assert held + sum(batch_size(inputs) for inputs in fitted) == sum(sizes)
    first = (fitted[0], parts.held[0])
    assert torch.equal(torch.cat([part for part in first if isinstance(part, Tensor)]), batches[0])


def test_too_few_inputs_are_judged_on_too() -> None:
    graph, _, x = built("dense")
    few = Split.of(niwaki.Evidence(graph, niwaki.Calibration.of([x[:12]])), "the test")
    assert few.source == "the calibration inputs"
    assert sum(batch_size(inputs) for inputs, _ in few.evidence.batches("the test")) == 12


@pytest.mark.parametrize(
    "example", [torch.zeros(2, 3, 12, 12), torch.ones(3, 3, 12, 12), torch.randn(2, 3, 12, 12)]
)
def test_examples_that_say_nothing_become_noise_that_is_like_images(example: Tensor) -> None:
    made = judged_on(example)
    assert isinstance(made, Tensor)
    assert len(made) == 32
    assert float(made.mean() - example.mean()) == pytest.approx(0, abs=0.2)
    assert float((made[..., 1:] * made[..., :-1]).mean() - made.mean() ** 2) > 0.2
    assert judged_on(made) is made  # it is like images


def test_numbers_that_are_no_map_and_tokens_are_left_as_they_are() -> None:
    words, numbers = torch.randint(9, (2, 7)), torch.randn(4, 6)
    given = {"words": words, "numbers": numbers}
    assert judged_on(given) is given
    pair = judged_on((words, torch.zeros(2, 6)))
    assert isinstance(pair, tuple)
    assert torch.equal(pair[0][:2], words)


@pytest.mark.parametrize("case", CASES)
def test_the_default_never_leaves_the_outputs_worse_than_plain_pruning(case: str) -> None:
    graph, plan, x = built(case)
    plain = Cut(graph, plan)
    without = niwaki.compensate(niwaki.Cut(graph, plan), "auto")
    assert error(graph, plan, without, x[:8]) <= error(graph, plan, plain, x[:8]) * (1 + 1e-6)
    with_inputs = niwaki.compensate(
        niwaki.Cut(graph, plan), "auto", calibration=niwaki.Calibration.of([x])
    )
    assert error(graph, plan, with_inputs, x[:8]) < error(graph, plan, plain, x[:8])
