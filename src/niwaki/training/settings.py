"""What a training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from niwaki.core.errors import SettingError, UnknownNameError

Schedule = Literal["constant", "cosine", "multistep", "one-cycle"]
Optimizer = Literal["sgd", "adamw", "rmsprop"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainSettings:
    """Gradient descent on the cross-entropy.

    Attributes:
        lr: the highest learning rate; `niwaki.training.learning_rate` says how each schedule moves
            it.
        momentum, nesterov: of SGD; RMSprop has the same `momentum`, and AdamW takes it as its first
            beta.
        weight_decay: on every trainable parameter, biases and normalisation included, unless
            parameter groups say otherwise.
        milestones: of "multistep", the epochs after which the learning rate is multiplied by
            `gamma`: (10, 20), or "10+20" in a text; without any, after half and three quarters of
            the run.
        label_smoothing: share of the target that is spread evenly over all classes.
        ema: decay a step of a running mean of the weights, which is then what is validated and
            kept; 0: none.
        patience: stop once so many epochs in a row have not improved the validation; None: never.
        evaluate_every: validate after every so many epochs and after the last one; the epoch that
            is kept, and `patience`, go by those alone.
        accumulate: cut each batch into so many parts and step once: the same gradient in less
            memory.
        clip_norm: gradients longer than this (Euclidean, over all parameters) are shortened to it;
            None: never.
        precision: of the forward pass; "bf16" and "fp16" keep float32 weights.
        channels_last: lay images and kernels out channels-last; None: during training on a
            processor, where float32 convolutions are quicker so.
        compile: run the model through `torch.compile`.
        seed: of dropout and whatever else draws from torch's generator during the run.
    """

    epochs: int
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    milestones: str | tuple[int, ...] = ()
    gamma: float = 0.1
    label_smoothing: float = 0.0
    seed: int = 0
    optimizer: Optimizer = "sgd"
    ema: float = 0.0
    patience: int | None = None
    evaluate_every: int = 1
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = "no"
    channels_last: bool | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", _whole_numbers(self.milestones))
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
            "gamma must lie in (0, 1]": 0 < self.gamma <= 1,
            "evaluate_every must be 1 or more": self.evaluate_every >= 1,
            "milestones are epochs of the run, each later than the one before": _rise(
                self.milestones, self.epochs
            ),
            "milestones go with schedule='multistep'": not self.milestones
            or self.schedule == "multistep",
            "accumulate must be 1 or more": self.accumulate >= 1,
            "clip_norm must be above 0, or None": self.clip_norm is None
            or 0 < self.clip_norm < math.inf,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")


def _whole_numbers(given: str | tuple[int, ...]) -> tuple[int, ...]:
    """`"10+20"` as (10, 20); a list of them as a tuple."""
    if not isinstance(given, str):
        return tuple(given)
    try:
        return tuple(int(part) for part in given.split("+"))
    except ValueError:
        raise SettingError(f"milestones are epochs, as 10+20; got {given!r}") from None


def _rise(milestones: str | tuple[int, ...], epochs: int) -> bool:
    places = [0, *_whole_numbers(milestones), epochs + 1]
    return all(before < after for before, after in pairwise(places))
