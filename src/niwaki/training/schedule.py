"""The learning rate over a run: every schedule is a function of the share of the run that lies
behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from niwaki.training.settings import TrainSettings

WARM_UP, START = (
    0.3,
    1 / 25,
)  # of one-cycle: share of the run that climbs, and where it starts (Smith, arXiv 1708.07120)
EARLY = 1e-6  # of an epoch: a share of the run is not exact


def learning_rate(settings: TrainSettings, done: float) -> float:
    """The learning rate once `done`, a share of the run in [0, 1], lies behind.

    `constant`: lr. `cosine`: from lr down to 0. `multistep`: a tenth after 1/2 of the run and a
    hundredth after 3/4; with `milestones`, times `gamma` after each of these epochs. `one-cycle`:
    linearly from lr/25 up to lr in the first 30 %, then a cosine down to 0.
    """
    if settings.milestones:
        passed = sum(done * settings.epochs > int(epoch) - EARLY for epoch in settings.milestones)
        return settings.lr * settings.gamma**passed
    return settings.lr * _FACTORS[settings.schedule](done)


def _cosine(done: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _multistep(done: float) -> float:
    return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01


def _one_cycle(done: float) -> float:
    return (
        START + (1 - START) * done / WARM_UP
        if done < WARM_UP
        else _cosine((done - WARM_UP) / (1 - WARM_UP))
    )


_FACTORS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": _cosine,
    "multistep": _multistep,
    "one-cycle": _one_cycle,
}
