"""Pruned networks of transformers through its own loader, in a new process."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import within

import niwaki
from niwaki.core.errors import SurgeryError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def round_trip(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pytest.importorskip("torchvision_cpu", exc_type=ImportError)
    pytest.importorskip("transformers")
    return importlib.import_module("round_trip")


def test_they_come_back_and_generate(round_trip: Any) -> None:
    """A grouped-query decoder, one whose width is in its code's arithmetic, and an encoder; the
    benchmark has sixteen.
    """
    rows = round_trip.measured(["Qwen3", "Gemma", "DistilBERT"])
    assert {name: round_trip.passed(row) for name, row in rows.items()} == {
        "Qwen3": True, "Gemma": True, "DistilBERT": True,
    }  # fmt: skip
    assert rows["Qwen3"]["changed"]["num_key_value_heads"] == 1
    assert "hidden_size" not in rows["Gemma"]["changed"]
    assert all(row["left"] < 0.6 * row["params"] for row in rows.values())


def gemma(**entries: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GemmaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, intermediate_size=56, **entries,
    )  # fmt: skip
    return transformers.GemmaForCausalLM(config).eval()


def test_by_default_what_the_config_cannot_state_is_left_whole_and_said(round_trip: Any) -> None:
    x = {"input_ids": torch.arange(12)[None], "use_cache": False}
    quick: dict[str, Any] = {"compensation": "none"}
    usual = niwaki.prune(gemma(), x, **quick)
    (said,) = [note for note in usual.record.notes if "left whole, as the model's config" in note]
    assert "uniform=False cuts it too" in said
    assert within.part(usual.model, "config.intermediate_size", int) == 28
    assert usual.record.settings["uniform"] is True
    assert dict(usual.plan.units) == dict(niwaki.prune(gemma(), x, uniform=True, **quick).plan)
    freely = niwaki.prune(gemma(), x, uniform=False, **quick)
    assert freely.record.after.params < 0.8 * usual.record.after.params
    assert any("cannot state the cut" in note for note in freely.record.notes)


def test_what_is_asked_of_single_layers_is_cut_whatever_the_config_states(round_trip: Any) -> None:
    x = {"input_ids": torch.arange(12)[None], "use_cache": False}
    asked: dict[str, Any] = {
        "only": "model.layers.0.mlp.gate_proj",
        "compensation": "none",
    }
    result = niwaki.prune(gemma(), x, **asked)
    assert len(result.plan.kept) == 1
    assert any("cannot state the cut" in note for note in result.record.notes)
    even = niwaki.prune(llama(), x, scope="global", compensation="none")
    assert even.record.settings["uniform"] is None


def test_a_row_says_what_went_wrong(round_trip: Any) -> None:
    row = {"params": 9, "left": 5, "warned": {}, "difference": 0.0, "changed": {"d": 3}}
    assert round_trip.passed(row)
    assert not round_trip.passed({**row, "generates": False})
    assert not round_trip.passed({**row, "warned": {"unexpected_keys": ["bias"]}})
    assert not round_trip.passed({"error": "no"})
    assert round_trip.line("X", row) == ["X", "9", "5", "d 3", "0.0e+00", ""]


def test_the_page_shows_its_record(round_trip: Any) -> None:
    record = json.loads((ROOT / "benchmarks/records/round_trip.json").read_text())
    page = (ROOT / "docs/guides/transformers.md").read_text(encoding="utf-8")
    table = round_trip.as_markdown(record)
    assert f"{round_trip.START}\n{table}\n{round_trip.END}" in page
    assert len(record["rows"]) >= 12
    assert all(round_trip.passed(row) for row in record["rows"].values())


def llama(**entries: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=56, **entries,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_widths_that_differ_are_said_and_made_one(round_trip: Any) -> None:
    model, x = llama(), {"input_ids": torch.arange(12)[None], "use_cache": False}
    with torch.no_grad():  # the second block's units count for less
        model.model.layers[1].mlp.down_proj.weight.mul_(0.3)
        model.model.layers[1].mlp.up_proj.weight.mul_(0.3)
        model.model.layers[1].mlp.gate_proj.weight.mul_(0.3)

    def size(group: Any, evidence: Any) -> torch.Tensor:
        out: torch.Tensor = group.rows(evidence.state).norm(dim=1) * 1.0
        return out

    class Size(niwaki.Criterion):
        comparable = True

        def score(self, group: Any, evidence: Any) -> torch.Tensor:
            return size(group, evidence)

    asked: dict[str, Any] = {
        "criterion": Size(),
        "only": "*gate_proj",
        "scope": "global",
    }
    uneven = niwaki.prune(model, x, 0.5, **asked)
    said = [note for note in uneven.record.notes if "config cannot state" in note]
    assert len(said) == 1
    assert "gate_proj.weight has the shape" in said[0]
    assert "use uniform=True" in said[0]
    even = niwaki.prune(model, x, 0.5, uniform=True, **asked)
    assert within.size(even.model, "config.intermediate_size") == 28
    assert not any("cannot state" in note for note in even.record.notes)
    assert even.record.settings["uniform"] is True


def test_what_no_config_can_state_is_refused(
    round_trip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from niwaki.pruning import search

    monkeypatch.setattr(
        search, "follow_config", lambda model, graph, plan: (plan, "the config cannot state it")
    )
    x = {"input_ids": torch.arange(12)[None], "use_cache": False}
    with pytest.raises(
        (SurgeryError, niwaki.NiwakiError), match=r"config cannot state|can be pruned"
    ):
        niwaki.prune(llama(), x, 0.5, only="*gate_proj", uniform=True)
