"""Training objectives with a state of their own: GAL and OED, number by number, and what they find
where the answer is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import within
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.factors import factors_of, plan_of_zeros, zero_branches
from niwaki.methods.gal import GAL, Game, discriminator, discriminator_loss
from niwaki.methods.oed import OED, Lesson
from niwaki.training import TrainSettings, fit

pytestmark = pytest.mark.usefixtures("one_thread")


class TwoBranches(nn.Module):
    """Two residual branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x.relu())
        x = x + self.second(x.relu())
        out: Tensor = self.out(x)
        return out


def network() -> TwoBranches:
    torch.manual_seed(0)
    model = TwoBranches().double()
    with torch.no_grad():
        for parameter in model.second.parameters():
            parameter.mul_(1e-4)
        model.out.weight *= 3
    return model


INPUTS = torch.randn(128, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def odds(judge: nn.Module, x: Tensor) -> Tensor:
    return torch.sigmoid(judge(x))


def test_the_losses_are_those_of_the_formulas() -> None:
    judge = discriminator(3, seed=0).double()
    assert [layer.out_features for layer in judge] == [128, 256, 128, 1]
    assert all(bool((within.tensor(layer, "bias") == 0).all()) for layer in judge)
    assert float(within.tensor(judge, "1.weight").detach().std()) == pytest.approx(0.01, rel=0.05)
    with torch.no_grad():
        for layer in judge:
            within.tensor(layer, "weight").mul_(8)
    wanted, given = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    by_hand = -odds(judge, wanted).log().mean() - (1 - odds(judge, given)).log().mean()
    by_hand = by_hand - odds(judge, given).log().mean()
    torch.testing.assert_close(
        discriminator_loss(judge, wanted, given), by_hand, rtol=1e-10, atol=0
    )
    model = network()
    game = Game(GAL(model, likeness=0.7, lr=1e-12), judge)
    given = model(INPUTS).detach() + 0.3
    loss = game.loss(INPUTS, given, torch.tensor(float("nan")))  # labels play no part
    by_hand = 0.7 * 0.09 - odds(judge, given).log().mean()
    torch.testing.assert_close(loss, by_hand.detach(), rtol=1e-10, atol=0)
    silent = Game(GAL(model, likeness=0.0, lr=1e-12))
    assert float(silent.loss(INPUTS, model(INPUTS), torch.zeros(())).detach()) == pytest.approx(
        math.log(2), abs=1e-3
    )
    assert silent.losses[0] == pytest.approx(3 * math.log(2), abs=1e-3)


def test_the_discriminator_goes_down_its_gradient_and_the_student_leaves_it_alone() -> None:
    model = network()
    game, other = Game(GAL(model, lr=0.5)), discriminator(3, 0).double()
    given = (model(INPUTS) * 2).detach().requires_grad_()
    game.loss(INPUTS, given, torch.zeros(())).backward()
    slopes = torch.autograd.grad(
        discriminator_loss(other, model(INPUTS).detach(), given.detach()), list(other.parameters())
    )
    assert game.discriminator is not None
    for found, start, slope in zip(
        game.discriminator.parameters(), other.parameters(), slopes, strict=True
    ):
        torch.testing.assert_close(found, start - 0.5 * slope, rtol=1e-10, atol=1e-14)
        assert found.grad is None
    assert given.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


def no_labels(inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(32)]


def test_gal_finds_the_branch_that_does_nothing() -> None:
    model = network()
    graph = niwaki.trace(model, INPUTS)
    method = GAL(model, over="branches", reg=0.02, every=2, start="ones", lr=0.001)
    student = method.prepare(graph)
    settings = TrainSettings(epochs=12, lr=0.01, weight_decay=0.0, schedule="constant")
    fit(
        student,
        lambda epoch: no_labels(INPUTS),
        settings=settings,
        distillation=method,
        after_step=method.after_step(0.5),
        parameter_groups=[{"params": method.weights(student)}],
        progress=False,
    )
    assert zero_branches(student) == ("second",)
    assert float(factors_of(student)["first"].detach()) > 0


def test_gal_takes_units_too_and_starts_at_random() -> None:
    model = network()
    graph = niwaki.trace(model, INPUTS)
    first, again = (GAL(model, seed=3).prepare(graph) for _ in range(2))
    other = GAL(model, seed=4).prepare(graph)
    for name, factor in factors_of(first).items():
        assert torch.equal(factor, factors_of(again)[name])
        assert not torch.equal(factor, factors_of(other)[name])
    first = GAL(model, start="ones").prepare(graph)
    step = GAL(model, reg=1e6, every=1).after_step(1.0)
    first(INPUTS).sum().backward()
    step(first)
    assert all(bool((factor == 0).all()) for factor in factors_of(first).values())
    assert all(len(kept.units) == 1 for kept in plan_of_zeros(graph, first).values())


def test_oed_is_the_sum_of_its_losses() -> None:
    graph, method = niwaki.trace(network(), INPUTS), OED(temperature=2.0)
    ensemble = method.prepare(graph)
    assert len(list(ensemble.copies)) == 2
    labels = torch.arange(len(INPUTS)) % 3
    joint = ensemble(INPUTS)
    *copies, teacher = ensemble.said
    by_hand = F.cross_entropy(teacher, labels)
    for logits in copies:
        by_hand = by_hand + F.cross_entropy(logits, labels)
        for given, learning in ((teacher, logits), (logits, teacher)):
            p, q = torch.softmax(given / 2, 1), torch.softmax(learning / 2, 1)
            by_hand = by_hand + 4 * (p * (p.log() - q.log())).sum(1).mean()
    loss = Lesson(method, ensemble).loss(INPUTS, joint, F.cross_entropy(joint, labels))
    torch.testing.assert_close(loss, by_hand, rtol=1e-10, atol=1e-12)


def test_oed_trains_in_one_run_and_its_masks_reach_zero() -> None:
    model = network()
    labels = model(INPUTS).argmax(1).detach()
    graph, method = niwaki.trace(model, INPUTS), OED(reg=0.3, seed=1)
    ensemble = method.prepare(graph)
    batches = list(zip(INPUTS.split(32), labels.split(32), strict=True))
    settings = TrainSettings(epochs=15, lr=0.02, weight_decay=0.0, schedule="constant")
    history = fit(
        ensemble,
        lambda epoch: batches,
        settings=settings,
        distillation=method,
        after_step=method.after_step(0.1),
        parameter_groups=[{"params": method.weights(ensemble)}],
        progress=False,
    )
    assert history.epochs[-1].accuracy > 0.9
    assert "second" in zero_branches(ensemble.best())


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: GAL(nn.Identity(), reg=-1), "reg"),
        (lambda: GAL(nn.Identity(), every=0), "every"),
        (lambda: GAL(nn.Identity(), lr=0), "lr"),
        (lambda: OED(copies=1), "copies"),
        (lambda: OED(temperature=0), "temperature"),
    ],
)
def test_settings_are_checked(build: Callable[[], object], rule: str) -> None:
    with pytest.raises(SettingError, match=rule):
        build()


def test_only_its_own_ensemble_is_taken_and_teachers_must_fit() -> None:
    with pytest.raises(SettingError, match="prepare"), OED().watching(nn.Linear(2, 2)):
        pass
    with pytest.raises(SettingError, match="the teacher gives"):
        Game(GAL(nn.Linear(4, 2).double())).loss(INPUTS, torch.zeros(128, 3), torch.zeros(()))
