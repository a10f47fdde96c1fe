"""What a training run did, epoch by epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from niwaki.core.records import Evaluation


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data; its numbers are means over the pass, taken while the weights
    moved.
    """

    number: int  # from 1
    loss: float  # cross-entropy a sample with its label smoothing, nats, without the penalty
    penalty: float  # what penalty and distillation added, a step; 0 without them
    accuracy: float  # share in [0, 1] of the training samples, as augmented
    lr: float  # of the epoch's last step
    samples: int
    seconds: float  # of training, validation left out
    validation: Evaluation | None = None  # None also where this epoch was not evaluated
    observed: dict[str, Evaluation] = field(default_factory=dict)  # what nothing is chosen by

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Epoch:
        """What `dataclasses.asdict` made of one."""
        validation = data.get("validation")
        observed = data.get("observed", {})
        evaluations = {
            "validation": None if validation is None else Evaluation(**validation),
            "observed": {name: Evaluation(**entry) for name, entry in observed.items()},
        }
        return cls(**{**data, **evaluations})


@dataclass(frozen=True)
class History:
    """A training run. The model holds the weights of `best_epoch`; 0 means those that it came
    with.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int
    stopped: str | None = (
        None  # why the run ended early, as a sentence for the user; None: it did not
    )
    notes: tuple[
        str, ...
    ] = ()  # what a reader must know: files that could not be read, and were left out

    @property
    def seconds(self) -> float:
        """Wall time of training, all epochs together."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights were kept; None where none was sound."""
        return next((epoch for epoch in self.epochs if epoch.number == self.best_epoch), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON holds it."""
        return dataclasses.asdict(self)
