"""Prune and merge the authors' own networks, and hold the accuracy against the paper's tables
(tables.toml).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import nn

from niwaki import data, models
from niwaki.core.errors import CheckpointError, DataError
from niwaki.data import Split
from niwaki.graph import trace
from niwaki.io.weights import load_weights
from niwaki.measure import evaluate
from niwaki.methods.base.compensation import compensate
from niwaki.methods.base.criterion import score
from niwaki.methods.base.cut import Cut, Scores
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.line import Line
from niwaki.papers.neuron_merging.lines import lines
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml
from niwaki.proof._check import check
from niwaki.pruning.allocation import select
from niwaki.pruning.selection import Selection
from niwaki.surgery import shrink

BATCH = 200


@RECIPES.register("neuron-merging")
@dataclass(frozen=True)
class NeuronMerging(Recipe):
    """LeNet-300-100 on FashionMNIST, and ResNet-56, VGG-16 and WideResNet-40-4 on CIFAR, from the
    authors' checkpoints.
    """

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
            model, split = _load(table, places)
        except (CheckpointError, DataError) as error:
            return Outcome(table["setting"], missing=str(error))
        baseline = Cell(
            experiment, "–", 0.0, "original", table.get("baseline"), _accuracy(model, split, places)
        )
        cells = [baseline]
        known = "" if baseline.published is None else f" (published {baseline.published:.2f})"
        say(f"{experiment}: original {baseline.measured:.2f}{known}")
        for cell in _cells(experiment, table, model, split, places):
            cells.append(cell)
            say(
                f"{experiment}: {cell.criterion} {cell.ratio:.0%} {cell.compensation} "
                f"{cell.measured:.2f}"
            )
        return Outcome(table["setting"], tuple(cells))


def _tables() -> dict[str, Any]:
    text = (
        resources.files("niwaki.papers.neuron_merging")
        .joinpath("tables.toml")
        .read_text(encoding="utf-8")
    )
    return read_toml(text)


def _load(table: dict[str, Any], places: Places) -> tuple[nn.Module, Split]:
    dataset = data.load(table["data"], places.data_root)
    model = models.build(table["model"], classes=dataset.classes)
    load_weights(model, places.checkpoint(table["checkpoint"]))
    # channels-last is the faster layout for convolutions on a CPU; the numbers are the same
    model = model.to(places.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
    return model.eval(), dataset.split("test").to(places.device)


def _cells(
    experiment: str, table: dict[str, Any], model: nn.Module, split: Split, places: Places
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
                mixings = compensate(Cut(graph, plan), compensation).mixings
                pruned = shrink(Cut(graph, plan, mixings))
                check(Cut(graph, plan, mixings), pruned)
                row = table.get("published", {}).get(criterion, {}).get(name)
                published = row[column] if row else None
                yield Cell(
                    experiment, criterion, ratio, name, published, _accuracy(pruned, split, places)
                )


def _accuracy(model: nn.Module, split: Split, places: Places) -> float:
    return round(100 * evaluate(model, split.batches(BATCH, limit=places.limit)).accuracy, 4)
