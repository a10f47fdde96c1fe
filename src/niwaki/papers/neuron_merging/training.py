"""A network whose checkpoint is not at hand, trained here for a few epochs: one cycle of the
learning rate, the epoch chosen on a validation split of the training images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from niwaki.data import Dataset
from niwaki.papers.fitting import fit_by_validation
from niwaki.papers.recipe import Places
from niwaki.training import Augment, Feed, FeedSettings, TrainSettings

WORK = Path("niwaki-neuron-merging")  # where there is no other word
BATCH = 128


def own_checkpoint(
    model: nn.Module, table: dict[str, Any], budget: str, dataset: Dataset, places: Places
) -> Path:
    """Where the network lies that was trained here; trained now, or on from where it was cut off.

    Args:
        model: of the table's architecture; it is trained in place.
        table: an experiment of tables.toml, with the training's settings under the budget's name.
    """
    how = table[budget]
    work = (places.work or WORK) / budget
    path = work / f"{Path(table['checkpoint']).name.partition('.pth')[0]}.safetensors"
    if path.is_file():
        return path
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    model.to(places.device)
    train = dataset.split("train").to(places.device)
    if places.limit is not None:
        train = train.take(torch.arange(min(places.limit, len(train))))
    fit_by_validation(
        model,
        Feed(train, FeedSettings(BATCH, Augment(border="zero"), sizes=_sizes(how))),
        dataset,
        places,
        work / "training",
        settings=TrainSettings(
            how["epochs"], how["lr"], weight_decay=5e-4, schedule="one-cycle", evaluate_every=2
        ),
        describes={"row": path.stem},
    )
    save_file({name: tensor.cpu() for name, tensor in model.state_dict().items()}, str(path))
    return path


def _sizes(how: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """From which epoch on images have how many pixels a side; empty: as they are."""
    return tuple((epoch, pixels) for epoch, pixels in how.get("sizes", ()))
