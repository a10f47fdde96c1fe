"""What a training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from niwaki.core.errors import SettingError, UnknownNameError

Schedule = Literal["constant", "cosine", "multistep", "one-cycle"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainSettings:
    """Gradient descent on the cross-entropy.

    Attributes:
        lr: the highest learning rate; `niwaki.training.learning_rate` says how each schedule moves
            it.
        momentum, nesterov: of SGD; AdamW takes `momentum` as its first beta.
        weight_decay: on every trainable parameter, biases and normalisation included, unless
            parameter groups say otherwise.
        label_smoothing: share of the target that is spread evenly over all classes.
        ema: decay a step of a running mean of the weights, which is then what is validated and
            kept; 0: none.
        patience: stop once so many epochs in a row have not improved the validation; None: never.
        accumulate: cut each batch into so many parts and step once: the same gradient in less
            memory.
        clip_norm: gradients longer than this (Euclidean, over all parameters) are shortened to it;
            None: never.
        precision: of the forward pass; "bf16" and "fp16" keep float32 weights.
        channels_last, compile: lay images and kernels out channels-last; run the model through
            `torch.compile`.
        seed: of dropout and whatever else draws from torch's generator during the run.
    """

    epochs: int
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    label_smoothing: float = 0.0
    seed: int = 0
    optimizer: Optimizer = "sgd"
    ema: float = 0.0
    patience: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = "no"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        choices = {
            "schedule": (self.schedule, get_args(Schedule)),
            "optimizer": (self.optimizer, get_args(Optimizer)),
            "precision": (self.precision, get_args(Precision)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise UnknownNameError(name, value, known)
        allowed = {
            "epochs must be 1 or more": self.epochs >= 1,
            "lr must be above 0": 0 < self.lr < math.inf,
            "momentum must lie in [0, 1)": 0 <= self.momentum < 1,
            "nesterov needs a momentum above 0": self.momentum > 0 or not self.nesterov,
            "weight_decay must be 0 or more": 0 <= self.weight_decay < math.inf,
            "label_smoothing must lie in [0, 1)": 0 <= self.label_smoothing < 1,
            "ema must lie in [0, 1)": 0 <= self.ema < 1,
            "patience must be 1 or more, or None": self.patience is None or self.patience >= 1,
            "accumulate must be 1 or more": self.accumulate >= 1,
            "clip_norm must be above 0, or None": self.clip_norm is None
            or 0 < self.clip_norm < math.inf,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")
