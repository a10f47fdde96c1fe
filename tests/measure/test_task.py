"""Any task: numbers of the user's own, before and after; agreement where there are no labels."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.core.records import Record, rows

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


X = torch.randn(2, 4)
DATA = [(torch.randn(16, 4), torch.randint(3, (16,)))]
GOOD: dict[str, tuple[Any, dict[str, float]]] = {
    "a number": (lambda _: 0.25, {"score": 0.25}),
    "a whole number": (lambda _: 3, {"score": 3.0}),
    "a tensor": (lambda _: torch.tensor(0.5), {"score": 0.5}),
    "a number of numpy's": (lambda _: numpy.float32(0.5), {"score": 0.5}),
    "numbers by name": (lambda _: {"mAP": 0.5, "loss": 2}, {"mAP": 0.5, "loss": 2.0}),
    "a task": (
        niwaki.Task(lambda _: {"loss": 2, "f1": 0.5}, primary="f1"),
        {"f1": 0.5, "loss": 2.0},
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_numbers_of_ones_own_stand_in_the_record(kind: str) -> None:
    evaluate, wanted = GOOD[kind]
    result = niwaki.prune(network(), X, evaluate=evaluate)
    again = Record.from_json(result.record.to_json())
    assert again.before.scores == again.after.scores == wanted
    assert list(again.after.scores) == list(wanted)
    assert again.settings["task"] == {"primary": next(iter(wanted)), "more_is_better": True}
    assert set(wanted) <= {name for name, *_ in rows(again)}


BAD: dict[str, tuple[Any, str]] = {
    "nothing": (lambda _: None, "evaluate= returned None"),
    "not a number": (lambda _: float("nan"), "evaluate= returned nan"),
    "infinite": (lambda _: {"loss": torch.inf}, "evaluate= returned inf for 'loss'"),
    "a nothing by name": (lambda _: {"f1": None}, "evaluate= returned None"),
    "an empty table": (lambda _: {}, "evaluate= returned an empty dict"),
    "a text": (lambda _: "0.5", "evaluate= returned a str"),
    "several": (lambda _: torch.ones(3), "evaluate= returned a Tensor"),
    "a list": (lambda _: [0.5], "evaluate= returned a list"),
    "no function": (0.5, "evaluate= is a function"),
    "another primary": (niwaki.Task(lambda _: {"f1": 1}, primary="mAP"), "'mAP', but evaluate="),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_number_is_refused_by_the_arguments_name(kind: str) -> None:
    evaluate, said = BAD[kind]
    with pytest.raises(SettingError, match=said):
        niwaki.prune(network(), X, evaluate=evaluate)


def test_the_function_sees_both_networks_in_evaluation_mode_and_leaves_no_trace() -> None:
    model, seen = network().train(), []

    def evaluate(net: nn.Module) -> int:
        torch.rand(1)
        seen.append((net.training, niwaki.count_params(net)))
        return len(seen)

    state = torch.get_rng_state()
    result = niwaki.prune(model, X, evaluate=evaluate)
    assert [training for training, _ in seen] == [False, False]
    assert seen[0][1] > seen[1][1] == niwaki.count_params(result.model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_task_named_accuracy_is_what_records_call_so() -> None:
    record = niwaki.prune(network(), X, evaluate=lambda net: niwaki.evaluate(net, DATA)).record
    by_data = niwaki.prune(network(), X, evaluate=DATA).record
    assert record.after.accuracy == by_data.after.accuracy
    assert record.before.loss == pytest.approx(by_data.before.loss)
    assert [name for name, *_ in rows(record)].count("accuracy") == 1


def test_sensitivity_by_a_task() -> None:
    found = niwaki.sensitivity(
        niwaki.trace(network(), X),
        ratios=(0.25, 0.5),
        evaluate=lambda net: niwaki.count_params(net),
    )
    assert found.measure == "score"
    assert found.curves["0"][0] > found.curves["0"][1]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2, 2), (5, 7, 3)])
def test_agreement_is_what_its_definition_says(shape: tuple[int, ...]) -> None:
    class Says(nn.Module):
        def __init__(self, said: torch.Tensor) -> None:
            super().__init__()
            self.said = said

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.said[: len(x)]

    a, b = torch.randn(shape), torch.randn(shape)
    found = niwaki.agreement(Says(a), Says(b), [torch.ones(5, 1), torch.ones(3, 1)])
    axis = -1 if len(shape) == 3 else 1
    same = a > 0 if len(shape) == 1 else a.argmax(axis)
    other = b > 0 if len(shape) == 1 else b.argmax(axis)
    hits = [float(x) for n in (5, 3) for x in (same[:n] == other[:n]).flatten()]
    assert found["agreement"] == pytest.approx(sum(hits) / len(hits))
    flat = [(a[i].flatten().double(), b[i].flatten().double()) for n in (5, 3) for i in range(n)]
    cosines = [float(x @ y / (x.norm() * y.norm())) for x, y in flat]
    assert found["cosine"] == pytest.approx(sum(cosines) / len(cosines))
    assert niwaki.agreement(Says(a), Says(a), [torch.ones(5, 1)]) == pytest.approx(
        {"agreement": 1.0, "cosine": 1.0}
    )


def test_without_labels_the_original_is_the_judge() -> None:
    record = niwaki.prune(network(), X, calibration=[torch.randn(64, 4)]).record
    assert record.before.scores == {"agreement": 1.0, "cosine": 1.0}
    assert 0 < record.after.scores["agreement"] <= 1
    assert record.after.scores["cosine"] > 0.5
    assert niwaki.prune(network(), X, calibration=DATA, evaluate=DATA).record.after.scores == {}


@pytest.mark.parametrize(
    ("budget", "said"),
    [("50%", "channels=0.5"), ({"macs": 0.5}, "macs=0.5"), ("params=30%", "params=0.3"),
     ({"latency": "25%", "batch": 8}, "latency=0.25,batch=8")],
)  # fmt: skip
def test_budgets_in_percent_and_as_tables(budget: Any, said: str) -> None:
    assert str(niwaki.Budget.parse(budget)) == said


@pytest.mark.parametrize("budget", ["150%", "%", {}, {"memory": 0.5, "latency": 0.5}, {"mac": 0.5}])
def test_budgets_that_say_nothing_are_refused(budget: Any) -> None:
    with pytest.raises(niwaki.NiwakiError):
        niwaki.Budget.parse(budget)


def test_without_measuring_nothing_is_timed() -> None:
    record = niwaki.prune(network(), X).record
    assert (record.after.latency_ms, record.after.peak_bytes) == (0.0, None)
    assert record.after.params < record.before.params
    assert {"latency, ms", "peak memory, bytes"}.isdisjoint(name for name, *_ in rows(record))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return out


@pytest.mark.parametrize("how", ["module", "name", "both", "block"])
def test_layers_are_left_whole_by_module_or_name(how: str) -> None:
    model = Two().eval()
    skip: Any = {"module": model.a, "name": "a", "both": [model.a, "a"], "block": [model.a]}[how]
    result = niwaki.prune(model, X, skip=skip)
    assert within.size(result.model, "a.out_features") == 8
    assert within.size(result.model, "b.out_features") == 4


def test_a_layer_that_cannot_be_pruned_is_no_mistake_to_skip() -> None:
    model = Two().eval()
    for skip in ("c", model.c, [model.c, "a"]):
        notes = niwaki.prune(model, X, skip=skip).record.notes
        assert any("skip='c'" in note and "stays anyway" in note for note in notes)
    with pytest.raises(SettingError, match="'layer9'"):
        niwaki.prune(model, X, skip="layer9")
    with pytest.raises(SettingError, match="not part of the model"):
        niwaki.prune(model, X, skip=nn.Linear(4, 8))
    with pytest.raises(SettingError, match="takes names, patterns and modules"):
        niwaki.prune(model, X, skip=[3])
