"""The optimisers that the settings name."""

from __future__ import annotations

from typing import Any

import torch

from niwaki.training.settings import TrainSettings

SMOOTHING = 0.9  # of RMSprop's squared gradients, as Hinton's lecture 6e has it


def make_optimizer(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    """A fresh one over parameter groups."""
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(settings.momentum, 0.999), **common)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=SMOOTHING, momentum=settings.momentum, **common)
    return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, **common)
