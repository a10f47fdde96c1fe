"""A row whose network is trained here, with a penalty that makes units small, then pruned, and
trained again without it: Network Slimming's and SSL's multilayer perceptrons.

The epoch that is kept is chosen on a validation split, both times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from niwaki import models
from niwaki.data import Dataset
from niwaki.graph import Graph, trace
from niwaki.methods.base.penalty import PenaltyOver
from niwaki.methods.slimming import Slimming
from niwaki.methods.ssl import SSL
from niwaki.papers.baselines.run import Cost, Row, Setup
from niwaki.papers.fitting import fit_by_validation
from niwaki.papers.images import some
from niwaki.training import Feed, FeedSettings, History, TrainSettings
from niwaki.training import learning_rate as rate_after

BATCH, WEIGHT_DECAY = 256, 1e-4
KEPT = "the epoch is chosen on a validation split of the training images, both times"
AfterStep = Callable[[nn.Module], None]


@dataclass(frozen=True)
class SparseRow(Row):
    """A row with `penalty` ("l1" over scales, or "ssl") and its weight `reg`."""

    kept: str = KEPT

    def _asked(self, cost: Cost) -> dict[str, Any]:
        """All that the numbers depend on, as JSON holds it."""
        own = {"batch": BATCH, "weight_decay": WEIGHT_DECAY, "distil": 0.0}
        return {**super()._asked(cost), **own}

    def _original(self, setup: Setup) -> nn.Module:
        """The network that was trained with the penalty."""
        torch.manual_seed(self.seed)
        model = models.build(self.entry["model"], classes=setup.dataset.classes)
        model = model.to(setup.places.device)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.constant_(module.weight, 0.5)
        graph = trace(model.eval(), models.example_inputs(model))
        added, after = self._penalty(graph, setup.cost, setup.dataset)
        self._fitted(model, setup, f"{self.name}-trained", added, after)
        return model.eval()

    def _penalty(
        self, graph: Graph, cost: Cost, dataset: Dataset
    ) -> tuple[PenaltyOver | None, AfterStep | None]:
        """What is added to the loss, or done after each step."""
        if self.entry["penalty"] == "l1":
            return Slimming(self.entry["reg"]).over(graph), None
        train = some(dataset.split("train"), cost.images)
        settings = self._settings(cost)
        steps = cost.epochs * len(Feed(train, FeedSettings(BATCH)))

        def rate(step: int) -> float:
            return rate_after(settings, step / steps)

        both = [
            SSL(self.entry["reg"], kind).over(graph).proximal(rate)
            for kind in ("filters", "channels")
        ]

        def shrink(model: nn.Module) -> None:
            for step in both:
                step(model)

        return None, shrink

    def _tuned(self, teacher: nn.Module, smaller: nn.Module, setup: Setup) -> History:
        """The same training without the penalty; the published methods have no teacher."""
        return self._fitted(smaller, setup, self.name)

    def _settings(self, cost: Cost) -> TrainSettings:
        third = max(1, cost.epochs // 3)
        return TrainSettings(
            cost.epochs,
            cost.lr,
            weight_decay=WEIGHT_DECAY,
            schedule="multistep",
            milestones=tuple(epoch for epoch in (third, 2 * third) if epoch <= cost.epochs),
            seed=self.seed,
        )

    def _fitted(
        self,
        model: nn.Module,
        setup: Setup,
        folder: str,
        penalty: PenaltyOver | None = None,
        after_step: AfterStep | None = None,
    ) -> History:
        return fit_by_validation(
            model,
            Feed(setup.training(), FeedSettings(BATCH, seed=self.seed)),
            setup.dataset,
            setup.places,
            setup.work / folder,
            settings=self._settings(setup.cost),
            describes={"row": self.name, "penalty_weight": str(self.entry["reg"])},
            penalty=penalty,
            after_step=after_step,
        )
