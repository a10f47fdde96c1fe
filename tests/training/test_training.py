"""Training falls, repeats itself, keeps the best epoch by validation, and survives divergence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn

from niwaki.core.errors import DataError, SettingError, UnknownNameError
from niwaki.measure import Evaluation, evaluate
from niwaki.training import TrainSettings, fit, learning_rate


def make_model(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3)
        )


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    """Four batches of 16 samples, whose class is the largest of three inputs; shuffled by epoch."""
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
    data = data[order]
    return list(zip(data.split(16), data[:, :3].argmax(dim=1).split(16), strict=True))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


def train(model: nn.Module, train_batches: Any = batches, **options: Any) -> Any:
    settings = TrainSettings(**{"epochs": 3, "lr": 0.1, **options.pop("settings", {})})
    return fit(model, train_batches, settings=settings, progress=False, **options)


def test_loss_falls_and_history_tells() -> None:
    model = make_model()
    history = train(model, settings={"epochs": 12})
    losses = [epoch.loss for epoch in history.epochs]
    assert losses[-1] < 0.5 * losses[0]
    assert [epoch.number for epoch in history.epochs] == list(range(1, 13))
    assert history.best_epoch == 12
    assert history.stopped is None
    assert all(epoch.samples == 64 and epoch.seconds > 0 for epoch in history.epochs)
    assert history.seconds == sum(epoch.seconds for epoch in history.epochs)
    assert evaluate(model, batches(0)).accuracy > 0.9


def test_same_seed_same_weights_and_random_state_restored() -> None:
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        found = torch.get_rng_state()
        model = make_model()
        train(model, settings={"seed": 5})
        results.append(state(model))
        assert torch.equal(torch.get_rng_state(), found)
    assert same(*results)
    other = make_model()
    train(other, settings={"seed": 6})
    assert not same(results[0], state(other))


def test_watching_does_not_change_the_weights() -> None:
    def validate(model: nn.Module) -> Evaluation:
        torch.rand(7)
        return evaluate(model, batches(0))

    plain, watched = make_model(), make_model()
    train(plain, settings={"epochs": 1})
    history = train(watched, settings={"epochs": 1}, validate=validate)
    assert same(state(plain), state(watched))
    assert history.epochs[0].validation.samples == 64


def test_best_epoch_by_validation_is_restored() -> None:
    scores = iter([(0.5, 1.0), (0.8, 0.9), (0.8, 0.7), (0.8, 0.7), (0.6, 0.1)])
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> Evaluation:
        seen.append(state(model))
        accuracy, loss = next(scores)
        return Evaluation(accuracy, loss, 10, int(10 * accuracy))

    model = make_model()
    history = train(model, settings={"epochs": 5}, validate=validate)
    assert history.best_epoch == 3
    assert same(state(model), seen[2])
    assert not same(state(model), seen[4])


def poisoned(epoch: int) -> list[tuple[Tensor, Tensor]]:
    data = batches(epoch)
    if epoch == 3:
        data[2] = (torch.full((16, 4), float("nan")), data[2][1])
    return data


def test_divergence_keeps_the_last_good_weights_and_says_so() -> None:
    model, twin = make_model(), make_model()
    history = train(model, poisoned, settings={"epochs": 5, "schedule": "constant"})
    train(twin, settings={"epochs": 2, "schedule": "constant"})
    assert same(state(model), state(twin))
    assert (history.best_epoch, len(history.epochs)) == (2, 2)
    assert "stopped in epoch 3: the loss became nan; kept the weights of epoch 2" in history.stopped


def test_divergence_in_the_first_epoch_keeps_the_weights_it_came_with() -> None:
    model = make_model()
    before = state(model)
    history = train(model, lambda epoch: poisoned(3))
    assert same(state(model), before)
    assert history.best_epoch == 0
    assert "the weights that training began with" in history.stopped


def test_weights_broken_by_the_last_step_are_not_kept() -> None:
    model = nn.Linear(4, 3)
    before = state(model)
    history = train(
        model,
        lambda epoch: [(torch.full((2, 4), 1e30), torch.tensor([0, 1]))],
        settings={"lr": 1e30},
    )
    assert same(state(model), before)
    assert "parameter 'weight' is not finite" in history.stopped


def test_penalty_is_added_to_every_step() -> None:
    def penalty(model: nn.Module) -> Tensor:
        sums = [parameter.abs().sum() for parameter in model.parameters()]
        return 5 * torch.stack(sums).sum()

    plain, shrunk = make_model(), make_model()
    assert train(plain).epochs[0].penalty == 0
    history = train(shrunk, penalty=penalty, settings={"lr": 0.001})
    assert history.epochs[0].penalty > history.epochs[-1].penalty > 0
    assert (
        within.tensor(shrunk, "0.weight").abs().sum() < within.tensor(plain, "0.weight").abs().sum()
    )


def test_frozen_parameters_stay_and_a_frozen_model_is_refused() -> None:
    model = make_model()
    model[0].requires_grad_(False)
    before = state(model[0])
    train(model)
    assert same(state(model[0]), before)
    assert not model[0].weight.requires_grad
    with pytest.raises(SettingError, match="nothing to train"):
        train(model.requires_grad_(False))


def test_flags_come_back_also_after_an_error() -> None:
    model = make_model().eval()
    model[2].train()
    found = [module.training for module in model.modules()]
    train(model)
    with pytest.raises(RuntimeError):
        train(model, lambda epoch: [(torch.ones(2, 5), torch.tensor([0, 1]))])
    assert [module.training for module in model.modules()] == found


def test_epoch_without_batches_is_refused() -> None:
    with pytest.raises(DataError, match="no samples for epoch 1"):
        train(make_model(), lambda epoch: [])


def test_batches_without_a_length() -> None:
    def stream(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches(epoch)

    rates = [epoch.lr for epoch in train(make_model(), stream, settings={"epochs": 2}).epochs]
    assert rates[0] == pytest.approx(0.1)
    assert rates[1] == pytest.approx(learning_rate(TrainSettings(2, lr=0.1), 1.75 / 2))
    with pytest.raises(SettingError, match="one-cycle needs the number of batches"):
        train(make_model(), stream, settings={"schedule": "one-cycle"})


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 2, 0.5: 2, 1: 2}),
        ("cosine", {0: 2, 0.25: 1 + 0.5**0.5, 0.5: 1, 1: 0}),
        ("multistep", {0: 2, 0.49: 2, 0.5: 0.2, 0.75: 0.02, 1: 0.02}),
        ("one-cycle", {0: 0.08, 0.15: 1.04, 0.3 - 1e-9: 2, 0.3: 2, 0.65: 1, 1: 0}),
    ],
)
def test_schedules(schedule: Any, expected: dict[float, float]) -> None:
    settings = TrainSettings(1, lr=2.0, schedule=schedule)
    assert {done: learning_rate(settings, done) for done in expected} == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum must lie"),
        ({"momentum": 0.0}, "nesterov needs a momentum"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        TrainSettings(**{"epochs": 1, **setting})


def test_unknown_schedule_gets_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cosine'"):
        TrainSettings(1, schedule="cosin")  # type: ignore[arg-type]  # refused


def test_progress_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make_model(), poisoned, settings=TrainSettings(3, lr=0.1), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stopped in epoch 3" in " ".join(captured.err.split())
    assert "images/s" in captured.err
    fit(make_model(), batches, settings=TrainSettings(1), progress=False)
    assert capsys.readouterr() == ("", "")
