"""What the loop can do beside plain training: each option is held against its definition."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import within
from needed import needs
from torch import Tensor, nn

from niwaki.core.errors import MissingExtraError, SettingError
from niwaki.measure import Evaluation
from niwaki.training import Epoch, TrainSettings, fit, learning_rate

needs("accelerate")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3)
        ).double()


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    images = [torch.randn(8, 3, 6, 6, generator=generator).double() for _ in range(4)]
    return [(inputs, torch.randint(0, 3, (8,), generator=generator)) for inputs in images]


def train(model: nn.Module, **options: Any) -> Any:
    settings = {"epochs": 2, "lr": 0.05, "schedule": "constant", **options.pop("settings", {})}
    return fit(model, batches, settings=TrainSettings(**settings), progress=False, **options)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def by_hand(
    optimizer: type[torch.optim.Optimizer], clip: float | None = None, **options: Any
) -> list[Tensor]:
    """A plain loop: the weights after every step."""
    model = make_model()
    stepper = optimizer(model.parameters(), **options)
    seen = []
    for epoch in (1, 2):
        for inputs, targets in batches(epoch):
            stepper.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            stepper.step()
            seen.append(weights(model))
    return seen


SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def test_it_is_the_plain_loop() -> None:
    model = make_model()
    train(model)
    assert torch.equal(weights(model), by_hand(torch.optim.SGD, **SGD)[-1])


def test_adamw() -> None:
    model = make_model()
    train(model, settings={"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1})
    torch.testing.assert_close(
        weights(model), by_hand(torch.optim.AdamW, lr=0.01, weight_decay=0.1)[-1]
    )


@pytest.mark.parametrize("pieces", [2, 3, 8, 50])
def test_a_batch_in_pieces_gives_the_same_weights(pieces: int) -> None:
    model = make_model()
    train(model, settings={"accumulate": pieces})
    torch.testing.assert_close(weights(model), by_hand(torch.optim.SGD, **SGD)[-1])


def test_long_gradients_are_shortened() -> None:
    model = make_model()
    train(model, settings={"clip_norm": 0.1})
    torch.testing.assert_close(weights(model), by_hand(torch.optim.SGD, clip=0.1, **SGD)[-1])


def test_ema_is_the_running_mean_of_the_weights() -> None:
    model = make_model()
    train(model, settings={"ema": 0.8})
    steps = by_hand(torch.optim.SGD, **SGD)
    mean = steps[0]  # the first step is where the mean begins
    for step in steps[1:]:
        mean = 0.8 * mean + 0.2 * step
    torch.testing.assert_close(weights(model), mean)


def test_channels_last_is_the_same_arithmetic() -> None:
    model = make_model()
    train(model, settings={"channels_last": True})
    assert within.tensor(model, "0.weight").is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights(model), by_hand(torch.optim.SGD, **SGD)[-1])


def test_bf16_trains_float32_weights() -> None:
    model = make_model().float()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(
        model,
        lambda epoch: [(x.float(), y) for x, y in batches(epoch)],
        settings=TrainSettings(epochs=1, precision="bf16"),
        progress=False,
    )
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not torch.equal(weights(model), weights(make_model().float()))
    plain = make_model()
    train(plain)  # a later run in the same process may have another precision
    assert torch.equal(weights(plain), by_hand(torch.optim.SGD, **SGD)[-1])


def test_patience_stops_and_keeps_the_best() -> None:
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    history = train(
        make_model(),
        validate=lambda model: Evaluation(next(scores), 1.0, 10, 5),
        settings={"epochs": 5, "patience": 2},
    )
    assert (history.best_epoch, len(history.epochs)) == (2, 4)
    assert history.stopped == (
        "training stopped after epoch 4: 2 epochs without a better validation; kept the weights "
        "of epoch 2"
    )


def test_after_step_holds_a_mask() -> None:
    model = make_model()
    mask = (
        torch.rand(
            within.tensor(model, "0.weight").shape, generator=torch.Generator().manual_seed(1)
        )
        < 0.5
    )

    def hold(trained: nn.Module) -> None:
        within.tensor(trained, "0.weight").mul_(mask)

    train(model, after_step=hold)
    assert not within.tensor(model, "0.weight")[~mask].any()
    assert (within.tensor(model, "0.weight")[mask] != 0).all()


def test_parameter_groups_have_rates_and_decays_of_their_own() -> None:
    model, reference = make_model(), make_model()
    groups = [
        {"params": [within.tensor(model, "0.weight")], "lr_scale": 10.0, "weight_decay": 0.0},
        {"params": [within.tensor(model, "0.bias"), *model[3].parameters()]},
    ]
    train(model, parameter_groups=groups, settings={"epochs": 1, "lr": 0.01})
    own: list[dict[str, Any]] = [
        {"params": [within.tensor(reference, "0.weight")], "lr": 0.1, "weight_decay": 0.0},
        {"params": [within.tensor(reference, "0.bias"), *reference[3].parameters()]},
    ]
    stepper = torch.optim.SGD(own, **{**SGD, "lr": 0.01})
    for inputs, targets in batches(1):
        stepper.zero_grad()
        F.cross_entropy(reference(inputs), targets).backward()
        stepper.step()
    torch.testing.assert_close(weights(model), weights(reference))


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"ema": 1.0}, "ema must lie in"),
        ({"patience": 0}, "patience must be 1 or more, or None"),
        ({"accumulate": 0}, "accumulate must be 1 or more"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, or None"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        TrainSettings(**{"epochs": 1, **setting})


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(SettingError, match="precision 'fp16' cannot be used on the cpu"):
        train(make_model(), settings={"precision": "fp16"})


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"needs accelerate.*pip install 'niwaki\[train\]'"):
        train(make_model())


def test_rmsprop() -> None:
    model = make_model()
    train(model, settings={"optimizer": "rmsprop", "lr": 0.001, "weight_decay": 0.1})
    hand = by_hand(torch.optim.RMSprop, lr=0.001, alpha=0.9, momentum=0.9, weight_decay=0.1)
    torch.testing.assert_close(weights(model), hand[-1])


@pytest.mark.parametrize("milestones", [(2, 4), "2+4"])
def test_milestones_are_torchs(milestones: Any) -> None:
    """After an epoch that is a milestone, as torch's MultiStepLR steps once an epoch."""
    settings = TrainSettings(
        6, 0.5, schedule="multistep", milestones=milestones, gamma=0.2, nesterov=False, momentum=0
    )
    stepper = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.MultiStepLR(stepper, [2, 4], 0.2)
    for epoch in range(1, 7):
        for step in range(7):
            rate = learning_rate(settings, (epoch - 1 + step / 7) / 6)
            assert rate == pytest.approx(stepper.param_groups[0]["lr"])
        stepper.step()
        theirs.step()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"milestones": "1,2"}, "milestones are epochs, as 10\\+20"),
        ({"milestones": (2, 2), "schedule": "multistep"}, "each later than the one before"),
        ({"milestones": (9,), "schedule": "multistep"}, "milestones are epochs of the run"),
        ({"milestones": (1,)}, "milestones go with schedule='multistep'"),
        ({"gamma": 0.0}, "gamma must lie in"),
        ({"evaluate_every": 0}, "evaluate_every must be 1 or more"),
    ],
)
def test_bad_schedules_are_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        TrainSettings(**{"epochs": 3, **setting})


def test_every_second_epoch_is_evaluated_and_the_last() -> None:
    looked: list[int] = []

    def look(model: nn.Module) -> Evaluation:
        looked.append(1)
        return Evaluation(0.5, 1.0, 10, 5)

    history = train(
        make_model(),
        validate=lambda model: Evaluation(0.9 - len(looked) / 10, 1.0, 10, 5),
        observe={"test": look},
        settings={"epochs": 5, "evaluate_every": 2, "patience": 4},
    )
    assert [epoch.validation is not None for epoch in history.epochs] == [0, 1, 0, 1, 1]
    assert [len(epoch.observed) for epoch in history.epochs] == [0, 1, 0, 1, 1]
    assert len(looked) == 3
    assert history.best_epoch == 2
    assert Epoch.from_dict(dataclasses.asdict(history.epochs[1])) == history.epochs[1]


def test_what_is_observed_does_not_move_the_weights_or_the_choice() -> None:
    plain, watched = make_model(), make_model()
    score = iter([0.5, 0.4, 0.3])
    options = {"settings": {"epochs": 3}}
    train(plain, validate=lambda model: Evaluation(0.5, 1.0, 10, 5), **options)
    history = train(
        watched,
        validate=lambda model: Evaluation(0.5, 1.0, 10, 5),
        observe={"test": lambda model: Evaluation(next(score) + torch.rand(()).item(), 1, 1, 1)},
        **options,
    )
    assert torch.equal(weights(plain), weights(watched))
    assert history.best_epoch == 1


def test_convolutions_are_channels_last_on_a_processor_only_while_training() -> None:
    model, seen = make_model().float(), []
    model[0].register_forward_hook(
        lambda module, inputs, output: seen.append(
            module.weight.is_contiguous(memory_format=torch.channels_last)
        )
    )
    reference = make_model().float()
    for network, channels_last in ((model, None), (reference, False)):
        fit(
            network,
            lambda epoch: [(x.float(), y) for x, y in batches(epoch)],
            settings=TrainSettings(epochs=2, channels_last=channels_last),
            progress=False,
        )
    assert set(seen) == {True}
    assert within.tensor(model, "0.weight").is_contiguous()
    torch.testing.assert_close(weights(model), weights(reference))
