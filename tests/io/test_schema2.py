"""Folders that niwaki 0.1 wrote (schema 2) load, bit by bit, and compute what they computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import niwaki

FOLDERS = Path(__file__).parents[1] / "golden" / "schema2"


@pytest.mark.parametrize("name", ["units", "units_twice", "blocks"])
def test_an_older_folder_loads_bit_equal(name: str) -> None:
    run = load_file(FOLDERS / f"{name}.safetensors")

    model = niwaki.load(FOLDERS / name)

    stored = load_file(FOLDERS / name / "model.safetensors")
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    with torch.no_grad():  # another processor sums in another order
        torch.testing.assert_close(model(run["inputs"]), run["outputs"])


def test_an_older_folder_is_pruned_again() -> None:
    model = niwaki.load(FOLDERS / "units")

    again = niwaki.prune(model, torch.rand(2, 1, 8, 8), budget=0.3, compensation="none")

    assert niwaki.count_params(again.model) < niwaki.count_params(model)
