"""What a training run did, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from niwaki.measure import Evaluation


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data; its numbers are means over the pass, taken while the weights moved."""

    number: int  # from 1
    loss: float  # cross-entropy a sample with its label smoothing, nats, without the penalty
    penalty: float  # a step; 0 without one
    accuracy: float  # share in [0, 1] of the training samples, as augmented
    lr: float  # of the epoch's last step
    samples: int
    seconds: float  # of training, validation left out
    validation: Evaluation | None = None


@dataclass(frozen=True)
class History:
    """A training run. The model holds the weights of `best_epoch`; 0 means those that it came with."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    stopped: str | None = None  # why the run ended early, as a sentence for the user; None: it did not

    @property
    def seconds(self) -> float:
        """Wall time of training, all epochs together."""
        return sum(epoch.seconds for epoch in self.epochs)
