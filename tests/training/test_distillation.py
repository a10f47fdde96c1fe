"""Distillation: the loss is the formula, features are those of the units that were kept, and
nothing is left behind.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import within
from needed import needs
from torch import nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.training import Distillation, TrainSettings, fit

needs("accelerate")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_teacher() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


INPUTS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_the_loss_is_that_of_the_formula() -> None:
    teacher, student = make_teacher().eval(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    distillation = Distillation(teacher, weight=0.3, temperature=2.0)
    with distillation.watching(student) as watch:
        logits = student(INPUTS)
        found = watch.loss(INPUTS, logits, F.cross_entropy(logits, TARGETS))
    p, q = torch.softmax(teacher(INPUTS) / 2, 1), torch.softmax(logits / 2, 1)
    kl = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(found, 0.7 * F.cross_entropy(logits, TARGETS) + 0.3 * 4 * kl)


def test_features_are_compared_at_the_groups_over_the_kept_units() -> None:
    teacher = make_teacher().eval()
    result = niwaki.prune(teacher, INPUTS, criterion="l1", budget=0.5, compensation="none")
    kept = list(result.plan["0"].units)
    distillation = Distillation(teacher, weight=0.0, plan=result.plan, feature_weight=2.0)
    with torch.no_grad():
        within.tensor(result.model, "0.weight").mul_(1.1)
        within.tensor(result.model, "0.bias").mul_(1.1)
    with distillation.watching(result.model) as watch:
        logits = result.model(INPUTS)
        loss = F.cross_entropy(logits, TARGETS)
        found = watch.loss(INPUTS, logits, loss)
    wanted = teacher[0](INPUTS)[:, kept]
    mine = within.layer(result.model, "0")(INPUTS)
    torch.testing.assert_close(
        found - loss, 2 * (mine - wanted).square().sum() / wanted.square().sum()
    )
    assert (found - loss).item() == pytest.approx(2 * 0.01, rel=1e-3)


def test_a_student_learns_from_a_teacher_alone_and_both_are_left_as_found() -> None:
    teacher = make_teacher().train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.manual_seed(5)
    student = make_teacher()
    within.part(student, "4", nn.Linear).reset_parameters()
    wrong = (TARGETS + 1) % 4
    distillation = Distillation(teacher, weight=1.0, temperature=1.0)
    settings = TrainSettings(epochs=60, lr=0.02, weight_decay=0.0)
    history = fit(
        student,
        lambda epoch: [(INPUTS, wrong)],
        settings=settings,
        distillation=distillation,
        progress=False,
    )
    assert history.epochs[-1].loss > 0.5  # it does not learn the wrong labels
    teacher.eval()
    student.eval()
    teachers, students = torch.softmax(teacher(INPUTS), 1), torch.softmax(student(INPUTS), 1)
    assert (teachers - students).abs().max() < 0.25
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(
        module._forward_hooks for network in (teacher, student) for module in network.modules()
    )


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"weight": 1.5}, "weight must lie in"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"feature_weight": -1.0}, "feature_weight must be 0 or more"),
        ({"feature_weight": float("nan")}, "feature_weight must be 0 or more"),
        ({"feature_weight": 1.0}, "needs the plan"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Distillation(make_teacher(), **settings)


def test_a_teacher_of_other_classes_is_refused() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(SettingError, match=r"the teacher gives \(6, 4\) and the student \(6, 3\)"):
        fit(
            student,
            lambda epoch: [(INPUTS, TARGETS % 3)],
            settings=TrainSettings(1),
            distillation=Distillation(make_teacher()),
            progress=False,
        )
