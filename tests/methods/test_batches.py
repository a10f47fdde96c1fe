"""Batches as loaders give them: inputs and labels are told apart for any of them."""

from __future__ import annotations

import types
from collections import UserDict, namedtuple
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.base.batches import separated

X, Y, MASK = torch.randn(6, 4), torch.arange(6) % 3, torch.ones(6, 4)
Pair = namedtuple("Pair", "image label")


class One(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)


class Masked(One):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x if mask is None else x * mask)


class Both(One):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]  # takes two
        return super().forward(left + right)


class Named(One):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None) -> Any:
        return super().forward(input_ids)


class Open(One):
    def forward(self, x: Tensor, **more: Tensor) -> Any:  # type: ignore[override]  # its own name
        return super().forward(x)


KINDS: dict[str, tuple[nn.Module, Any, Any, bool]] = {
    "a tensor": (One(), X, X, False),
    "a pair": (One(), (X, Y), X, True),
    "a list": (One(), [X, Y], X, True),
    "one of a tuple": (One(), (X,), X, False),
    "a named tuple": (One(), Pair(X, Y), X, True),
    "labels of real numbers": (One(), (X, torch.rand(6)), X, False),
    "an index after the labels": (One(), (X, Y, torch.arange(6)), X, True),
    "two inputs": (Both(), (X, MASK), (X, MASK), False),
    "two inputs and labels": (Both(), [X, MASK, Y], (X, MASK), True),
    "labels where a mask could be": (Masked(), (X, Y), X, True),
    "a mask": (Masked(), (X, MASK), (X, MASK), False),
    "a mask and labels": (Masked(), (X, MASK, Y), (X, MASK), True),
    "a table": (
        Named(),
        {"input_ids": X, "attention_mask": MASK, "labels": Y},
        {"input_ids": X, "attention_mask": MASK},
        True,
    ),
    "a table of another class": (
        Named(),
        UserDict({"input_ids": X, "labels": Y, "idx": Y}),
        {"input_ids": X},
        True,
    ),
    "a table for any names": (Open(), {"x": X, "odd": MASK}, {"x": X, "odd": MASK}, False),
    "a table and labels": (Named(), ({"input_ids": X}, Y), {"input_ids": X}, False),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(same, a, b))


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_told_from_labels(kind: str) -> None:
    model, batch, wanted, labelled = KINDS[kind]
    inputs, labels = separated(batch, model)
    assert same(wanted, inputs)
    assert labels is None or torch.equal(labels, Y)
    assert (labels is not None) >= labelled
    assert niwaki.running.call(model, inputs).shape == (6, 3)


@pytest.mark.parametrize(
    ("model", "like", "wanted"),
    [(Masked(), X, X), (Masked(), (X, MASK), (X, MASK)), (Both(), (X, X), (X, MASK))],
)
def test_example_inputs_decide(model: nn.Module, like: Any, wanted: Any) -> None:
    assert same(wanted, separated((X, MASK), model, like)[0])


@pytest.mark.parametrize(
    ("model", "batch", "said"),
    [
        (One(), "text", "is a str"),
        (One(), (), "0 parts"),
        (One(), ("a", "b"), "give"),
        (Both(), (X,), "takes 2"),
        (Both(), {"left": X}, "takes left, right"),
        (One(), {"pixels": X}, "has pixels, but One takes input"),
        (One(), None, "NoneType"),
        (One(), 3, "is a int"),
    ],
)
def test_batches_that_cannot_be_told_are_refused(model: nn.Module, batch: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        separated(batch, model)


def loaders() -> Iterable[Any]:
    data = TensorDataset(torch.randn(32, 4), torch.randint(3, (32,)))
    yield DataLoader(data, batch_size=8)
    yield lambda: DataLoader(data, batch_size=8)
    yield [{"input": torch.randn(8, 4), "labels": torch.randint(3, (8,))}] * 4
    yield [torch.randn(8, 4)] * 4


@pytest.mark.parametrize("number", range(4))
def test_prune_takes_any_loader_for_calibration(
    number: int, quick_latency: None, one_thread: None
) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    result = niwaki.prune(model, X[:2], calibration=list(loaders())[number])
    assert any("reconstruct, as there are" in note for note in result.record.notes)


@pytest.mark.parametrize("data", [X, "digits", 7, {"x": X}, (batch for batch in [X])])
def test_what_is_no_batches_is_refused(data: Any) -> None:
    said = "only once" if isinstance(data, types.GeneratorType) else "calibration= is batches"
    with pytest.raises(SettingError, match=said):
        niwaki.Calibration.of(data, One())
