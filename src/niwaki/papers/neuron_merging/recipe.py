"""Prune and merge the authors' own networks, and hold the accuracy against the paper's tables
(tables.toml).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from niwaki import data, models
from niwaki.core.errors import CheckpointError, DataError, UnknownNameError
from niwaki.data import Dataset, Split
from niwaki.graph import trace
from niwaki.io.weights import load_weights
from niwaki.measure import evaluate
from niwaki.methods.base.compensation import compensate
from niwaki.methods.base.criterion import score
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.base.evidence import Calibration
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.images import some
from niwaki.papers.line import Line
from niwaki.papers.neuron_merging.lines import lines
from niwaki.papers.neuron_merging.training import own_checkpoint
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml
from niwaki.proof._check import check
from niwaki.pruning.allocation import select
from niwaki.pruning.selection import Selection
from niwaki.surgery import shrink

Budget = Literal["full", "short"]
BATCH = 200
SEEN = 1024  # training images that a calibrated repair looks at


@RECIPES.register("neuron-merging")
@dataclass(frozen=True)
class NeuronMerging(Recipe):
    """LeNet-300-100 on FashionMNIST, and ResNet-56, VGG-16 and WideResNet-40-4 on CIFAR, from the
    authors' checkpoints.

    Attributes:
        budget: "full" takes the authors' checkpoints alone; "short" trains a network whose
            checkpoint is missing for a few epochs, where the table says how, and keeps it in the
            work folder.
    """

    budget: Budget = "full"

    def __post_init__(self) -> None:
        if self.budget not in get_args(Budget):
            raise UnknownNameError("budget", self.budget, get_args(Budget))

    def lines(self) -> tuple[Line, ...]:
        return tuple(lines(_tables()))

    def names(self) -> tuple[str, ...]:
        return tuple(_tables())

    def cells(self, experiment: str) -> int:
        table = _tables()[experiment]
        ways = len(table["criteria"]) * len(table["compensations"])
        return 1 + ways * len(table["ratios"])

    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        table = _tables()[experiment]
        try:
            dataset = data.load(table["data"], places.data_root)
            model = self._network(table, dataset, places)
            split = dataset.split("test").to(places.device)
        except (CheckpointError, DataError) as error:
            return Outcome(table["setting"], missing=str(error))
        baseline = Cell(
            experiment, "–", 0.0, "original", table.get("baseline"), _accuracy(model, split, places)
        )
        cells = [baseline]
        setting = table["setting"] + self._trained_here(table, places)
        known = "" if baseline.published is None else f" (published {baseline.published:.2f})"
        say(f"{experiment}: original {baseline.measured:.2f}{known}")
        seen = partial(_seen, dataset, places)
        for cell in _cells(experiment, table, model, seen, split, places):
            cells.append(cell)
            say(
                f"{experiment}: {cell.criterion} {cell.ratio:.0%} {cell.compensation} "
                f"{cell.measured:.2f}"
            )
        return Outcome(setting, tuple(cells))

    def _trained_here(self, table: dict[str, Any], places: Places) -> str:
        """How long the network was trained, where it was trained here."""
        if not self._is_own(table, places):
            return ""
        how = table[self.budget]
        return (
            f"; trained here for {how['epochs']} epochs, one cycle of the learning rate up to "
            f"{how['lr']}, {'smaller images first, ' if 'sizes' in how else ''}"
            "the epoch chosen on a validation split"
        )

    def _is_own(self, table: dict[str, Any], places: Places) -> bool:
        """Whether the network is trained here: the table says how, and there is no checkpoint."""
        return self.budget in table and not places.checkpoint(table["checkpoint"]).is_file()

    def _network(self, table: dict[str, Any], dataset: Dataset, places: Places) -> nn.Module:
        """The trained network: from a checkpoint, or trained here where the budget allows it."""
        model = models.build(table["model"], classes=dataset.classes)
        path = places.checkpoint(table["checkpoint"])
        if self._is_own(table, places):
            path = own_checkpoint(model, table, self.budget, dataset, places)
        load_weights(model, path)
        # channels-last is the faster layout for convolutions on a CPU; the numbers are the same
        model.to(places.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
        return model.eval()


def _seen(dataset: Dataset, places: Places) -> Iterator[Tensor]:
    """The first `SEEN` training images of a fixed shuffle, without labels, for repairs that look at
    activations.
    """
    for images, _ in some(dataset.split("train"), SEEN).to(places.device).batches(BATCH):
        yield images


def _tables() -> dict[str, Any]:
    text = (
        resources.files("niwaki.papers.neuron_merging")
        .joinpath("tables.toml")
        .read_text(encoding="utf-8")
    )
    return read_toml(text)


def _cells(
    experiment: str,
    table: dict[str, Any],
    model: nn.Module,
    seen: Callable[[], Iterator[Tensor]],
    split: Split,
    places: Places,
) -> Iterator[Cell]:
    graph = trace(model, models.example_inputs(model))
    selection = Selection(
        only=tuple(table["only"]),
        skip=tuple(table.get("skip", ())),
        rounding=table["rounding"],
    )
    for criterion in table["criteria"]:
        scores = score(graph, criterion)
        for column, ratio in enumerate(table["ratios"]):
            plan = select(Scores(graph, scores), ratio, selection).plan
            for name, compensation in table["compensations"].items():
                given = Calibration.of(seen) if name in table.get("calibrated", ()) else None
                cut = compensate(Cut(graph, plan), compensation, calibration=given)
                mixings = cut.mixings
                pruned = shrink(Cut(graph, plan, mixings))
                check(Cut(graph, plan, mixings), pruned)
                row = table.get("published", {}).get(criterion, {}).get(name)
                published = row[column] if row else None
                yield Cell(
                    experiment, criterion, ratio, name, published, _accuracy(pruned, split, places)
                )


def _accuracy(model: nn.Module, split: Split, places: Places) -> float:
    return round(100 * evaluate(model, split.batches(BATCH, limit=places.limit)).accuracy, 4)
