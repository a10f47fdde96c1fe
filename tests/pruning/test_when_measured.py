"""Networks are timed when the numbers are wanted, and not before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import niwaki

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a time that networks are timed: how many."""
    calls: list[int] = []
    for name in ("niwaki.measure._snapshot", "niwaki.pruning.bench"):
        module = sys.modules[name]
        monkeypatch.setattr(module, "measure_latency", counted(module.measure_latency, calls))
    return calls


def counted(plain: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def measure(models: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(models))
        return plain(models, *args, **kwargs)

    return measure


def pruned(**choices: Any) -> niwaki.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return niwaki.prune(model, torch.randn(3, 4), compensation="none", **choices)


def test_nothing_is_timed_before_it_is_asked_for(timings: list[int]) -> None:
    result = pruned()
    assert (result.record.after.params, result.record.after.macs) == (30, 24)
    assert result.record.after.latency_ms == 0
    assert not timings
    measured = result.measured()
    assert timings == [2]
    assert min(measured.record.before.latency_ms, measured.record.after.latency_ms) > 0
    assert measured.record.after.peak_bytes is not None
    assert measured.measured() is measured
    assert measured.record.notes == result.record.notes


def test_what_is_printed_or_saved_is_timed_once(timings: list[int], tmp_path: Path) -> None:
    result = pruned()
    assert "latency, ms" in str(result)
    assert "latency, ms" in result._repr_html_()
    folder = tmp_path / "net"
    niwaki.save(result, folder)
    assert timings == [2]
    assert '"latency_ms": 0.0,' not in (folder / "record.json").read_text(encoding="utf-8")


def test_at_once_or_never_where_the_user_says_so(timings: list[int], tmp_path: Path) -> None:
    assert pruned().measured().record.after.latency_ms > 0
    assert timings == [2]
    result = pruned().untimed()
    assert "latency" not in str(result)
    niwaki.save(result, tmp_path / "net")
    assert result.measured() is result
    assert timings == [2]


def test_a_copy_with_other_settings_is_timed_with_the_rest(timings: list[int]) -> None:
    measured = pruned().with_settings(model="small").measured()
    assert measured.record.settings["model"] == "small"
    assert measured.record.after.latency_ms > 0
    assert timings == [2]
