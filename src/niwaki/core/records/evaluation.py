"""How well a classifier does on a data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a data set."""

    accuracy: float  # share in [0, 1]: correct / samples
    loss: float  # mean cross-entropy a sample, nats; not finite where an output is not
    samples: int
    correct: int
    non_finite: int = 0  # samples with a NaN or +inf in their output; each counts as wrong
