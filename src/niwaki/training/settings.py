"""What a training run is asked to do, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from niwaki.errors import SettingError, UnknownNameError

Schedule = Literal["constant", "cosine", "multistep", "one-cycle"]


@dataclass(frozen=True)
class TrainSettings:
    """Stochastic gradient descent with momentum on the cross-entropy.

    Schedules, over the whole run: `constant`; `cosine`, from `lr` down to 0; `multistep`, a tenth after 1/2 of the run
    and a hundredth after 3/4; `one-cycle`, linearly from `lr`/25 up to `lr` in the first 30 %, then a cosine down to 0.
    """

    epochs: int
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4  # on every trainable parameter, biases and normalisation included
    schedule: Schedule = "cosine"
    label_smoothing: float = 0.0
    seed: int = 0  # of dropout and whatever else draws from torch's generator during the run

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise UnknownNameError("schedule", self.schedule, get_args(Schedule))
        allowed = {
            "epochs must be 1 or more": self.epochs >= 1,
            "lr must be above 0": 0 < self.lr < math.inf,
            "momentum must lie in [0, 1)": 0 <= self.momentum < 1,
            "nesterov needs a momentum above 0": self.momentum > 0 or not self.nesterov,
            "weight_decay must be 0 or more": 0 <= self.weight_decay < math.inf,
            "label_smoothing must lie in [0, 1)": 0 <= self.label_smoothing < 1,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")


def learning_rate(settings: TrainSettings, done: float) -> float:
    """The learning rate once `done`, a share of the run in [0, 1], lies behind."""
    if settings.schedule == "cosine":
        return settings.lr * _cosine(done)
    if settings.schedule == "multistep":
        return settings.lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if settings.schedule == "one-cycle":
        return settings.lr * (1 / 25 + (24 / 25) * done / 0.3 if done < 0.3 else _cosine((done - 0.3) / 0.7))
    return settings.lr


def _cosine(done: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))
