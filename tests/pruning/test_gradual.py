"""A network that is pruned while it trains: the same object, the sizes that were asked for, the
optimiser's memory cut alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import niwaki
from niwaki.core.errors import BudgetError, SettingError, TraceError, UnknownNameError
from niwaki.pruning import Schedule


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    gradual: niwaki.Gradual,
    steps: int,
    after: Callable[[], object] = lambda: None,
) -> Tensor:
    """A loop that keeps the loss of the step before alive, as most do."""
    for number in range(steps):
        inputs, targets = batch(number)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        gradual.step()
        after()
    return loss


@pytest.mark.parametrize("shape", ["cubic", "linear", "one-shot"])
def test_a_loop_ends_with_the_budget_met_and_the_same_module(shape: str) -> None:
    model = network()
    first, whole = model[0], niwaki.count_macs(model, X)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    gradual = niwaki.schedule(
        model, X, "macs=0.5", steps=12, times=3, shape=shape, optimizer=optimizer
    )
    train(model, optimizer, gradual, 12)
    assert model[0] is first
    assert niwaki.count_macs(model, X) <= 0.5 * whole
    assert niwaki.count_macs(model, X) > 0.4 * whole
    result = gradual.result
    assert result.model is model
    assert result.record.before.macs == whole
    assert result.record.after.macs == niwaki.count_macs(model, X)
    assert len(result.record.settings["schedule"]["cuts"]) == (1 if shape == "one-shot" else 3)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_channels_are_those_of_one_shot() -> None:
    model = network()
    gradual = niwaki.schedule(model, X, 0.5, steps=10, times=4)
    for _ in range(10):
        gradual.step()
    assert (within.size(model, "0.out_channels"), within.size(model, "3.out_channels")) == (16, 16)


def test_channels_that_are_skipped_do_not_count() -> None:
    model = network()
    gradual = niwaki.schedule(model, X, 0.75, steps=10, times=3, skip="0")
    for _ in range(10):
        gradual.step()
    assert (within.size(model, "0.out_channels"), within.size(model, "3.out_channels")) == (32, 8)


def test_the_network_computes_what_the_pruned_copy_computes() -> None:
    model = network().eval()
    with torch.no_grad():
        for name in ("1.running_mean", "1.running_var"):
            within.tensor(model, name).add_(0.3)
    reference = niwaki.prune(copy.deepcopy(model), X, "channels=0.5").model
    niwaki.schedule(model, X, "channels=0.5", steps=1, shape="one-shot", begin=0)
    assert torch.equal(model(X), reference(X))
    assert not model.training


def test_a_mean_of_the_weights_is_cut_alike() -> None:
    model = network()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.0), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    gradual = niwaki.schedule(
        model, X, "params=0.5", steps=6, times=2, optimizer=optimizer, ema=ema
    )
    train(model, optimizer, gradual, 6, lambda: ema.update_parameters(model))
    assert {n: p.shape for n, p in ema.module.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    # a mean with decay 0 is the network itself
    assert torch.allclose(ema.module.eval()(X), model.eval()(X), atol=1e-6)


def test_a_twin_is_repaired_by_its_own_weights() -> None:
    model, ema = network().eval(), network().eval()
    with torch.no_grad():
        for tensor in ema.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(2.0)
    niwaki.schedule(model, X, 0.5, steps=1, shape="one-shot", begin=0, ema=ema, compensation="none")
    assert torch.allclose(within.tensor(ema, "7.weight"), 2 * within.tensor(model, "7.weight"))
    assert ema[7].weight is not model[7].weight


def test_an_ema_of_another_network_is_refused() -> None:
    with pytest.raises(SettingError, match="ema= is no copy of the network"):
        niwaki.schedule(network(), X, 0.5, steps=1, shape="one-shot", begin=0, ema=nn.Linear(2, 2))


def test_schedulers_and_scalers_go_on() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    gradual = niwaki.schedule(model, X, "macs=0.5", steps=8, times=2, optimizer=optimizer)
    for number in range(8):
        inputs, targets = batch(number)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        rates.step()
        gradual.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert within.size(model, "0.out_channels") < 32


def test_pressed_units_are_small_when_they_go() -> None:
    """The units that are cut have lost far more of their norm than those that stay."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    whole = within.tensor(model, "3.weight").detach().flatten(1).norm(dim=1)
    gradual = niwaki.schedule(
        model, X, 0.5, steps=30, times=1, begin=29, end=29, optimizer=optimizer,
        press="greg:reg=0.05,every=2", only=["3"],
    )  # fmt: skip
    for _ in range(28):
        gradual.step()  # no gradient: the decay alone
    left = within.tensor(model, "3.weight").detach().flatten(1).norm(dim=1) / whole
    assert int((left < 0.05).sum()) == 16
    assert int((left == 1).sum()) == 16
    kept = within.tensor(model, "3.weight").detach()[left == 1].clone()
    gradual.step()
    assert torch.equal(within.tensor(model, "3.weight"), kept)


def test_recurrent_layers_train_on() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.inner(x)[0].mean(1))
            return out

    torch.manual_seed(0)
    model, x = Reader(), torch.randn(4, 5, 6)
    optimizer = torch.optim.Adam(model.parameters())
    gradual = niwaki.schedule(model, x, 0.5, steps=4, times=2, optimizer=optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        gradual.step()
    assert model.inner.hidden_size == 8
    before = model(x)
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, model(x))


def test_what_was_pruned_gradually_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn")
    x = torch.randn(2, 1, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gradual = niwaki.schedule(model, x, "params=0.6", steps=6, times=3, optimizer=optimizer)
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        gradual.step()
    niwaki.save(gradual.result, tmp_path / "pruned")
    again = niwaki.load(tmp_path / "pruned")
    assert torch.equal(again(x), model.eval()(x))


def test_a_schedule_longer_than_the_run() -> None:
    with pytest.raises(SettingError, match="longer than the run: it goes on to step 900"):
        niwaki.schedule(network(), X, 0.5, steps=300, begin=100, end=900)
    gradual = niwaki.schedule(network(), X, 0.5, steps=300)
    gradual.step()
    with pytest.raises(SettingError, match="5 of 5 cuts were not made: the run ended after 1 step"):
        gradual.result  # noqa: B018


def test_two_schedules_on_one_network() -> None:
    model = network()
    gradual = niwaki.schedule(model, X, 0.5, steps=10)
    with pytest.raises(SettingError, match="has a pruning schedule already"):
        niwaki.schedule(model, X, 0.5, steps=10)
    gradual.close()
    other = niwaki.schedule(model, X, 0.5, steps=10)
    del other  # one that nobody holds any more is none
    niwaki.schedule(model, X, 0.5, steps=10)


@pytest.mark.parametrize(
    ("error", "words", "settings"),
    [
        (UnknownNameError, "shape of a schedule", {"shape": "cosine"}),
        (SettingError, "times= of a schedule", {"times": 0}),
        (SettingError, "begin= of a schedule", {"begin": 1.5}),
        (SettingError, "end= of a schedule", {"end": -1}),
        (SettingError, "do not fit between", {"times": 20, "begin": 0, "end": 5}),
        (SettingError, "steps= is the length", {"steps": 0}),
        (SettingError, "press= needs optimizer=", {"press": "greg"}),
        (SettingError, "press= takes 'greg'", {"press": "l1"}),
        (SettingError, "optimizer= takes an optimiser", {"optimizer": 3}),
    ],
)
def test_bad_settings(error: type[Exception], words: str, settings: dict[str, Any]) -> None:
    with pytest.raises(error, match=words):
        niwaki.schedule(network(), X, 0.5, **{"steps": 100, **settings})


def test_latency_and_wrapped_networks_are_refused() -> None:
    with pytest.raises(BudgetError, match="latency is measured"):
        niwaki.schedule(network(), X, "latency=0.5", steps=10)
    with pytest.raises(TraceError, match="compiled"):
        niwaki.schedule(torch.compile(network()), X, 0.5, steps=10)  # type: ignore[arg-type]  # refused
    with pytest.raises(TraceError, match="wrapped in DataParallel"):
        niwaki.schedule(nn.DataParallel(network()), X, 0.5, steps=10)


def test_cuts_of_a_schedule() -> None:
    cuts = Schedule("macs=0.8", "linear", times=4, begin=0, end=30).cuts(40)
    assert [(step, round(budget.amount, 6)) for step, budget in cuts] == [
        (0, 0.2), (10, 0.4), (20, 0.6), (30, 0.8),
    ]  # fmt: skip
    (only,) = Schedule(0.5, "one-shot", begin=0.25).cuts(40)
    assert only[0] == 10
    for shape in ("cubic", "linear"):
        assert Schedule(0.7, shape).cuts(1000)[-1][1].amount == 0.7
