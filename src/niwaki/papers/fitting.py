"""Networks that recipes train themselves: the epoch is chosen on a validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import nn

from niwaki.data import Dataset
from niwaki.measure import evaluate
from niwaki.methods.base.penalty import PenaltyOver
from niwaki.papers.recipe import Places
from niwaki.training import Feed, History, RunFolder, TrainSettings, fit

EVALUATION_BATCH = 500


def fit_by_validation(
    model: nn.Module,
    feed: Feed,
    dataset: Dataset,
    places: Places,
    folder: Path,
    *,
    settings: TrainSettings,
    describes: Mapping[str, str],
    penalty: PenaltyOver | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> History:
    """Train a network in place, or go on where a run in this folder was cut off.

    Args:
        dataset: of which the validation split chooses the epoch that is kept.
        describes: what the folder says of itself; another run's folder is refused.
    """
    held_out = dataset.split("validation").to(places.device)
    batches = partial(held_out.batches, EVALUATION_BATCH, limit=places.limit)
    return fit(
        model,
        feed,
        settings=settings,
        validate=lambda network: evaluate(network, batches()),
        penalty=penalty,
        after_step=after_step,
        folder=RunFolder(folder, resume=True, trackers=(), describes=dict(describes)),
        progress=False,
    )
