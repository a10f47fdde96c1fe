"""Saved networks: they come back equal, and what is damaged or of another model is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import niwaki
from niwaki.errors import CheckpointError, NiwakiError, OutputError


@pytest.fixture
def saved(tmp_path: Path, quick_latency: None) -> tuple[niwaki.Result, Path]:
    torch.manual_seed(0)
    model = niwaki.models.build("resnet20").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model), criterion="l1", budget=0.4)
    return result, niwaki.save(result, tmp_path / "pruned", model="resnet20")


def test_it_comes_back_to_the_last_bit(saved: tuple[niwaki.Result, Path]) -> None:
    result, folder = saved
    again = niwaki.load(folder)
    inputs = niwaki.models.example_inputs(again)
    with torch.no_grad():
        assert torch.equal(again(inputs), result.model(inputs))
    assert type(again) is type(result.model)
    assert not again.training


def test_it_comes_back_with_the_original_in_hand(saved: tuple[niwaki.Result, Path]) -> None:
    result, folder = saved
    again = niwaki.load(folder, model=lambda: niwaki.models.build("resnet20"))
    assert niwaki.count_params(again) == result.record.after.params


def test_another_model_is_refused(saved: tuple[niwaki.Result, Path]) -> None:
    with pytest.raises(CheckpointError, match="another model"):
        niwaki.load(saved[1], model=nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)))


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors", "record.json"])
def test_a_missing_or_damaged_file_is_named(saved: tuple[niwaki.Result, Path], name: str) -> None:
    path = saved[1] / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(NiwakiError, match=name):
        niwaki.load(saved[1])
    path.unlink()
    with pytest.raises(NiwakiError, match=name):
        niwaki.load(saved[1])


def test_a_plan_with_impossible_units_is_refused(saved: tuple[niwaki.Result, Path]) -> None:
    path = saved[1] / "plan.json"
    plan = json.loads(path.read_text())
    plan["groups"]["layer1.0.conv1"]["kept"] = [0, 99]
    path.write_text(json.dumps(plan))
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1"):
        niwaki.load(saved[1])


def test_nothing_is_replaced_unasked(saved: tuple[niwaki.Result, Path]) -> None:
    with pytest.raises(OutputError, match="overwrite"):
        niwaki.save(saved[0], saved[1])
    niwaki.save(saved[0], saved[1], model="resnet20", overwrite=True)
    assert niwaki.count_params(niwaki.load(saved[1])) == saved[0].record.after.params
