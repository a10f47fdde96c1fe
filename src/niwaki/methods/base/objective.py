"""What a training objective with a state of its own is: a loss that training asks for at every
step.

`niwaki.training.fit(…, distillation=…)` takes one in the place of a teacher. It is opened once a
run, with the network that is trained, and what that gives is asked for the loss after every
forward pass; whatever it holds (teachers, discriminators, their optimisers) lives until it is
closed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn


class Watching(Protocol):
    """An objective at work."""

    def loss(self, inputs: Tensor, logits: Tensor, cross_entropy: Tensor) -> Tensor:
        """The whole loss of a step, of the inputs and logits of the network's last forward pass."""


class Objective(Protocol):
    """A loss in the place of the cross-entropy; its text says how it differs from others."""

    def watching(self, student: nn.Module) -> AbstractContextManager[Watching]:
        """The objective at work on a network, until the block ends."""
