"""Gradual pruning in the real Lightning `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import niwaki
from niwaki.core.errors import SettingError

lightning = pytest.importorskip("lightning.pytorch")


class Task(lightning.LightningModule):  # type: ignore[misc,name-defined]  # it has no types
    def __init__(self, parts: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
        if parts > 1:
            self.other = nn.Linear(3, 3)

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]


def fit(folder: Path, callbacks: list[Any], task: Any = None, **settings: Any) -> Any:
    data = [(torch.randn(6), torch.tensor(0)) for _ in range(32)]
    task = task or Task()
    run = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **settings,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=4)  # type: ignore[arg-type,var-annotated]  # a list does
    run.fit(task, loader)
    return task


def pruning(**settings: Any) -> Any:
    from niwaki.integrations.lightning import GradualPruning

    return GradualPruning(torch.randn(2, 6), 0.5, **{"times": 2, **settings})


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}]
)
def test_the_network_of_the_module_becomes_smaller(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    callback = pruning(press="greg")
    task = fit(tmp_path, [callback], **settings)
    assert task.net[0].out_features == 16
    assert callback.result.model is task.net
    assert callback.gradual.done == (8 if settings.get("accumulate_grad_batches") else 16)
    held = {id(p) for g in task.trainer.optimizers[0].param_groups for p in g["params"]}
    assert held == {id(p) for p in task.parameters()}
    assert niwaki.count_params(task) == niwaki.count_params(task.net)


def test_which_part_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"several parts with parameters \(net, other\)"):
        fit(tmp_path, [pruning()], Task(2))
    with pytest.raises(SettingError, match="module='body' is no part of Task"):
        fit(tmp_path, [pruning(module="body")], Task(2))
    assert fit(tmp_path, [pruning(module="net")], Task(2)).net[0].out_features == 16


def test_bad_schedules(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="longer than the run"):
        fit(tmp_path, [pruning(begin=3, end=100)])
    with pytest.raises(SettingError, match="has a pruning schedule already"):
        fit(tmp_path, [pruning(), pruning()])
