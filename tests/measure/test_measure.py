"""Costs against numbers computed by hand; and the model, its modes and the random state left as
found.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import DataError, SettingError, TraceError
from niwaki.measure import (
    compare,
    count_bytes,
    count_params,
    evaluate,
    measure_latency,
    peak_memory,
)
from niwaki.measure.macs import count_macs
from niwaki.running import as_arguments, batch_size, call, preserved_mode, preserved_rng
from niwaki.running.faked import faked


class Tied(nn.Module):
    """A decoder that reuses the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.decode = nn.Linear(4, 10, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.decode(self.embed(tokens))
        return out


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class MatrixVector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.vector = nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum() * (self.weight @ self.vector)


class Experts(nn.Module):
    """Rows go to one of three experts; torch's run without data knows no such product in float32,
    and logs a traceback.
    """

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([2, 4, 6], dtype=torch.int32)
        return torch._grouped_mm(x, self.experts, offs=ends)


class ReadsValues(nn.Module):
    """The path depends on a value, so a run without data cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().sum().item() > 0) + 1):
            x = self.linear(x)
        return x


class Noisy(nn.Module):
    """Draws random numbers and counts its calls; optionally fails after both."""

    calls: Tensor

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.linear, self.dropout, self.fails = nn.Linear(3, 2), nn.Dropout(0.5), fails
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        out = self.linear(x) + torch.rand(2)
        if self.fails:
            raise RuntimeError("the model's own fault")
        y: Tensor = out
        return y


@pytest.mark.parametrize(
    ("model", "inputs", "macs"),
    [
        (nn.Linear(7, 5), torch.ones(1, 7), 7 * 5),
        (nn.Linear(7, 5), torch.ones(6, 7), 7 * 5),
        (nn.Linear(7, 5), torch.ones(2, 9, 7), 9 * 7 * 5),
        (nn.Conv2d(3, 8, 3, padding=1), torch.ones(1, 3, 10, 6), 10 * 6 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.ones(4, 3, 10, 6), 5 * 3 * 8 * 3 * 9),
        (nn.Conv2d(8, 12, 3, groups=4), torch.ones(2, 8, 6, 6), 4 * 4 * 12 * 2 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), torch.ones(2, 8, 6, 6), 4 * 4 * 8 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), torch.ones(2, 4, 5, 5), 5 * 5 * 4 * 6 * 4),
        (
            nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.ReLU()),
            torch.ones(3, 2, 7),
            7 * 2 * 4,
        ),
        (nn.Bilinear(3, 4, 5), (torch.ones(2, 3), torch.ones(2, 4)), 3 * 4 * 5),
        (nn.LSTM(4, 5, batch_first=True), torch.ones(3, 7, 4), 7 * (20 * 4 + 20 * 5)),
        (nn.GRU(4, 5, batch_first=True), torch.ones(3, 7, 4), 7 * (15 * 4 + 15 * 5)),
        (Attention(), torch.ones(2, 3, 7, 8), 2 * 3 * 7 * 7 * 8),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            torch.ones(3, 7, 8),
            7 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 7 * 7 * 8,
        ),
        (MatrixVector(), torch.ones(1, 2), 5 * 4),
        (ReadsValues(), torch.ones(4, 3), 2 * 3 * 3),
        (Tied(), torch.zeros(2, 6, dtype=torch.long), 6 * 4 * 10),
        (Tied(), {"tokens": torch.zeros(2, 6, dtype=torch.long)}, 6 * 4 * 10),
    ],
)
def test_macs_of_one_sample(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...] | dict[str, Tensor], macs: int
) -> None:
    assert count_macs(model, inputs) == macs
    assert count_macs(model.eval(), inputs) == macs


def test_macs_leave_the_model_untouched() -> None:
    model = Noisy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert count_macs(model, torch.ones(1, 3)) == 6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model.calls) is Tensor
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("enabled", [True, False])
def test_macs_restore_the_fast_path(enabled: bool) -> None:
    found = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        count_macs(nn.Linear(2, 2), torch.ones(1, 2))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(found)


def test_shared_parameters_count_once() -> None:
    assert count_params(Tied()) == 40
    assert count_bytes(Tied()) == 160
    layer = nn.Linear(3, 3)
    assert count_params(nn.Sequential(layer, layer)) == 12


def test_bytes_follow_dtype_and_include_buffers() -> None:
    assert count_bytes(nn.BatchNorm1d(5)) == 4 * 5 * 4 + 8
    assert count_bytes(nn.Linear(4, 2, bias=False).half()) == 4 * 2 * 2


def test_bytes_of_views_never_exceed_their_storage() -> None:
    model, memory = nn.Module(), torch.zeros(10)
    model.register_buffer("left", memory[:4])
    model.register_buffer("right", memory[4:8])
    assert count_bytes(model) == 8 * 4
    model.register_buffer("wide", torch.zeros(1).expand(1000))
    assert count_bytes(model) == 9 * 4


def test_frozen_parameters_count_and_lazy_ones_are_refused() -> None:
    assert count_params(nn.Linear(2, 2).requires_grad_(False)) == 6
    with pytest.raises(TraceError, match="'weight' has no shape yet"):
        count_params(nn.LazyLinear(3))


def mixed_modes() -> nn.Sequential:
    model = nn.Sequential(Noisy(), nn.Dropout(), nn.BatchNorm1d(2))
    model[2].eval()
    return model


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_modes_and_random_state_come_back() -> None:
    model, inputs, targets = mixed_modes(), torch.ones(4, 3), torch.zeros(4, dtype=torch.long)
    found, state = flags(model), torch.get_rng_state()
    count_macs(model, inputs)
    measure_latency([model], inputs, seconds=0)
    evaluate(model, [(inputs, targets)])
    assert flags(model) == found
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: count_macs(model, x),
        lambda model, x: measure_latency([nn.Identity(), model], x, seconds=0),
        lambda model, x: evaluate(model, [(x, torch.zeros(4, dtype=torch.long))]),
    ],
    ids=["macs", "latency", "accuracy"],
)
def test_modes_and_random_state_come_back_when_forward_raises(
    measure: Callable[[nn.Module, Tensor], object],
) -> None:
    model = mixed_modes()
    within.part(model, "0", Noisy).fails = True
    found, state = flags(model), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="the model's own fault"):
        measure(model, torch.ones(4, 3))
    assert flags(model) == found
    assert torch.equal(torch.get_rng_state(), state)


def test_preserved_mode_sets_and_restores() -> None:
    model = mixed_modes()
    found = flags(model)
    with preserved_mode(model, training=True):
        assert all(flags(model))
    with preserved_mode(model, training=False):
        assert not any(flags(model))
    assert flags(model) == found


def test_preserved_rng_repeats_what_was_drawn() -> None:
    with preserved_rng():
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), first)


def test_inputs_are_tensor_tuple_or_dict() -> None:
    x = torch.ones(4, 3)
    assert as_arguments(x) == ((x,), {})
    assert as_arguments((x, 1)) == ((x, 1), {})
    assert as_arguments({"x": x}) == ((), {"x": x})
    assert [
        batch_size(x),
        batch_size((1, x)),
        batch_size({"scale": torch.ones(()), "x": x}),
        batch_size(()),
    ] == [
        4,
        4,
        4,
        1,
    ]
    assert call(nn.Linear(3, 2), {"input": x}).shape == (4, 2)
    with pytest.raises(TraceError, match="got list"):
        as_arguments([x])  # type: ignore[arg-type]  # refused


def test_latency_takes_the_models_in_turns() -> None:
    order: list[str] = []

    class Logs(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            order.append(self.name)
            return x

    first, second = measure_latency(
        [Logs("a"), Logs("b")], torch.ones(1), repeats=4, warmup=2, seconds=0
    )
    assert "".join(order) == "aabb" + "abba" * 2
    assert first.runs == second.runs == 4
    assert min(first.median_ms, second.median_ms) > 0
    assert min(first.spread_ms, second.spread_ms) >= 0


def test_latency_tells_a_slow_model_from_a_fast_one() -> None:
    fast, slow = nn.Linear(8, 8), nn.Sequential(*(nn.Linear(256, 256) for _ in range(30)))
    slow = nn.Sequential(nn.Linear(8, 256), *slow)
    quick, lasting = measure_latency([fast, slow], torch.ones(16, 8), repeats=5, seconds=0.05)
    assert quick.median_ms < lasting.median_ms
    assert quick.runs >= 5


def test_latency_leaves_a_cached_tensor_trainable() -> None:
    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.angles: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.angles is None:
                self.angles = x.cos()
            return self.weight * self.angles

    model = Caches()
    measure_latency([model], torch.ones(3), seconds=0)
    model(torch.ones(3)).sum().backward()
    assert model.weight.grad is not None


def test_latency_refuses_settings_without_meaning() -> None:
    with pytest.raises(SettingError, match="repeats must be 2 or more"):
        measure_latency([nn.Linear(2, 2)], torch.ones(1, 2), repeats=1)
    with pytest.raises(SettingError, match="one device"):
        measure_latency([nn.Linear(2, 2, device="meta")], torch.ones(1, 2))
    assert measure_latency([], torch.ones(1)) == []


class Table(nn.Module):
    """Logits are the inputs themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def one_hot(classes: list[int]) -> Tensor:
    return F.one_hot(torch.tensor(classes), 3).float()


def test_evaluate_counts_exactly_over_uneven_batches() -> None:
    seen: list[int] = []
    batches = [(one_hot([0, 1, 2]), torch.tensor([0, 1, 0])), (one_hot([2]), torch.tensor([2]))]
    result = evaluate(Table(), iter(batches), progress=seen.append)
    assert (result.correct, result.samples, result.accuracy, result.non_finite) == (3, 4, 0.75, 0)
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    assert result.loss == pytest.approx((3 * right + wrong) / 4)
    assert seen == [3, 4]


def test_evaluate_counts_broken_outputs_as_wrong_and_says_how_many() -> None:
    logits = one_hot([0, 0, 0])
    logits[1] = math.nan
    logits[2, 1] = -math.inf  # a class ruled out is no defect
    result = evaluate(Table(), [(logits, torch.zeros(3, dtype=torch.long))])
    assert (result.correct, result.non_finite) == (2, 1)
    assert math.isnan(result.loss)


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ([], "no samples"),
        ([(torch.ones(2, 3), torch.tensor([0, 3]))], "class numbers from 0 to 2"),
        ([(torch.ones(2, 3), torch.tensor([0, -100]))], "class numbers from 0 to 2"),
        ([(torch.ones(2, 3), torch.ones(2))], "class numbers"),
        ([(torch.ones(2, 3), torch.ones(2, 3))], r"\(2, 3\) and \(2, 3\)"),
        ([(torch.ones(2, 3, 4), torch.tensor([0, 0]))], r"logits must be \(batch, classes\)"),
    ],
)
def test_evaluate_refuses_data_that_it_cannot_count(
    batches: list[tuple[Tensor, Tensor]], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        evaluate(Table(), batches)


def test_evaluate_reads_the_logits_of_an_output_object() -> None:
    class Wrapped(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> object:
            return type("Output", (), {self.name: x})()

    batches = [(one_hot([1]), torch.tensor([1]))]
    assert evaluate(Wrapped("logits"), batches).accuracy == 1
    with pytest.raises(DataError, match="it gives Output"):
        evaluate(Wrapped("boxes"), batches)


def test_compare_measures_both_on_the_same_terms() -> None:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.ones(4, 3), torch.zeros(4, dtype=torch.long)

    wide, narrow = (
        nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
    )
    before, after = compare(wide, narrow, torch.ones(2, 3), batches)
    assert (before.params, before.macs, before.bytes) == (
        3 * 8 + 8 + 8 * 2 + 2,
        3 * 8 + 8 * 2,
        4 * 50,
    )
    assert (after.params, after.macs) == (3 * 4 + 4 + 4 * 2 + 2, 3 * 4 + 4 * 2)
    assert before.samples == after.samples == 4
    assert before.accuracy in (0.0, 1.0)
    assert before.loss is not None


def test_compare_without_data_leaves_the_scores_open() -> None:
    before, _ = compare(nn.Linear(3, 2), nn.Linear(3, 2), torch.ones(2, 3))
    assert (before.accuracy, before.loss, before.samples) == (None, None, None)
    assert before.latency_ms > 0


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="of newer torch")
def test_products_of_experts_count_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, x = Experts(), torch.randn(6, 16)
    assert count_macs(model, x) * len(x) == 6 * 16 * 8
    assert peak_memory(model, x) > 0
    assert caplog.records == []
    graph = niwaki.trace(model, x)
    assert graph.count_macs() == 6 * 16 * 8


def test_what_torch_says_elsewhere_is_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    with faked():
        pass
    log = logging.getLogger("torch._subclasses.fake_tensor")
    with faked():
        log.warning("kept")
    try:
        raise ValueError
    except ValueError:
        log.exception("kept too")
        with faked():
            log.exception("not kept")
    assert [record.message for record in caplog.records] == ["kept", "kept too"]
