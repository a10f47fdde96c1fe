"""Gradual pruning in a loop on the real accelerate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

accelerate = pytest.importorskip("accelerate")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_steps_are_those_of_the_optimiser(precision: str) -> None:
    from niwaki.integrations.accelerate import schedule

    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=2
    )
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    data = [(torch.randn(6), torch.tensor(0)) for _ in range(32)]
    loader: Any = torch.utils.data.DataLoader(data, batch_size=4)  # type: ignore[arg-type]  # a list does
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    gradual = schedule(
        accelerator, model, torch.randn(2, 6), 0.5, steps=8, times=2, begin=2, end=4,
        optimizer=optimizer, press="greg:reg=0.01",
    )  # fmt: skip
    sizes = []
    for _ in range(2):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                gradual.step()
                optimizer.zero_grad()
            sizes.append(model[0].out_features)
    assert gradual.done == 8
    assert len(sizes) == 16
    assert sizes[2] == 32
    assert sizes[3] == 18
    assert sizes[6] == 18
    assert sizes[7] == 16
    assert gradual.result.model is accelerator.unwrap_model(model)
