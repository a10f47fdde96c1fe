"""Neuron Merging's rows for the overview."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from niwaki.papers.hours import IMAGES, training_hours
from niwaki.papers.line import Line, Measured, budget_of

EPOCHS = 200  # that the paper trains a network for; all rows of a table share it
Key = tuple[str, str, float, str]


def lines(tables: Mapping[str, Any]) -> Iterator[Line]:
    """Every published cell, and every measured one."""
    known = _recorded()
    for experiment, table in tables.items():
        base, _ = known.get((experiment, "–", 0.0, "original"), (None, ""))
        for criterion in table["criteria"]:
            for column, ratio in enumerate(table["ratios"]):
                for name in table["compensations"]:
                    row = table.get("published", {}).get(criterion, {}).get(name)
                    accuracies = known.get((experiment, criterion, ratio, name))
                    yield Line(
                        "Neuron Merging, no fine-tuning",
                        experiment,
                        f"{criterion}, {name}",
                        f"{ratio:.0%}",
                        table["counts"],
                        row[column] if row else None,
                        table.get("baseline"),
                        ()
                        if accuracies is None
                        else (Measured(accuracies[0], base, accuracies[1]),),
                        _hours(table),
                    )


def _hours(table: Mapping[str, Any]) -> float | None:
    """Of the training, where there is no checkpoint; merging itself takes no time."""
    unknown = table["data"].partition(":")[0] not in IMAGES
    return None if unknown else training_hours(table["model"], table["data"], EPOCHS)


def _recorded() -> dict[Key, tuple[float, str]]:
    """Accuracy and budget of every measured cell."""
    folder = resources.files("niwaki.papers.neuron_merging").joinpath("records")
    known = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        record = json.loads(path.read_text(encoding="utf-8"))
        budget = budget_of(record)
        for cell in record["cells"]:
            key = (cell["experiment"], cell["criterion"], cell["ratio"], cell["compensation"])
            known[key] = (cell["measured"], budget)
    return known
